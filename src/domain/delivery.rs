//! What follows from an answer, from Vault's word, or from an instance's end: the decisions of one delivery.
//!
//! Pure. Owns the table of answers and the rules of settling. The one rule that must never be broken: an attempt
//! whose fate is unknown is never called refused, for a refused `secret_id` is destroyed.

use std::sync::Arc;
use std::time::Duration;

use crate::seeded::{self, Bug};

use super::ids::{AttemptId, Timestamp};
use super::ledger::{Attempt, AttemptState, Entry, Verdict};
use super::pod::Fate;

/// How the init container answered a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A complete HTTP answer.
    Complete {
        /// Its status code.
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<Duration>,
        /// The attempt that its body names (`attempt=<id>`; only our init container does that).
        named: Option<AttemptId>,
        /// Of a 422: the wrapping token was used before.
        token_used: bool,
        /// The first line of its body, cut, for humans.
        text: Arc<str>,
    },
    /// No complete answer: cut, late, over a limit, not HTTP.
    Incomplete(Arc<str>),
}

/// What an answer means: the table of the delivery design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// 200: it has taken this push.
    Accepted,
    /// 409: busy with another push. The same attempt again soon.
    Busy,
    /// 410: done earlier.
    DoneEarlier,
    /// 421: not the pod that the push names. Its status has to be read anew.
    WrongPod,
    /// 422: Vault refused the wrapping token. A fresh attempt.
    TokenRefused {
        /// It was used by somebody before.
        used: bool,
    },
    /// 5xx: it cannot now. A fresh attempt, not before `retry_after`.
    Unable {
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// Everything else: not our protocol, or told to stop. No further attempt for this instance.
    Final,
    /// No complete answer: only the instance can settle it.
    Unknown,
}

/// Longest `Retry-After` that is honoured: an init container lives for 5 minutes unless told otherwise.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

impl Answer {
    /// What the answer means.
    pub fn meaning(&self) -> Meaning {
        let Self::Complete { status, retry_after, token_used, .. } = self else { return Meaning::Unknown };
        match status {
            200 => Meaning::Accepted,
            // SEEDED BUG
            409 if seeded::on(Bug::BusyIsDelivered) => Meaning::Accepted,
            409 => Meaning::Busy,
            410 => Meaning::DoneEarlier,
            421 => Meaning::WrongPod,
            422 => Meaning::TokenRefused { used: *token_used },
            500..=599 => Meaning::Unable { retry_after: retry_after.map(|after| after.min(MAX_RETRY_AFTER)) },
            _ => Meaning::Final,
        }
    }

    /// The answer in words, without anything that the push held.
    pub fn describe(&self) -> String {
        match self {
            Self::Complete { status, text, .. } if text.is_empty() => format!("it answered {status}"),
            Self::Complete { status, text, .. } => format!("it answered {status}: {text}"),
            Self::Incomplete(cause) => format!("no complete answer: {cause}"),
        }
    }

    /// A label for metrics, of a bounded set.
    pub fn label(&self) -> &'static str {
        match self.meaning() {
            Meaning::Accepted => "accepted",
            Meaning::Busy => "busy",
            Meaning::DoneEarlier => "done_earlier",
            Meaning::WrongPod => "wrong_pod",
            Meaning::TokenRefused { .. } => "token_refused",
            Meaning::Unable { .. } => "unable",
            Meaning::Final => "refused",
            Meaning::Unknown => "unknown",
        }
    }
}

/// Why Vault issued nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultTrouble {
    /// The AppRole does not exist.
    #[error("the AppRole does not exist; create it, or correct the pod's annotation")]
    UnknownRole,
    /// Our policy does not cover it.
    #[error("Vault denies permission ({0}); the controller's policy needs \"update\" on this role's secret-id path")]
    Forbidden(String),
    /// It refuses this role's request for another reason.
    #[error("Vault refuses the request with {status}: {cause}")]
    Rejected {
        /// Status code.
        status: u16,
        /// Vault's own words.
        cause: String,
    },
    /// It answered something that may not be used: another creation path, no wrapping.
    #[error("Vault's answer may not be used: {0}")]
    WrongAnswer(String),
    /// 503, sealed.
    #[error("Vault is sealed; unseal it")]
    Sealed,
    /// 429, 472 or 473, or a redirect to the active node.
    #[error("Vault is a standby that does not forward requests; point vault.addr at the active node")]
    Standby,
    /// 429.
    #[error("Vault limits the rate of requests")]
    RateLimited {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("Vault answers {status}")]
    Unavailable {
        /// Status code.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A redirect to another host; the token is not sent there.
    #[error("Vault redirects to another host ({0}), which is not followed")]
    Redirected(String),
    /// No connection, a broken one, or a certificate that does not verify.
    #[error("Vault cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("Vault did not answer in time")]
    TimedOut,
    /// Our own token is no good (any more).
    #[error("the controller is not logged in to Vault: {0}")]
    NotLoggedIn(String),
}

impl VaultTrouble {
    /// Whether it concerns one role alone; otherwise nobody can be served.
    pub fn concerns_role_alone(&self) -> bool {
        matches!(self, Self::UnknownRole | Self::Forbidden(_) | Self::Rejected { .. } | Self::WrongAnswer(_))
    }

    /// Whether Vault may have issued a `secret_id` whose answer was lost: its wrapping token runs out by itself.
    pub fn may_have_issued(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable(_) | Self::WrongAnswer(_) | Self::Unavailable { .. })
    }

    /// What Vault asked for, capped.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => {
                retry_after.map(|after| after.min(MAX_RETRY_AFTER))
            }
            _ => None,
        }
    }

    /// A label for metrics, of a bounded set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownRole => "unknown_role",
            Self::Forbidden(_) => "forbidden",
            Self::Rejected { .. } => "rejected",
            Self::WrongAnswer(_) => "wrong_answer",
            Self::Sealed => "sealed",
            Self::Standby => "standby",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Redirected(_) => "redirected",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timed_out",
            Self::NotLoggedIn(_) => "not_logged_in",
        }
    }
}

