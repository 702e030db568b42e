//! What every worker of one leadership shares: the ports, and the limits on what is done at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

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

/// Pushes at once. Each is 30 s at most, and our own init container answers in a fraction of a second: only
/// receivers that hang fill it, and that many hanging at once still leave the others their turn.
const MAX_PUSHES: usize = 2_048;

/// Workers at once, in whatever step they are.
pub(super) const MAX_WORKERS: usize = MAX_PUSHES + MAX_DIALS;

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
    pub(super) pushes: Semaphore,
}

impl Context {
    pub(super) fn new(ports: Ports, leadership: Leadership) -> Self {
        Self {
            ports,
            leadership,
            dials: Semaphore::new(MAX_DIALS),
            vault_requests: Semaphore::new(MAX_VAULT_REQUESTS),
            pushes: Semaphore::new(MAX_PUSHES),
        }
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub(super) fn jitter(&self) -> f64 {
        // 53 bits: as many as an f64 holds.
        (self.ports.dice.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Waits for a permit. The semaphores here are never closed.
pub(super) async fn permit(semaphore: &Semaphore) -> Option<tokio::sync::SemaphorePermit<'_>> {
    semaphore.acquire().await.ok()
}
