//! What follows from what a worker reports: the second half of [`Service`].

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use super::context::permit;
use super::ports::Incident;
use super::rows::Stage;
use super::service::{Report, Service};
use super::worker::{Attempted, Progress, Turn};
use crate::domain::announcement::Announcement;
use crate::domain::backoff::{ATTEMPT, DIAL};
use crate::domain::delivery::VaultTrouble;
use crate::domain::ids::{InstanceKey, PodUid};

/// Dials in a row that fail before the pod's author is told: about 5 s. An init container needs a few
/// milliseconds to listen, a network policy sometimes a second.
const UNREACHED_TELL: u32 = 10;

/// The ledger is full, or we may not lead any more: nothing is urgent then.
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// Between two log lines that the ledger is full.
const FULL_AGAIN: Duration = Duration::from_secs(60);

/// An init container that has answered that it is done exits at once. One that still runs after this long, by its
/// status and by a handshake, is served again. Doubled with each generation: whatever listens there may never exit.
const SETTLED_BUT_RUNNING: Duration = Duration::from_secs(30);

/// The longest wait between two such looks.
const SETTLED_BUT_RUNNING_MOST: Duration = Duration::from_secs(600);

impl Service {
    pub(super) fn finish(&mut self, report: Report) {
        match report {
            Report::Attempted { uid, key, progress, attempted, addresses, errand } => {
                self.rows.release(&addresses);
                if !attempted.asked {
                    self.turns.give_back(&errand);
                }
                self.attempted(&uid, &key, progress, attempted);
            }
            Report::Read { uid, found } => self.read(&uid, found),
            Report::Alive { uid, key, answers } => self.alive(&uid, &key, answers),
            Report::Recorded => {}
        }
    }

    /// A worker panicked: a bug, which costs its pod its delivery, and no other pod anything.
    pub(super) fn worker_died(&mut self, error: &JoinError) {
        tracing::error!(%error, "a delivery worker died; this is a bug");
        let Some((uid, addresses)) = self.attempts.remove(&error.id()) else { return };
        self.rows.release(&addresses);
        let Some(row) = self.rows.by_uid.get_mut(&uid) else { return };
        row.working = false;
        if let Some(instance) = row.instance.as_mut() {
            instance.stage = Stage::Closed;
        }
        if row.left { self.left(&uid) } else { self.evaluate(&uid) }
    }

    fn attempted(&mut self, uid: &PodUid, key: &InstanceKey, progress: Box<Progress>, attempted: Attempted) {
        let now = Instant::now();
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        row.working = false;
        let Some(instance) = row.instance.as_mut().filter(|instance| instance.key == *key) else { return };
        let role = instance.role.clone();
        let dial_failures = progress.dial_failures;
        let attempt_failures = progress.attempt_failures;
        instance.progress = Some(progress);
        if attempted.issued && self.gates.succeeded(&role, now) {
            self.wake_held_back(now);
        }
        let jitter = self.ctx.jitter();
        let due = match attempted.turn {
            Turn::Settled => Some(now + look_again_after(key.generation)),
            Turn::Closed => None,
            Turn::Unreached => {
                self.gates.undecided(&role, now);
                self.tell_unreached(uid, dial_failures, attempted.cause);
                Some(now + DIAL.wait(dial_failures, jitter))
            }
            Turn::Again(at_least) => {
                Some(now + ATTEMPT.wait(attempt_failures, jitter).max(at_least.unwrap_or_default()))
            }
            Turn::WrongPod => Some(now + ATTEMPT.wait(attempt_failures, jitter)),
            Turn::Vault(ref trouble) => Some(self.vault_said(uid, trouble, now)),
            Turn::LedgerFull => {
                self.gates.undecided(&role, now);
                self.ledger_full(uid);
                Some(now + LEDGER_PAUSE)
            }
            Turn::NotLeading => {
                self.gates.undecided(&role, now);
                Some(now + LEDGER_PAUSE)
            }
        };
        self.after(uid, &attempted.turn, due, now);
    }

    fn after(&mut self, uid: &PodUid, turn: &Turn, due: Option<Instant>, now: Instant) {
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        let left = row.left;
        if let Some(instance) = row.instance.as_mut() {
            match turn {
                Turn::Settled => instance.stage = Stage::Settled(now),
                Turn::Closed => instance.stage = Stage::Closed,
                _ => {}
            }
            if matches!(turn, Turn::Settled | Turn::Closed) {
                // Nothing of it is needed for an instance whose attempts are over; what is unknown still has its token.
                instance.progress = instance.progress.take().filter(|progress| !progress.held.is_empty());
            }
        }
        if let Some(due) = due {
            self.schedule(uid, due);
        }
        if matches!(turn, Turn::WrongPod)
            && let Some(row) = self.rows.by_uid.get_mut(uid)
        {
            row.disowned = true;
            self.reads.put(uid.clone(), now);
        }
        if left { self.left(uid) } else { self.evaluate(uid) }
    }

