//! Turns against a plain account of who paid what, in the test's own time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::stations::TIDY_AT;
use super::*;
use crate::domain::limits::Rate;

fn uid(n: usize) -> PodUid {
    PodUid::from(format!("u{n}").as_str())
}

fn errand(namespace: &str, role: &str) -> Errand {
    Errand { namespace: namespace.into(), role: Some(RoleName::parse(role).unwrap()) }
}

fn limits(vault: u64, role: u64, namespace: u64) -> Limits {
    let rate = |thousandths| Rate::from_thousandths(thousandths).unwrap();
    Limits { in_flight: 10, vault: rate(vault), role: rate(role), namespace: rate(namespace) }
}

fn drain(turns: &mut Turns, at: Instant) -> usize {
    std::iter::from_fn(|| turns.next(at, Hands::Free)).count()
}

#[test]
fn who_is_put_again_waits_once_and_by_the_last_word() {
    let start = Instant::now();
    let mut turns = Turns::new(&Limits::default(), start);
    turns.put(uid(1), errand("a", "r"), start);
    turns.put(uid(1), errand("a", "r"), start + Duration::from_secs(9));
    assert_eq!((turns.next(start, Hands::Free), turns.backlog(start)), (None, 0));
    assert_eq!(turns.next_due(start, Hands::Free), Some(start + Duration::from_secs(9)));
    let later = start + Duration::from_secs(10);
    assert_eq!(turns.backlog(later), 1);
    assert_eq!(drain(&mut turns, later), 1);
    assert_eq!(turns.next_due(later, Hands::Free), None);
}

#[test]
fn without_a_hand_nobody_has_a_turn_and_only_a_limit_is_named() {
    let start = Instant::now();
    let mut turns = Turns::new(&Limits::default(), start);
    turns.put(uid(1), errand("a", "r"), start);
    turns.put(uid(2), Errand { namespace: "a".into(), role: None }, start);
    assert_eq!(turns.next(start, Hands::Busy), None);
    assert_eq!(turns.take_limited(), [], "to be busy is no limit");
    assert_eq!(turns.next(start, Hands::InFlight).map(|(uid, _)| uid), Some(uid(2)), "a look is no delivery");
    for _ in 0..3 {
        assert_eq!(turns.next(start, Hands::InFlight), None);
    }
    assert_eq!(turns.take_limited(), [(uid(1), Limit::InFlight)]);
    assert_eq!(turns.next_due(start, Hands::InFlight), None, "a hand will tell when it is free");
    assert_eq!(drain(&mut turns, start), 1);
}

#[test]
fn a_look_costs_no_token() {
    let start = Instant::now();
    let mut turns = Turns::new(&limits(10, 10, 10), start);
    for n in 0..100 {
        turns.put(uid(n), Errand { namespace: "a".into(), role: None }, start);
    }
    assert_eq!(drain(&mut turns, start), 100);
    turns.put(uid(0), errand("a", "r"), start);
    assert_eq!(drain(&mut turns, start), 1);
}

#[test]
fn who_leaves_at_any_step_gives_back_what_was_paid() {
    let start = Instant::now();
    for step in ["namespace", "role", "ready"] {
        let (few, many) = (100, 1_000_000);
        let mut turns = Turns::new(
            &match step {
                "namespace" => limits(many, many, few),
                "role" => limits(many, few, many),
                _ => limits(few, many, many),
            },
            start,
        );
        turns.put(uid(1), errand("a", "r"), start);
        turns.put(uid(2), errand("a", "r"), start);
        assert_eq!(drain(&mut turns, start), 1, "{step}: a burst of one");
        turns.remove(&uid(2));
        turns.give_back(&errand("a", "r"));
        turns.put(uid(3), errand("a", "r"), start);
        assert_eq!(drain(&mut turns, start), 1, "{step}");
        assert_eq!(turns.backlog(start), 0);
    }
}

#[test]
fn a_token_that_is_given_back_is_for_the_next_at_once() {
    let start = Instant::now();
    let mut turns = Turns::new(&limits(10, 10, 10), start);
    turns.put(uid(1), errand("a", "r"), start);
    turns.put(uid(2), errand("a", "r"), start);
    let (_, paid) = turns.next(start, Hands::Free).unwrap();
    assert_eq!(turns.next(start, Hands::Free), None);
    turns.give_back(&paid);
    assert!(turns.next_due(start, Hands::Free).is_some_and(|due| due <= start));
    assert_eq!(drain(&mut turns, start), 1);
}

