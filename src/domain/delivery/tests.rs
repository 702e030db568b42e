//! The table of answers, row by row, and the rules of settling.

use super::*;
use crate::domain::ids::{BootId, PodRef, PodUid, RoleName, Term};
use crate::domain::ledger::Author;
use proptest::prelude::*;

fn id(text: &str) -> AttemptId {
    AttemptId::from(text)
}

fn entry(attempts: &[(&str, AttemptState)]) -> Entry {
    let by = Author { term: Term(1), boot: BootId(1) };
    Entry {
        pod: PodRef { namespace: "n".into(), name: "p".into(), uid: PodUid::from("u") },
        role: RoleName::parse("r").unwrap(),
        attempts: attempts
            .iter()
            .map(|(a, state)| Attempt { id: id(a), by, state: *state, accessors: None, pushed_until: None })
            .collect(),
        closed: None,
    }
}

fn answered(status: u16, named: Option<&str>) -> Answer {
    Answer::Complete { status, retry_after: None, named: named.map(id), token_used: false, text: "".into() }
}

fn exited(code: i32) -> Fate {
    Fate::Exited { code, message: None, at: None, next: None }
}

const ISSUED: AttemptState = AttemptState::Issued;
const UNKNOWN: AttemptState = AttemptState::Unknown;

#[test]
fn each_status_means_what_the_table_says() {
    let rows = [
        (200, Meaning::Accepted),
        (409, Meaning::Busy),
        (410, Meaning::DoneEarlier),
        (421, Meaning::WrongPod),
        (422, Meaning::TokenRefused { used: false }),
        (503, Meaning::Unable { retry_after: None }),
        (500, Meaning::Unable { retry_after: None }),
        (599, Meaning::Unable { retry_after: None }),
    ];
    for (status, meaning) in rows {
        assert_eq!(answered(status, None).meaning(), meaning, "{status}");
    }
    for status in [201, 204, 301, 302, 400, 401, 403, 404, 405, 412, 413, 418, 431, 600, 999] {
        assert_eq!(answered(status, None).meaning(), Meaning::Final, "{status}");
    }
    assert_eq!(Answer::Incomplete("".into()).meaning(), Meaning::Unknown);
}

#[test]
fn a_200_that_names_its_attempt_refuses_the_earlier_ones() {
    let settled = settle_by_answer(&entry(&[("a", UNKNOWN), ("b", ISSUED)]), &id("b"), &answered(200, Some("b")));
    assert_eq!(settled.verdicts, vec![(id("b"), Verdict::Accepted), (id("a"), Verdict::Refused)]);
    assert!(settled.close);
}

#[test]
fn a_bare_200_leaves_the_earlier_ones_unknown() {
    let settled = settle_by_answer(&entry(&[("a", UNKNOWN), ("b", ISSUED)]), &id("b"), &answered(200, None));
    assert_eq!(settled.verdicts, vec![(id("b"), Verdict::Accepted)]);
}

#[test]
fn a_410_that_names_an_earlier_attempt_settles_all() {
    let entry = entry(&[("a", UNKNOWN), ("b", UNKNOWN), ("c", ISSUED)]);
    let settled = settle_by_answer(&entry, &id("c"), &answered(410, Some("a")));
    assert_eq!(
        settled.verdicts,
        vec![(id("c"), Verdict::Refused), (id("a"), Verdict::Accepted), (id("b"), Verdict::Refused)]
    );
}

#[test]
fn a_410_without_a_name_destroys_none_of_several() {
    let entry = entry(&[("a", UNKNOWN), ("b", UNKNOWN), ("c", ISSUED)]);
    let settled = settle_by_answer(&entry, &id("c"), &answered(410, None));
    assert_eq!(settled.refused().collect::<Vec<_>>(), vec![&id("c")]);
    assert_eq!(settled.kept(), 2);
}

#[test]
fn exit_0_accepts_the_only_unknown_and_keeps_several() {
    let exit = exited(0);
    let one = settle_by_fate(&entry(&[("a", UNKNOWN)]), &exit, None).unwrap();
    assert_eq!(one.verdicts, vec![(id("a"), Verdict::Accepted)]);
    let two = settle_by_fate(&entry(&[("a", UNKNOWN), ("b", UNKNOWN)]), &exit, None).unwrap();
    assert_eq!(two.kept(), 2);
    let named = settle_by_fate(&entry(&[("a", UNKNOWN), ("b", UNKNOWN)]), &exit, Some(&id("b"))).unwrap();
    assert_eq!(named.verdicts, vec![(id("a"), Verdict::Refused), (id("b"), Verdict::Accepted)]);
}

