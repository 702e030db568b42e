//! The ledger as a model: whatever is committed in whatever order, its promises hold.

use super::*;
use crate::domain::ids::{ContainerId, PodUid};
use proptest::prelude::*;

fn key(n: u8) -> InstanceKey {
    InstanceKey {
        pod: PodUid::from(format!("pod-{n}").as_str()),
        container: "install".into(),
        container_id: ContainerId::from("c"),
        generation: 0,
    }
}

fn author(term: u64) -> Author {
    Author { term: Term(term), boot: BootId(term) }
}

fn claim(n: u8, attempt: &str, term: u64, at: u64) -> Command {
    Command::Claim(Claim {
        key: key(n),
        attempt: AttemptId::from(attempt),
        pod: PodRef { namespace: "n".into(), name: "p".into(), uid: PodUid::from(format!("pod-{n}").as_str()) },
        role: RoleName::parse("r").unwrap(),
        by: author(term),
        at: Timestamp(at),
    })
}

fn issued(n: u8, attempt: &str, term: u64, at: u64) -> Command {
    let accessors = Accessors { wrapping: attempt.into(), secret_id: None };
    Command::Issued(Issued {
        key: key(n),
        attempt: AttemptId::from(attempt),
        accessors,
        by: author(term),
        at: Timestamp(at),
    })
}

fn outcome(n: u8, attempt: &str, verdict: Verdict, close: bool, at: u64) -> Command {
    let verdicts = vec![(AttemptId::from(attempt), verdict)];
    Command::Outcome(Outcome { key: key(n), verdicts, close, at: Timestamp(at) })
}

const DONE: Reply = Reply::Done;

#[test]
fn a_delivery_is_made_once() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.apply(&claim(1, "a", 1, 1), Term(1)), DONE);
    assert_eq!(ledger.apply(&issued(1, "a", 1, 2), Term(1)), DONE);
    assert_eq!(ledger.apply(&claim(1, "b", 1, 3), Term(1)), Reply::Refused(Refused::Busy));
    assert_eq!(ledger.apply(&outcome(1, "a", Verdict::Accepted, true, 4), Term(1)), DONE);
    assert_eq!(ledger.apply(&claim(1, "b", 1, 5), Term(1)), Reply::Refused(Refused::Closed));
    assert_eq!(ledger.apply(&claim(1, "b", 2, 6), Term(2)), Reply::Refused(Refused::Closed));
}

// Invariant 1.
#[test]
fn nothing_is_issued_without_a_claim_nor_in_another_term() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.apply(&issued(1, "a", 1, 1), Term(1)), Reply::Refused(Refused::NotOpen));
    assert_eq!(ledger.apply(&claim(1, "a", 1, 1), Term(2)), Reply::Refused(Refused::Fenced));
    assert_eq!(ledger.apply(&claim(1, "a", 1, 1), Term(1)), DONE);
    assert_eq!(ledger.apply(&issued(1, "a", 1, 2), Term(2)), Reply::Refused(Refused::Fenced));
    let mut restarted = issued(1, "a", 1, 2);
    if let Command::Issued(issued) = &mut restarted {
        issued.by.boot = BootId(99);
    }
    assert_eq!(ledger.apply(&restarted, Term(1)), Reply::Refused(Refused::Fenced));
}

#[test]
fn a_claim_that_was_superseded_cannot_issue_any_more() {
    let mut ledger = Ledger::default();
    ledger.apply(&claim(1, "a", 1, 1), Term(1));
    assert_eq!(ledger.apply(&claim(1, "b", 2, 2), Term(2)), DONE);
    assert_eq!(ledger.apply(&issued(1, "a", 1, 3), Term(1)), Reply::Refused(Refused::NotOpen));
    assert_eq!(ledger.apply(&issued(1, "b", 2, 3), Term(2)), DONE);
}

#[test]
fn what_a_lost_leader_had_issued_is_unknown_to_the_next() {
    let mut ledger = Ledger::default();
    ledger.apply(&claim(1, "a", 1, 1), Term(1));
    ledger.apply(&issued(1, "a", 1, 2), Term(1));
    assert_eq!(ledger.apply(&claim(1, "b", 2, 3), Term(2)), DONE);
    let entry = ledger.get(&key(1)).unwrap();
    assert_eq!(entry.attempt(&AttemptId::from("a")).unwrap().state, AttemptState::Unknown);
    assert_eq!(entry.unsettled().count(), 1);
}

