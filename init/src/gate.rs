//! One push at a time, and one in all: who is let in, and what the others are told.
//!
//! Pure: no clock, no I/O. The state outlives every connection, so that a sender who hangs up changes nothing.
//!
//! Must never: let a second push in while one is in work, or any after one was accepted.

/// Where this instance stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Busy,
    Done {
        attempt: Option<String>,
    },
    /// About to end with an error that no push can mend.
    Ending {
        why: String,
    },
}

/// What a push gets that knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Go ahead; [`Gate::leave`] is due.
    Admitted,
    Busy,
    /// Another push was accepted: this one.
    DoneEarlier {
        attempt: Option<String>,
    },
    /// The process is about to end.
    Ending {
        why: String,
    },
}

/// How the work on an admitted push went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Accepted: the files are there.
    Accepted { attempt: Option<String> },
    /// Not this one; others may come.
    Again,
    /// No push can mend it.
    Hopeless { why: String },
}

/// The door.
#[derive(Debug, Default)]
pub(crate) struct Gate(State);

impl Gate {
    /// A push knocks.
    pub(crate) fn enter(&mut self) -> Entry {
        match &self.0 {
            State::Waiting => {
                self.0 = State::Busy;
                Entry::Admitted
            }
            State::Busy => Entry::Busy,
            State::Done { attempt } => Entry::DoneEarlier { attempt: attempt.clone() },
            State::Ending { why } => Entry::Ending { why: why.clone() },
        }
    }

    /// The work on the admitted push is over.
    pub(crate) fn leave(&mut self, verdict: Verdict) {
        debug_assert_eq!(self.0, State::Busy, "only an admitted push can leave");
        self.0 = match verdict {
            Verdict::Accepted { attempt } => State::Done { attempt },
            Verdict::Again => State::Waiting,
            Verdict::Hopeless { why } => State::Ending { why },
        };
    }

    /// Time is up: shuts the door unless a push is in work. Says whether it is shut.
    pub(crate) fn shut(&mut self, why: &str) -> bool {
        if self.0 == State::Waiting {
            self.0 = State::Ending { why: why.to_owned() };
        }
        self.0 != State::Busy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Enter,
        Leave(Verdict),
        Shut,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Enter),
            1 => proptest::option::of("[a-c]").prop_map(|attempt| Step::Leave(Verdict::Accepted { attempt })),
            3 => Just(Step::Leave(Verdict::Again)),
            1 => Just(Step::Leave(Verdict::Hopeless { why: "w".into() })),
            1 => Just(Step::Shut),
        ]
    }

    proptest! {
        /// Invariant 2: whoever sends, one instance accepts at most one push.
        #[test]
        fn one_push_at_a_time_and_one_in_all(steps in proptest::collection::vec(step(), 0..60)) {
            let mut gate = Gate::default();
            let mut busy = false;
            let mut accepted = None;
            let mut closed = false;
            for step in steps {
                match step {
                    Step::Enter => match gate.enter() {
                        Entry::Admitted => {
                            prop_assert!(!busy && accepted.is_none() && !closed);
                            busy = true;
                        }
                        Entry::Busy => prop_assert!(busy),
                        Entry::DoneEarlier { attempt } => prop_assert_eq!(Some(attempt), accepted.clone()),
                        Entry::Ending { .. } => prop_assert!(closed),
                    },
                    Step::Leave(verdict) if busy => {
                        busy = false;
                        match &verdict {
                            Verdict::Accepted { attempt } => accepted = Some(attempt.clone()),
                            Verdict::Hopeless { .. } => closed = true,
                            Verdict::Again => {}
                        }
                        gate.leave(verdict);
                    }
                    Step::Leave(_) => {}
                    Step::Shut => {
                        let shut = gate.shut("time");
                        prop_assert_eq!(shut, !busy);
                        closed |= shut && accepted.is_none();
                    }
                }
            }
        }
    }
}