// A status that lagged had the accepted one claimed for the start before. Found by the fault suite.
#[test]
fn exit_0_that_names_an_attempt_of_another_start_refuses_all_of_this_one() {
    let exit = exited(0);
    let settled = settle_by_fate(&entry(&[("a", AttemptState::Unknown)]), &exit, Some(&id("z"))).unwrap();
    assert_eq!(settled.verdicts, [(id("a"), Verdict::Refused)]);
}

#[test]
fn a_failed_exit_refuses_what_was_unknown() {
    let exit = exited(1);
    let settled = settle_by_fate(&entry(&[("a", UNKNOWN), ("b", ISSUED)]), &exit, None).unwrap();
    assert_eq!(settled.refused().count(), 2);
}

// A status that lagged had the attempt claimed for the start before. Found by the fault suite.
#[test]
fn a_failed_exit_keeps_what_the_next_start_may_have_taken() {
    let verdict = |until: Option<u64>, at: Option<u64>, next: Option<u64>| {
        let mut entry = entry(&[("a", if until.is_some() { UNKNOWN } else { ISSUED })]);
        let seconds = |seconds: u64| Timestamp(seconds * 1_000);
        entry.attempts[0].pushed_until = until.map(seconds);
        let exit = Fate::Exited { code: 137, message: None, at: at.map(seconds), next: next.map(seconds) };
        settle_by_fate(&entry, &exit, None).unwrap().verdicts[0].1
    };
    // Its push was over long before the next one was there.
    assert_eq!(verdict(Some(100), Some(100), Some(110)), Verdict::Refused);
    assert_eq!(verdict(Some(100), Some(100), None), Verdict::Refused);
    // The clocks leave it open.
    assert_eq!(verdict(Some(100), Some(100), Some(102)), Verdict::Lost);
    assert_eq!(verdict(Some(100), Some(90), Some(91)), Verdict::Lost);
    // Nobody knows how long its sender went on.
    assert_eq!(verdict(None, Some(100), Some(110)), Verdict::Lost);
    assert_eq!(verdict(None, Some(100), None), Verdict::Refused);
    // This start was over when it was pushed, and the next one is not seen yet.
    assert_eq!(verdict(Some(104), Some(100), None), Verdict::Lost);
    assert_eq!(verdict(Some(103), Some(100), None), Verdict::Refused);
}

#[test]
fn an_instance_that_went_without_a_word_keeps_its_secret_ids() {
    let settled = settle_by_fate(&entry(&[("a", UNKNOWN)]), &Fate::Lost, None).unwrap();
    assert_eq!(settled.kept(), 1);
    assert_eq!(settled.refused().count(), 0);
    assert_eq!(settle_by_fate(&entry(&[("a", UNKNOWN)]), &Fate::Open, None), None);
}

#[test]
fn a_token_is_not_sent_with_too_little_of_its_time_left() {
    let secs = Duration::from_secs;
    assert!(may_still_be_sent(secs(60), secs(0)));
    assert!(may_still_be_sent(secs(60), secs(50)));
    assert!(!may_still_be_sent(secs(60), secs(51)));
    assert!(may_still_be_sent(secs(4), secs(2)));
    assert!(!may_still_be_sent(secs(4), secs(3)));
    assert!(!may_still_be_sent(secs(0), secs(0)));
}

fn states() -> impl Strategy<Value = Vec<AttemptState>> {
    let state = prop_oneof![
        Just(AttemptState::Claimed),
        Just(ISSUED),
        Just(UNKNOWN),
        Just(AttemptState::Over(Verdict::Refused)),
        Just(AttemptState::Over(Verdict::Accepted)),
    ];
    prop::collection::vec(state, 1..6)
}

proptest! {
    /// Invariant 2: no answer and no end ever leads to more than one accepted attempt, nor to a refusal (and so the
    /// destruction) of an attempt of which somebody has said nothing.
    #[test]
    fn settling_accepts_one_at_most_and_invents_nothing(
        states in states(), status in 100u16..600, named in prop::option::of(0usize..6), code in 0i32..2,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let list: Vec<_> = states.iter().enumerate().map(|(n, state)| (names[n], *state)).collect();
        let entry = entry(&list);
        let current = id(names[states.len() - 1]);
        let name = named.map(|n| id(names[n]));
        let by_answer = settle_by_answer(&entry, &current, &answered(status, named.map(|n| names[n])));
        let by_fate = settle_by_fate(&entry, &exited(code), name.as_ref()).unwrap();
        for settlement in [&by_answer, &by_fate] {
            let accepted = settlement.verdicts.iter().filter(|(_, v)| *v == Verdict::Accepted).count();
            prop_assert!(accepted <= 1);
            for (id, _) in &settlement.verdicts {
                prop_assert!(entry.attempt(id).is_some());
            }
        }
        // Without a word about the earlier ones, an answer refuses none of them.
        if named.is_none() {
            prop_assert!(by_answer.refused().all(|id| *id == current));
        }
    }
}