#[test]
fn the_same_command_twice_is_the_same_as_once() {
    let mut ledger = Ledger::default();
    for command in [claim(1, "a", 1, 1), issued(1, "a", 1, 2), outcome(1, "a", Verdict::Unknown, false, 3)] {
        assert_eq!(ledger.apply(&command, Term(1)), DONE);
        let before = ledger.clone();
        let again = ledger.apply(&command, Term(1));
        assert_eq!(ledger, before);
        assert!(again == DONE || matches!(command, Command::Issued(_)), "{again:?}");
    }
}

#[test]
fn a_tombstone_goes_after_ten_minutes_and_an_unsettled_entry_never() {
    let mut ledger = Ledger::default();
    for n in [1, 2] {
        ledger.apply(&claim(n, "a", 1, 1), Term(1));
        ledger.apply(&issued(n, "a", 1, 2), Term(1));
    }
    ledger.apply(&outcome(1, "a", Verdict::Accepted, true, 3), Term(1));
    let later = 3 + u64::try_from(TOMBSTONE_AGE.as_millis()).unwrap();
    ledger.apply(&claim(3, "a", 1, later - 1), Term(1));
    assert!(ledger.get(&key(1)).is_some());
    ledger.apply(&claim(4, "a", 1, later), Term(1));
    assert!(ledger.get(&key(1)).is_none());
    assert!(ledger.get(&key(2)).is_some());
}

#[test]
fn a_tombstone_remembers_what_became_of_it_and_no_accessor() {
    let mut ledger = Ledger::default();
    for (attempt, verdict, close) in [("a", Verdict::Unknown, false), ("b", Verdict::Accepted, true)] {
        ledger.apply(&claim(1, attempt, 1, 1), Term(1));
        ledger.apply(&issued(1, attempt, 1, 2), Term(1));
        ledger.apply(&outcome(1, attempt, verdict, close, 3), Term(1));
    }
    // The other one is still open, and may have to be destroyed.
    let accessors = |ledger: &Ledger| {
        let entry = ledger.get(&key(1)).unwrap();
        entry.attempts.iter().map(|attempt| attempt.accessors.is_some()).collect::<Vec<_>>()
    };
    assert_eq!((accessors(&ledger), ledger.tombstones()), (vec![true, true], 0));
    ledger.apply(&outcome(1, "a", Verdict::Refused, false, 4), Term(1));
    assert_eq!((accessors(&ledger), ledger.tombstones()), (vec![false, false], 1));
    assert_eq!(ledger.get(&key(1)).unwrap().accepted(), Some(&AttemptId::from("b")));
}

#[test]
fn what_is_applied_later_does_not_change_a_clone() {
    let mut ledger = Ledger::default();
    ledger.apply(&claim(1, "a", 1, 1), Term(1));
    ledger.apply(&claim(2, "a", 1, 1), Term(1));
    let clone = ledger.clone();
    let encoded = postcard::to_stdvec(&clone).unwrap();
    ledger.apply(&issued(1, "a", 1, 2), Term(1));
    ledger.apply(&outcome(2, "a", Verdict::NeverSent, true, 3), Term(1));
    assert_eq!(postcard::to_stdvec(&clone).unwrap(), encoded);
    assert_ne!(clone, ledger);
    assert_eq!(postcard::from_bytes::<Ledger>(&encoded).unwrap(), clone);
}

#[test]
fn at_the_cap_settled_entries_make_room_and_unsettled_ones_stop_claims() {
    let key_of = |n: usize| InstanceKey { container: format!("c{n}").into(), ..key(1) };
    let claim_of = |n: usize| match claim(1, "a", 1, 1) {
        Command::Claim(claim) => Command::Claim(Claim { key: key_of(n), ..claim }),
        other => other,
    };
    let mut ledger = Ledger::default();
    for n in 0..MAX_ENTRIES {
        assert_eq!(ledger.apply(&claim_of(n), Term(1)), DONE);
    }
    assert_eq!(ledger.apply(&claim_of(MAX_ENTRIES), Term(1)), Reply::Refused(Refused::Full));
    let verdicts = vec![(AttemptId::from("a"), Verdict::NeverSent)];
    ledger.apply(&Command::Outcome(Outcome { key: key_of(7), verdicts, close: true, at: Timestamp(2) }), Term(1));
    assert_eq!(ledger.apply(&claim_of(MAX_ENTRIES), Term(1)), DONE);
    assert!(ledger.get(&key_of(7)).is_none());
}

