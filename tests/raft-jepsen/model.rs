//! The ledger as a sequential specification: what each committed command has to answer, written down once more and
//! apart from `src/domain/ledger.rs`.
//!
//! Tombstones do not age here: no run lasts as long as one does.

use std::collections::BTreeMap;

use kubernetes_vault::domain::ids::{AttemptId, InstanceKey};
use kubernetes_vault::domain::ledger::{AttemptState, Author, Command, Entry, MAX_ATTEMPTS, Refused, Reply, Verdict};

use crate::history::Logged;

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    id: AttemptId,
    by: Author,
    state: AttemptState,
    accessor: Option<String>,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq)]
struct Instance {
    attempts: Vec<Attempt>,
    closed: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    instances: BTreeMap<InstanceKey, Instance>,
}

impl Model {
    /// Applies a committed command and says what it answers.
    pub(crate) fn apply(&mut self, logged: &Logged) -> Reply {
        let answered = match &logged.command {
            Command::Claim(claim) if claim.by.term != logged.term => Err(Refused::Fenced),
            Command::Issued(issued) if issued.by.term != logged.term => Err(Refused::Fenced),
            Command::Claim(claim) => {
                self.instances.entry(claim.key.clone()).or_default().claim(claim.attempt.clone(), claim.by)
            }
            Command::Issued(issued) => match self.instances.get_mut(&issued.key) {
                Some(instance) => {
                    let accessor = format!("{:?}", issued.accessors);
                    instance.issue(&issued.attempt, issued.by, accessor)
                }
                None => Err(Refused::NotOpen),
            },
            Command::Outcome(outcome) => match self.instances.get_mut(&outcome.key) {
                Some(instance) => {
                    instance.settle(&outcome.verdicts, outcome.close);
                    Ok(())
                }
                None => Err(Refused::NotOpen),
            },
        };
        match answered {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused(why),
        }
    }

    /// All instances that it knows.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &InstanceKey> {
        self.instances.keys()
    }

    /// Whether a replica's entry is the same.
    pub(crate) fn agrees(&self, key: &InstanceKey, entry: Option<&Entry>) -> bool {
        let Some(instance) = self.instances.get(key) else { return entry.is_none() };
        let Some(entry) = entry else { return instance.attempts.is_empty() && !instance.closed };
        let ours = instance.attempts.iter().map(|attempt| (&attempt.id, attempt.by, attempt.state));
        let theirs = entry.attempts.iter().map(|attempt| (&attempt.id, attempt.by, attempt.state));
        ours.eq(theirs) && entry.closed.is_some() == instance.closed
    }
}

impl Instance {
    fn claim(&mut self, id: AttemptId, by: Author) -> Result<(), Refused> {
        if let Some(known) = self.attempts.iter().find(|attempt| attempt.id == id) {
            let again = known.by == by && known.state == AttemptState::Claimed;
            return if again { Ok(()) } else { Err(Refused::NotOpen) };
        }
        if self.closed {
            return Err(Refused::Closed);
        }
        if self.attempts.iter().any(|attempt| attempt.by == by && attempt.state == AttemptState::Issued) {
            return Err(Refused::Busy);
        }
        self.attempts.retain(|attempt| attempt.state != AttemptState::Claimed);
        for attempt in &mut self.attempts {
            if attempt.state == AttemptState::Issued {
                attempt.state = AttemptState::Unknown;
            }
        }
        if self.attempts.len() >= MAX_ATTEMPTS {
            let over = self.attempts.iter().position(|attempt| matches!(attempt.state, AttemptState::Over(_)));
            let Some(over) = over else { return Err(Refused::TooManyAttempts) };
            self.attempts.remove(over);
        }
        self.attempts.push(Attempt { id, by, state: AttemptState::Claimed, accessor: None });
        Ok(())
    }

    fn issue(&mut self, id: &AttemptId, by: Author, accessor: String) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let attempt = self.attempts.iter_mut().find(|attempt| attempt.id == *id).ok_or(Refused::NotOpen)?;
        if attempt.by != by {
            return Err(Refused::Fenced);
        }
        match attempt.state {
            AttemptState::Claimed => {
                (attempt.state, attempt.accessor) = (AttemptState::Issued, Some(accessor));
                Ok(())
            }
            AttemptState::Issued if attempt.accessor.as_ref() == Some(&accessor) => Ok(()),
            _ => Err(Refused::NotOpen),
        }
    }

    fn settle(&mut self, verdicts: &[(AttemptId, Verdict)], close: bool) {
        for (id, verdict) in verdicts {
            let open = |attempt: &&mut Attempt| attempt.id == *id && !matches!(attempt.state, AttemptState::Over(_));
            if let Some(attempt) = self.attempts.iter_mut().find(open) {
                attempt.state = match verdict {
                    Verdict::Unknown => AttemptState::Unknown,
                    verdict => AttemptState::Over(*verdict),
                };
            }
        }
        let accepted = |attempt: &Attempt| attempt.state == AttemptState::Over(Verdict::Accepted);
        self.closed |= close || self.attempts.iter().any(accepted);
    }
}
