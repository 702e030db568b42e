//! The three receivers: how each takes and answers pushes, as a state machine without time.
//!
//! Ours takes one push and says so (design, section 9). The Go version's answers 200 before its work, and its exit
//! races the answer. The promiscuous one takes every push, so that a single accept cannot hide a fault of the ledger.

use kubernetes_vault::domain::ids::{AttemptId, PodUid};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Our init container.
    Ours,
    /// The Go version's.
    Go,
    /// One that accepts and records every push.
    Promiscuous,
}

/// An answer: a status, and the attempt that its body names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// `attempt=<id>`.
    pub(crate) named: Option<AttemptId>,
    /// Of a 422: the wrapping token was used before.
    pub(crate) token_used: bool,
}

impl Reply {
    fn bare(status: u16) -> Self {
        Self { status, named: None, token_used: false }
    }
}

/// What a push leads to at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// An answer, and nothing else.
    Answer(Reply),
    /// Work on it begins; its answer follows the work.
    Work,
    /// Work on it begins, and this is the answer already.
    AnswerAndWork(Reply),
}

/// How the work on a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worked {
    /// Unwrapped and logged in.
    Done,
    /// Vault refuses the wrapping token or what was in it.
    TokenRefused {
        /// It had been used before.
        used: bool,
    },
    /// Vault cannot now.
    NotNow,
}

/// One instance of an init container.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    kind: Kind,
    pod: PodUid,
    busy: bool,
    done: Option<AttemptId>,
    /// Every push that it took.
    pub(crate) accepted: Vec<AttemptId>,
}

impl Receiver {
    /// One that waits.
    pub(crate) fn new(kind: Kind, pod: PodUid) -> Self {
        Self { kind, pod, busy: false, done: None, accepted: Vec::new() }
    }

    /// Which one it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// A push of `attempt` that names the pod `meant_for`.
    pub(crate) fn push(&mut self, attempt: &AttemptId, meant_for: &PodUid) -> Taken {
        match self.kind {
            // Before everything else: who looks for another pod must not learn what became of this one.
            Kind::Ours if *meant_for != self.pod => Taken::Answer(Reply::bare(421)),
            Kind::Ours if self.done.is_some() => Taken::Answer(Reply { named: self.done.clone(), ..Reply::bare(410) }),
            Kind::Ours if self.busy => Taken::Answer(Reply::bare(409)),
            Kind::Ours => {
                self.busy = true;
                Taken::Work
            }
            // It knows no attempts and no pods; what comes while it works is said to be fine, and dropped.
            Kind::Go if self.busy || self.done.is_some() => Taken::Answer(Reply::bare(200)),
            Kind::Go => {
                self.busy = true;
                Taken::AnswerAndWork(Reply::bare(200))
            }
            Kind::Promiscuous => {
                self.accepted.push(attempt.clone());
                // It names none: a name would say that it took no other.
                Taken::Answer(Reply::bare(200))
            }
        }
    }

    /// The work on `attempt` ended. Returns the answer, and the exit code if the instance ends with it.
    pub(crate) fn worked(&mut self, attempt: &AttemptId, worked: Worked) -> (Reply, Option<i32>) {
        self.busy = false;
        match (self.kind, worked) {
            (_, Worked::Done) => {
                self.accepted.push(attempt.clone());
                self.done = Some(attempt.clone());
                (Reply { named: Some(attempt.clone()), ..Reply::bare(200) }, Some(0))
            }
            (Kind::Go, _) => (Reply::bare(200), Some(1)),
            (_, Worked::TokenRefused { used }) => (Reply { token_used: used, ..Reply::bare(422) }, None),
            (_, Worked::NotNow) => (Reply::bare(503), None),
        }
    }

    /// The termination message that it leaves with exit code 0.
    pub(crate) fn message(&self) -> Option<String> {
        let named = self.done.as_ref().filter(|_| self.kind == Kind::Ours)?;
        Some(format!("attempt={named}"))
    }
}