#[test]
fn an_instance_that_swallows_every_push_is_given_up() {
    let mut ledger = Ledger::default();
    for n in 0..MAX_ATTEMPTS {
        let name = format!("a{n}");
        assert_eq!(ledger.apply(&claim(1, &name, 1, 1), Term(1)), DONE);
        ledger.apply(&issued(1, &name, 1, 1), Term(1));
        ledger.apply(&outcome(1, &name, Verdict::Unknown, false, 1), Term(1));
    }
    assert_eq!(ledger.apply(&claim(1, "one-more", 1, 1), Term(1)), Reply::Refused(Refused::TooManyAttempts));
}

#[derive(Clone, Debug)]
struct Step {
    command: Command,
    term: u64,
}

/// Times stay within the age of a tombstone: what was forgotten may be claimed anew.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        Just(Verdict::NeverSent),
        Just(Verdict::Unknown),
        Just(Verdict::Refused),
        Just(Verdict::Accepted),
        Just(Verdict::Lost),
    ];
    let step = (0u8..3, 0u8..5, 1u64..4, 1u64..4, 0u8..3, verdict, any::<bool>(), 0u64..500_000).prop_map(
        |(n, attempt, by, term, kind, verdict, close, at)| {
            let attempt = format!("a{attempt}");
            let command = match kind {
                0 => claim(n, &attempt, by, at),
                1 => issued(n, &attempt, by, at),
                _ => outcome(n, &attempt, verdict, close, at),
            };
            Step { command, term }
        },
    );
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn whatever_is_committed_the_promises_hold(steps in steps()) {
        let mut ledger = Ledger::default();
        for Step { command, term } in steps {
            let before = ledger.clone();
            let reply = ledger.apply(&command, Term(term));
            for (key, entry) in &ledger.entries {
                let old = before.get(key);
                check_entry(key, entry, old, &command, term)?;
            }
            // What is unsettled is never forgotten.
            for (key, entry) in &before.entries {
                if entry.unsettled().next().is_some() {
                    prop_assert!(ledger.get(key).is_some());
                }
            }
            if reply == Reply::Refused(Refused::Fenced) {
                prop_assert_eq!(ledger.len() <= before.len(), true);
            }
        }
    }
}

fn check_entry(
    key: &InstanceKey,
    entry: &Entry,
    old: Option<&Entry>,
    command: &Command,
    term: u64,
) -> Result<(), TestCaseError> {
    for attempt in &entry.attempts {
        let was = old.and_then(|old| old.attempt(&attempt.id)).map(|a| a.state);
        // The first fact stands.
        if let Some(AttemptState::Over(verdict)) = was {
            prop_assert_eq!(attempt.state, AttemptState::Over(verdict));
        }
        // Issued only from a claim, by the leader of the entry's own term.
        if attempt.state == AttemptState::Issued && was != Some(AttemptState::Issued) {
            prop_assert_eq!(was, Some(AttemptState::Claimed));
            let Command::Issued(issued) = command else { return Err(TestCaseError::fail("issued by another command")) };
            prop_assert_eq!(&issued.key, key);
            prop_assert_eq!(issued.by.term, Term(term));
            prop_assert_eq!(attempt.by, issued.by);
        }
        // No claim on a closed instance.
        if was.is_none() && old.is_some_and(|old| old.closed.is_some()) {
            return Err(TestCaseError::fail("claimed although closed"));
        }
    }
    // One leader has one push under way at most.
    for attempt in entry.attempts.iter().filter(|a| a.state == AttemptState::Issued) {
        let same = entry.attempts.iter().filter(|a| a.state == AttemptState::Issued && a.by == attempt.by).count();
        prop_assert_eq!(same, 1);
    }
    Ok(())
}
