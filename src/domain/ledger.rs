//! The ledger: which attempt to deliver was claimed, issued and settled, as a replicated state machine.
//!
//! Pure: [`Ledger::apply`] reads no clock and draws no random number; commands carry the leader's time. Owns the
//! rules that make a delivery happen once: no `Issued` without a claim of the same term, no claim on a settled
//! instance, a fact about an attempt is applied once and never taken back. It holds accessors, never a secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};
use serde::{Deserialize, Serialize};

use crate::seeded::{self, Bug};

use super::ids::{AttemptId, BootId, InstanceKey, PodRef, RoleName, Term, Timestamp};

/// How long a settled entry stays as a tombstone: longer than any status or watch event lags behind.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(600);

/// Most entries, settled ones included. A full ledger is 20 MiB as a snapshot (about 300 bytes for each), and 48 MiB in
/// memory. At the cap the oldest settled ones go first; when none is left, claiming stops.
pub const MAX_ENTRIES: usize = 65_536;

/// Most attempts remembered for one instance. An init container that lives for 5 minutes (its default TIMEOUT)
/// and swallows each push without an answer sees about ten.
pub const MAX_ATTEMPTS: usize = 64;

/// A change of the ledger. Never edit a variant after a release: add one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The leader means to deliver to an instance.
    Claim(Claim),
    /// Vault has issued a wrapped `secret_id` for a claimed attempt, and the push is about to begin.
    Issued(Issued),
    /// What became of an attempt. A fact: accepted in any term, from any member, once.
    Outcome(Outcome),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(claim) => write!(f, "claim of {} by attempt {}", claim.pod, claim.attempt),
            Self::Issued(issued) => write!(f, "issued for attempt {}", issued.attempt),
            Self::Outcome(outcome) => write!(f, "outcome of {} attempts", outcome.verdicts.len()),
        }
    }
}

/// See [`Command::Claim`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The instance to deliver to.
    pub key: InstanceKey,
    /// The new attempt.
    pub attempt: AttemptId,
    /// The pod, so that a later leader can find it again.
    pub pod: PodRef,
    /// The role, so that a later leader can destroy by accessor.
    pub role: RoleName,
    /// Whose claim it is.
    pub by: Author,
    /// The leader's time.
    pub at: Timestamp,
}

/// See [`Command::Issued`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The instance.
    pub key: InstanceKey,
    /// The claimed attempt.
    pub attempt: AttemptId,
    /// What names the `secret_id` without giving it away.
    pub accessors: Accessors,
    /// Who asked for it.
    pub by: Author,
    /// The leader's time.
    pub at: Timestamp,
}

/// See [`Command::Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The instance.
    pub key: InstanceKey,
    /// What became of which attempts.
    pub verdicts: Vec<(AttemptId, Verdict)>,
    /// No further attempt is wanted for this instance: it ended, or an answer was final.
    pub close: bool,
    /// The sender's time.
    pub at: Timestamp,
}

/// The leader in whose name a command is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Its term.
    pub term: Term,
    /// Its incarnation.
    pub boot: BootId,
}

/// The accessors of one wrapped `secret_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accessors {
    /// `wrap_info.accessor`: of the wrapping token.
    pub wrapping: Arc<str>,
    /// `wrap_info.wrapped_accessor`: of the `secret_id`. Vault before 1.9 does not say it.
    pub secret_id: Option<Arc<str>>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Claimed, but no `secret_id` of it was ever sent: nothing, or something that was neutralised, was issued.
    NeverSent,
    /// The push began and no complete answer came.
    Unknown,
    /// Nothing of the push was or will be used.
    Refused,
    /// The instance took it.
    Accepted,
    /// The instance went without a word: the `secret_id` is kept and counted.
    Lost,
}

/// What the ledger knows of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Who claimed it.
    pub by: Author,
    /// How far it got.
    pub state: AttemptState,
    /// Once issued.
    pub accessors: Option<Accessors>,
    /// Of an unknown one: when its push had ended, by the sender's clock. `None` where its sender was lost.
    pub pushed_until: Option<Timestamp>,
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptState {
    /// Nothing was asked of Vault, as far as the ledger knows.
    Claimed,
    /// A `secret_id` exists; it may have been sent.
    Issued,
    /// It was sent, and only the instance can tell what became of it.
    Unknown,
    /// Over.
    Over(Verdict),
}

impl AttemptState {
    /// Whether a `secret_id` of it may still be used by somebody and nobody has said.
    pub fn is_unsettled(self) -> bool {
        matches!(self, Self::Issued | Self::Unknown)
    }
}

/// What the ledger knows of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The pod it belongs to.
    pub pod: PodRef,
    /// The role that was asked for.
    pub role: RoleName,
    /// Its attempts, oldest first, at most [`MAX_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    /// When it was closed: no further attempt is wanted.
    pub closed: Option<Timestamp>,
}