#[test]
fn made_up_names_cannot_fill_the_memory() {
    let start = Instant::now();
    let mut turns = Turns::new(&Limits::default(), start);
    for n in 0..20_000 {
        let at = start + Duration::from_millis(n as u64);
        turns.put(uid(n), errand(&format!("n{n}"), &format!("r{n}")), at);
        assert_eq!(drain(&mut turns, at), 1);
    }
    assert!(turns.namespaces.len() <= TIDY_AT && turns.roles.len() <= TIDY_AT);
}

#[derive(Clone, Debug)]
enum Step {
    Put { pod: usize, namespace: u8, role: u8, after: u64 },
    Remove(usize),
    Next { used: bool },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..40, 0u8..3, 0u8..3, 0u64..2_000)
            .prop_map(|(pod, namespace, role, after)| Step::Put { pod, namespace, role, after }),
        1 => (0usize..40).prop_map(Step::Remove),
        4 => any::<bool>().prop_map(|used| Step::Next { used }),
        1 => (1u64..3_000).prop_map(Step::Pass),
    ]
}

proptest! {
    // Whatever happens: nobody is lost, nobody has two turns, no limit lets through more than a burst and its rate, and
    // everybody has a turn in the end, without a look before one is due.
    #[test]
    fn nobody_is_lost_and_no_limit_is_broken(
        steps in proptest::collection::vec(step(), 1..300),
        rates in (200u64..20_000, 200u64..5_000, 200u64..5_000),
    ) {
        let start = Instant::now();
        let limits = limits(rates.0, rates.1, rates.2);
        let mut turns = Turns::new(&limits, start);
        let mut waiting = BTreeSet::new();
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        let mut now = start;
        let count = |used: &mut BTreeMap<String, u64>, errand: &Errand, now: Instant| -> Result<(), TestCaseError> {
            let role = errand.role.as_ref().unwrap();
            let millis = now.duration_since(start).as_millis() as u64;
            for (name, rate, thousandths) in [
                ("vault".to_owned(), limits.vault, rates.0),
                (format!("role {role}"), limits.role, rates.1),
                (format!("namespace {}", errand.namespace), limits.namespace, rates.2),
            ] {
                let times = used.entry(name.clone()).or_default();
                *times += 1;
                let most = rate.burst() + 1 + millis * thousandths / 1_000_000;
                prop_assert!(*times <= most, "{} let {} through in {} ms", name, times, millis);
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Put { pod, namespace, role, after } => {
                    let errand = errand(&format!("n{namespace}"), &format!("r{role}"));
                    turns.put(uid(pod), errand, now + Duration::from_millis(after));
                    waiting.insert(uid(pod));
                }
                Step::Remove(pod) => {
                    turns.remove(&uid(pod));
                    waiting.remove(&uid(pod));
                }
                Step::Next { used: is_used } => {
                    if let Some((pod, errand)) = turns.next(now, Hands::Free) {
                        prop_assert!(waiting.remove(&pod), "{} had a turn and did not wait", pod);
                        if is_used { count(&mut used, &errand, now)? } else { turns.give_back(&errand) }
                    }
                }
                Step::Pass(millis) => now += Duration::from_millis(millis),
            }
            prop_assert!(turns.backlog(now) <= waiting.len());
        }
        let mut looks = 0;
        while !waiting.is_empty() {
            looks += 1;
            prop_assert!(looks < 1_000, "it looks again and again");
            while let Some((pod, errand)) = turns.next(now, Hands::Free) {
                prop_assert!(waiting.remove(&pod));
                count(&mut used, &errand, now)?;
            }
            if let Some(due) = turns.next_due(now, Hands::Free) {
                prop_assert!(due > now, "it would look again at once");
                now = due;
            } else {
                prop_assert!(waiting.is_empty(), "{} are lost", waiting.len());
            }
        }
        prop_assert_eq!(turns.next_due(now, Hands::Free), None);
    }

    // Pods of one namespace that ask for one role have their turns in the order in which they were due.
    #[test]
    fn the_order_within_a_namespace_is_kept(namespaces in proptest::collection::vec(0u8..4, 1..100)) {
        let start = Instant::now();
        let mut turns = Turns::new(&limits(500, 2_000, 1_000), start);
        for (n, namespace) in namespaces.iter().enumerate() {
            turns.put(uid(n), errand(&format!("n{namespace}"), "r"), start + Duration::from_millis(n as u64));
        }
        let (mut now, mut last) = (start, BTreeMap::new());
        while let Some(due) = turns.next_due(now, Hands::Free) {
            now = now.max(due);
            while let Some((pod, errand)) = turns.next(now, Hands::Free) {
                let n: usize = pod.as_str()[1..].parse().unwrap();
                let before = last.insert(errand.namespace, n);
                prop_assert!(before.is_none_or(|before| before < n));
            }
        }
        prop_assert_eq!(turns.backlog(now), 0);
    }
}