    fn tell_unreached(&self, uid: &PodUid, failures: u32, cause: Option<String>) {
        if failures.is_multiple_of(UNREACHED_TELL)
            && let Some(row) = self.rows.by_uid.get(uid)
        {
            let cause = cause.unwrap_or_default();
            let (pod, attempt) = (&row.pod.reference, row.attempt().map(tracing::field::display));
            tracing::warn!(%pod, pod.uid = %uid, attempt, cause, "the init container does not answer");
            self.ctx.ports.announcer.announce(&row.pod.reference, Announcement::Unreachable(cause));
        }
    }

    /// Vault issued nothing: closes a gate, tells why, and says when to ask again.
    fn vault_said(&mut self, uid: &PodUid, trouble: &VaultTrouble, now: Instant) -> Instant {
        let jitter = self.ctx.jitter();
        let Some(row) = self.rows.by_uid.get(uid) else { return now };
        let reference = row.pod.reference.clone();
        if !trouble.concerns_role_alone() {
            self.held_back.insert(uid.clone());
            self.ctx.ports.announcer.announce(&reference, Announcement::VaultUnavailable(trouble.to_string()));
            return self.gates.vault_failed(trouble, now, jitter);
        }
        let Some(role) = row.instance.as_ref().map(|instance| instance.role.clone()) else { return now };
        let attempt = row.attempt().map(tracing::field::display);
        tracing::warn!(pod = %reference, pod.uid = %uid, %role, attempt, cause = %trouble, "Vault issues no secret_id for this role");
        self.ctx.ports.announcer.announce(&reference, Announcement::RoleRefused(trouble.to_string()));
        let (until, vault_was_closed) = self.gates.role_refused(&role, trouble, now, jitter);
        if vault_was_closed {
            self.wake_held_back(now);
        }
        until
    }

    /// A gate opened: whoever it kept waiting is due now.
    pub(super) fn wake_held_back(&mut self, now: Instant) {
        for uid in std::mem::take(&mut self.held_back) {
            self.schedule(&uid, now);
        }
    }

    fn ledger_full(&mut self, uid: &PodUid) {
        self.ctx.ports.meter.happened(Incident::LedgerFull, 1);
        // One cause for all pods that start: one line a minute says that it lasts.
        let now = Instant::now();
        if self.told_full.is_none_or(|told| now.duration_since(told) >= FULL_AGAIN) {
            self.told_full = Some(now);
            tracing::error!(
                "the ledger of deliveries is full: nothing is claimed until earlier deliveries are settled"
            );
        }
        if let Some(row) = self.rows.by_uid.get(uid) {
            self.ctx.ports.announcer.announce(&row.pod.reference, Announcement::LedgerFull);
        }
    }

    /// Dials an init container that says it is done, but is still seen running.
    pub(super) fn start_alive(&mut self, uid: PodUid) {
        let Some(row) = self.rows.by_uid.get(&uid) else { return };
        let Some(key) = row.instance.as_ref().map(|instance| instance.key.clone()) else { return };
        let (ctx, addresses) = (self.ctx.clone(), row.pod.ips.clone());
        let before_push = ctx.before_push.take();
        self.tasks.spawn(async move {
            let _permit = permit(&ctx.dials).await;
            let answers = ctx.ports.courier.dial(&addresses).await.is_ok();
            drop(before_push);
            Report::Alive { uid, key, answers }
        });
    }

    /// An init container that should be done was dialled. One that answers is served again.
    fn alive(&mut self, uid: &PodUid, key: &InstanceKey, answers: bool) {
        let now = Instant::now();
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        let Some(instance) = row.instance.as_mut().filter(|instance| instance.key == *key) else { return };
        if !answers {
            self.schedule(uid, now + look_again_after(key.generation));
            return;
        }
        // What the generation before left unsettled is settled with the instance's end.
        row.over.push(instance.key.clone());
        instance.key.generation += 1;
        instance.stage = Stage::Waiting;
        let (pod, generation) = (&row.pod.reference, instance.key.generation);
        tracing::warn!(%pod, pod.uid = %uid, generation, "the init container took a push but still waits; serving it again");
        self.ctx.ports.meter.happened(Incident::Reopened, 1);
        self.ctx.ports.announcer.announce(&row.pod.reference, Announcement::Reopened);
        self.schedule(uid, now);
    }
}

/// When to look whether an instance that is settled still runs.
pub(super) fn look_again_after(generation: u32) -> Duration {
    SETTLED_BUT_RUNNING.saturating_mul(1 << generation.min(10)).min(SETTLED_BUT_RUNNING_MOST)
}