impl Entry {
    /// The attempt that the instance took, if one is known.
    pub fn accepted(&self) -> Option<&AttemptId> {
        self.attempts.iter().find(|a| a.state == AttemptState::Over(Verdict::Accepted)).map(|a| &a.id)
    }

    /// The attempts whose `secret_id` may still be used by somebody.
    pub fn unsettled(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.state.is_unsettled())
    }

    /// The attempt of that id.
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.attempts.iter().find(|a| a.id == *id)
    }

    /// Nothing of it is open: it may become a tombstone.
    fn is_settled(&self) -> bool {
        self.closed.is_some() && self.unsettled().next().is_none()
    }
}

/// What [`Ledger::apply`] says to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done (now, or the same command was applied before).
    Done,
    /// Not done, and why.
    Refused(Refused),
}

/// Why a command was not applied. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The author's term is not the entry's own: its leadership is over.
    #[error("proposed by the leader of another term")]
    Fenced,
    /// The instance is closed: it has what it may have.
    #[error("the instance is settled")]
    Closed,
    /// Another attempt of this very leader is under way.
    #[error("another attempt is under way")]
    Busy,
    /// The attempt is not in the state that the command needs.
    #[error("the attempt is not open")]
    NotOpen,
    /// [`MAX_ATTEMPTS`], none of which may be forgotten.
    #[error("the instance has swallowed {MAX_ATTEMPTS} pushes without an answer")]
    TooManyAttempts,
    /// [`MAX_ENTRIES`], none of which may be forgotten.
    #[error("the ledger is full: {MAX_ENTRIES} deliveries are unsettled")]
    Full,
}

/// All entries. A clone shares them, and costs the same however many there are: a snapshot begins with one, on the
/// thread that also sends heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Ledger {
    entries: RedBlackTreeMapSync<InstanceKey, Entry>,
    /// Settled entries by the time they were closed, oldest first. Follows from the entries.
    #[serde(skip)]
    tombstones: RedBlackTreeSetSync<(Timestamp, InstanceKey)>,
    /// The greatest time any command carried: tombstones age by it, so that a leader whose clock is behind
    /// cannot bring one back.
    latest: Timestamp,
}

/// A ledger as it is stored.
#[derive(Deserialize)]
struct Stored {
    entries: RedBlackTreeMapSync<InstanceKey, Entry>,
    latest: Timestamp,
}

impl From<Stored> for Ledger {
    fn from(Stored { entries, latest }: Stored) -> Self {
        let settled = entries.iter().filter(|(_, entry)| entry.is_settled());
        let tombstones = settled.filter_map(|(key, entry)| Some((entry.closed?, key.clone()))).collect();
        Self { entries, tombstones, latest }
    }
}

impl Ledger {
    /// Applies `command`, which was committed in `term`.
    pub fn apply(&mut self, command: &Command, term: Term) -> Reply {
        let at = match command {
            Command::Claim(claim) => claim.at,
            Command::Issued(issued) => issued.at,
            Command::Outcome(outcome) => outcome.at,
        };
        self.latest = self.latest.max(at);
        self.bury_old();
        let result = match command {
            Command::Claim(claim) => self.claim(claim, term),
            Command::Issued(issued) => self.issued(issued, term),
            Command::Outcome(outcome) => self.outcome(outcome),
        };
        match result {
            Ok(()) => Reply::Done,
            Err(refused) => Reply::Refused(refused),
        }
    }