/// What a wrapping token must have left of its life when it is sent, at most: an init container looks its token
/// up within 10 s of a push.
const ENOUGH_LEFT: Duration = Duration::from_secs(10);

/// Whether a wrapping token of `ttl` that was issued `age` ago may still be sent. Of a very short TTL half is enough,
/// else it could never be sent.
pub fn may_still_be_sent(ttl: Duration, age: Duration) -> bool {
    ttl.saturating_sub(age) >= ENOUGH_LEFT.min(ttl / 2) && age < ttl
}

/// What became of the attempts of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Which attempts ended how.
    pub verdicts: Vec<(AttemptId, Verdict)>,
    /// No further attempt is wanted.
    pub close: bool,
}

impl Settlement {
    /// The attempts whose `secret_id` nobody will use: to be neutralised.
    pub fn refused(&self) -> impl Iterator<Item = &AttemptId> {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Refused).map(|(id, _)| id)
    }

    /// How many `secret_id`s are kept because nobody knows whether they were taken.
    pub fn kept(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Lost).count()
    }
}

/// What an answer to the push of `current` settles. `entry` is the ledger's, `current` included.
pub fn settle_by_answer(entry: &Entry, current: &AttemptId, answer: &Answer) -> Settlement {
    let named = match answer {
        Answer::Complete { named, .. } => named.as_ref(),
        Answer::Incomplete(_) => None,
    };
    let earlier = entry.unsettled().filter(|a| a.id != *current);
    let one = |verdict, close| Settlement { verdicts: vec![(current.clone(), verdict)], close };
    match answer.meaning() {
        Meaning::Accepted => {
            let mut settlement = one(Verdict::Accepted, true);
            // Only an init container that names the attempt has told that it took no other.
            if named == Some(current) {
                settlement.verdicts.extend(earlier.map(|a| (a.id.clone(), Verdict::Refused)));
            }
            settlement
        }
        Meaning::DoneEarlier => {
            let mut settlement = one(Verdict::Refused, true);
            let earlier: Vec<&Attempt> = earlier.collect();
            settlement.verdicts.extend(taken_one_of(&earlier, named, entry.accepted().is_some()));
            settlement
        }
        Meaning::Busy => Settlement::default(),
        Meaning::WrongPod | Meaning::TokenRefused { .. } | Meaning::Unable { .. } => one(Verdict::Refused, false),
        Meaning::Final => one(Verdict::Refused, true),
        // SEEDED BUG
        Meaning::Unknown if seeded::on(Bug::UnknownIsRefused) => one(Verdict::Refused, false),
        Meaning::Unknown => one(Verdict::Unknown, false),
    }
}

/// What an instance's end settles; `None` while it may still run.
pub fn settle_by_fate(entry: &Entry, fate: &Fate, named: Option<&AttemptId>) -> Option<Settlement> {
    let unsettled: Vec<&Attempt> = entry.unsettled().collect();
    let each = |verdict: &dyn Fn(&Attempt) -> Verdict| -> Vec<_> {
        unsettled.iter().map(|a| (a.id.clone(), verdict(a))).collect()
    };
    let mut verdicts = match fate {
        Fate::Open => return None,
        Fate::Exited { code: 0, .. } | Fate::Passed => taken_one_of(&unsettled, named, entry.accepted().is_some()),
        Fate::Exited { at, next, .. } => each(&|a| match may_have_gone_to_the_next(a.pushed_until, *at, *next) {
            true => Verdict::Lost,
            false => Verdict::Refused,
        }),
        Fate::Lost => each(&|_| Verdict::Lost),
    };
    let claimed = entry.attempts.iter().filter(|a| a.state == AttemptState::Claimed);
    verdicts.extend(claimed.map(|a| (a.id.clone(), Verdict::NeverSent)));
    Some(Settlement { verdicts, close: true })
}

/// How far the clocks of a node and of a controller may differ.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// The kubelet tells whole seconds: what happened did so up to that much later.
const WHOLE_SECONDS: Duration = Duration::from_secs(1);

/// Whether a push that had ended at `pushed_until` may have reached another start than the one that ended `at`: a
/// status that lags has it meant for the start before. `next`: since when the next start is seen.
fn may_have_gone_to_the_next(pushed_until: Option<Timestamp>, at: Option<Timestamp>, next: Option<Timestamp>) -> bool {
    let next_was_there = next.is_some_and(|next| pushed_until.is_none_or(|until| until.plus(CLOCKS_APART) >= next));
    let was_over = |until: Timestamp| at.is_some_and(|at| until > at.plus(WHOLE_SECONDS + CLOCKS_APART));
    next_was_there || pushed_until.is_some_and(was_over)
}

/// The instance took one attempt: the named one, which may be none of `attempts` (a status that lags had it claimed for
/// the start before), or the only one. Where that cannot be told, all are kept.
fn taken_one_of(attempts: &[&Attempt], named: Option<&AttemptId>, accepted_known: bool) -> Vec<(AttemptId, Verdict)> {
    attempts
        .iter()
        .map(|a| {
            let verdict = match named {
                Some(id) if *id == a.id => Verdict::Accepted,
                Some(_) => Verdict::Refused,
                None if attempts.len() == 1 && !accepted_known => Verdict::Accepted,
                None => Verdict::Lost,
            };
            (a.id.clone(), verdict)
        })
        .collect()
}

#[cfg(test)]
mod tests;
