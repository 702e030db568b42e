//! What every worker of one leadership shares: the ports, and the bounds on what is done at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::ports::{Announcer, Courier, Leadership, LedgerPort, Meter, PodFeed, SecretIssuer};
use crate::clock::{Clock, Dice};

/// The world, as the workflow sees it.
#[derive(Clone)]
pub struct Ports {
    /// Which pods may wait.
    pub feed: Arc<dyn PodFeed>,
    /// Vault.
    pub issuer: Arc<dyn SecretIssuer>,
    /// The way to init containers.
    pub courier: Arc<dyn Courier>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerPort>,
    /// Events.
    pub announcer: Arc<dyn Announcer>,
    /// Metrics.
    pub meter: Arc<dyn Meter>,
    /// Wall-clock time, for the ledger's commands.
    pub clock: Arc<dyn Clock>,
    /// Attempt ids and jitter.
    pub dice: Dice,
}

/// Init containers at once that are dialled, or have been and wait for their turn at Vault. A black-holed address
/// occupies one for a second, so this many can be tried each second; a handshake's buffers take some 30 KiB, and each
/// is a file descriptor of the 1,024 that a container may have.
const MAX_DIALS: usize = 256;

/// Requests to Vault at once. Two cores' Vault is busy with a third of it; more only queue up inside Vault.
const MAX_VAULT_REQUESTS: usize = 64;

/// Workers at once that have not come to their push yet: as many as keep the ledger, the dials and Vault busy, and no
/// more. For each waits its turn in order of arrival, so that a pod of another namespace would wait for all of them.
const MAX_BEFORE_PUSH: usize = 512;

/// Reads of single pods at once: they settle what an earlier leader left open, and are not urgent.
pub(super) const MAX_READS: usize = 4;

/// Between two such reads: 50 a second, however many there are. A leader that follows a crash amid a burst has
/// thousands to make, just when the API server is busy with that burst.
pub(super) const READ_PAUSE: Duration = Duration::from_millis(20);

/// A claim that is older is confirmed before it is used: it may have been committed after our lease ran out.
pub(super) const CLAIM_FRESH: Duration = Duration::from_secs(5);

/// What the workers of one leadership share.
pub(super) struct Context {
    pub(super) ports: Ports,
    pub(super) leadership: Leadership,
    pub(super) dials: Semaphore,
    pub(super) vault_requests: Semaphore,
    /// Workers that have not come to their push.
    pub(super) before_push: Places,
    /// Attempts that are under way.
    pub(super) in_flight: Places,
    /// Told when a place is free where none was.
    pub(super) room: Arc<Notify>,
}

impl Context {
    pub(super) fn new(ports: Ports, leadership: Leadership, in_flight: usize) -> Self {
        let room = Arc::new(Notify::new());
        Self {
            ports,
            leadership,
            dials: Semaphore::new(MAX_DIALS),
            vault_requests: Semaphore::new(MAX_VAULT_REQUESTS),
            before_push: Places::new(MAX_BEFORE_PUSH, &room),
            in_flight: Places::new(in_flight, &room),
            room,
        }
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub(super) fn jitter(&self) -> f64 {
        // 53 bits: as many as an f64 holds.
        (self.ports.dice.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// So many places, which the service's loop gives to workers. Not a semaphore: nobody waits here. The loop looks for a
/// free one before it takes a pod out of its line, and is told when there is one again.
#[derive(Clone)]
pub(super) struct Places(Arc<Counted>);

struct Counted {
    most: usize,
    taken: AtomicUsize,
    room: Arc<Notify>,
}

/// A place that is taken, until this is dropped.
pub(super) struct Place(Places);

impl Places {
    fn new(most: usize, room: &Arc<Notify>) -> Self {
        Self(Arc::new(Counted { most, taken: AtomicUsize::new(0), room: room.clone() }))
    }

    /// Whether none is free.
    pub(super) fn are_taken(&self) -> bool {
        self.0.taken.load(Ordering::Relaxed) >= self.0.most
    }

    /// Takes one. Only the loop does so, after [`Places::are_taken`].
    pub(super) fn take(&self) -> Place {
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Counted { most, taken, room } = &*self.0.0;
        // Only where the loop may be waiting for it: else each delivery would wake it twice more.
        if taken.fetch_sub(1, Ordering::Relaxed) >= *most {
            room.notify_one();
        }
    }
}

/// Waits for a permit. The semaphores here are never closed.
pub(super) async fn permit(semaphore: &Semaphore) -> Option<tokio::sync::SemaphorePermit<'_>> {
    semaphore.acquire().await.ok()
}