    /// The entry of an instance.
    pub fn get(&self, key: &InstanceKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entries that a new leader has to take up: those with something open.
    pub fn open(&self) -> impl Iterator<Item = (&InstanceKey, &Entry)> {
        self.entries.iter().filter(|(_, entry)| !entry.is_settled())
    }

    /// The entries of all starts of all pods of that namespace and name, whichever pods they were; in the order of keys.
    pub fn named(&self, namespace: &str, name: &str) -> impl Iterator<Item = (&InstanceKey, &Entry)> {
        self.entries.iter().filter(move |(_, entry)| *entry.pod.namespace == *namespace && *entry.pod.name == *name)
    }

    /// How many entries there are, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them are settled and wait to be forgotten.
    pub fn tombstones(&self) -> usize {
        self.tombstones.size()
    }

    fn claim(&mut self, claim: &Claim, term: Term) -> Result<(), Refused> {
        // FENCING: a claim of a deposed leader may be committed after its term ended.
        if claim.by.term != term && !seeded::on(Bug::NoTermFence) {
            return Err(Refused::Fenced);
        }
        if !self.entries.contains_key(&claim.key) {
            self.make_room()?;
            let (mut pod, role) = (claim.pod.clone(), claim.role.clone());
            if pod.uid == claim.key.pod {
                // One copy of the text instead of two: a command that was read from the log has one for each.
                pod.uid = claim.key.pod.clone();
            }
            let entry = Entry { pod, role, attempts: Vec::with_capacity(1), closed: None };
            self.entries.insert_mut(claim.key.clone(), entry);
        }
        let entry = self.entries.get_mut(&claim.key).ok_or(Refused::NotOpen)?;
        if let Some(known) = entry.attempt(&claim.attempt) {
            let same = known.state == AttemptState::Claimed && known.by == claim.by;
            return if same { Ok(()) } else { Err(Refused::NotOpen) };
        }
        if entry.closed.is_some() {
            return Err(Refused::Closed);
        }
        if entry.attempts.iter().any(|a| a.state == AttemptState::Issued && a.by == claim.by) {
            return Err(Refused::Busy);
        }
        supersede(&mut entry.attempts);
        if entry.attempts.len() >= MAX_ATTEMPTS {
            return Err(Refused::TooManyAttempts);
        }
        entry.role = claim.role.clone();
        entry.attempts.push(Attempt {
            id: claim.attempt.clone(),
            by: claim.by,
            state: AttemptState::Claimed,
            accessors: None,
            pushed_until: None,
        });
        Ok(())
    }

    fn issued(&mut self, issued: &Issued, term: Term) -> Result<(), Refused> {
        // FENCING: as for a claim. A deposed leader must not begin a push.
        if issued.by.term != term && !seeded::on(Bug::NoTermFence) {
            return Err(Refused::Fenced);
        }
        let entry = self.entries.get_mut(&issued.key).ok_or(Refused::NotOpen)?;
        if entry.closed.is_some() {
            return Err(Refused::Closed);
        }
        let attempt = entry.attempts.iter_mut().find(|a| a.id == issued.attempt).ok_or(Refused::NotOpen)?;
        if attempt.by != issued.by {
            return Err(Refused::Fenced);
        }
        match attempt.state {
            AttemptState::Claimed => {
                attempt.state = AttemptState::Issued;
                attempt.accessors = Some(issued.accessors.clone());
                Ok(())
            }
            AttemptState::Issued if attempt.accessors.as_ref() == Some(&issued.accessors) => Ok(()),
            _ => Err(Refused::NotOpen),
        }
    }

    fn outcome(&mut self, outcome: &Outcome) -> Result<(), Refused> {
        let entry = self.entries.get_mut(&outcome.key).ok_or(Refused::NotOpen)?;
        for (id, verdict) in &outcome.verdicts {
            if let Some(attempt) = entry.attempts.iter_mut().find(|a| a.id == *id) {
                if attempt.state == AttemptState::Issued && *verdict == Verdict::Unknown {
                    attempt.pushed_until = Some(outcome.at);
                }
                attempt.state = learned(attempt.state, *verdict);
            }
        }
        if entry.accepted().is_some() || outcome.close {
            entry.closed.get_or_insert(outcome.at);
        }
        if let (Some(closed), true) = (entry.closed, entry.is_settled()) {
            // Nothing is to be destroyed by them any more, and there are many tombstones.
            entry.attempts.iter_mut().for_each(|attempt| attempt.accessors = None);
            self.tombstones.insert_mut((closed, outcome.key.clone()));
        }
        Ok(())
    }

    fn bury_old(&mut self) {
        while let Some((closed, _)) = self.tombstones.first()
            && self.latest.since(*closed) >= TOMBSTONE_AGE
        {
            self.bury_oldest();
        }
    }

    /// Forgets the entry that was settled first.
    fn bury_oldest(&mut self) -> Option<()> {
        let oldest = self.tombstones.first()?.clone();
        self.tombstones.remove_mut(&oldest);
        self.entries.remove_mut(&oldest.1);
        Some(())
    }

    fn make_room(&mut self) -> Result<(), Refused> {
        if self.entries.size() < MAX_ENTRIES {
            return Ok(());
        }
        self.bury_oldest().ok_or(Refused::Full)
    }
}

/// Prepares for a new attempt: a claim under which nothing was issued is dropped (its `Issued`, should it still
/// come, finds no open attempt), what another incarnation had issued may have been sent, and the oldest attempts
/// that are over make room.
fn supersede(attempts: &mut Vec<Attempt>) {
    attempts.retain(|a| a.state != AttemptState::Claimed);
    for attempt in attempts.iter_mut().filter(|a| a.state == AttemptState::Issued) {
        attempt.state = AttemptState::Unknown;
    }
    if attempts.len() >= MAX_ATTEMPTS
        && let Some(oldest) = attempts.iter().position(|a| matches!(a.state, AttemptState::Over(_)))
    {
        attempts.remove(oldest);
    }
}

/// The state after a verdict. What is over stays as it is: the first fact stands.
fn learned(state: AttemptState, verdict: Verdict) -> AttemptState {
    match (state, verdict) {
        (AttemptState::Over(_), _) => state,
        (_, Verdict::Unknown) => AttemptState::Unknown,
        (_, verdict) => AttemptState::Over(verdict),
    }
}

#[cfg(test)]
mod tests;
