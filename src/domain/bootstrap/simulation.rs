//! Up to seven pods under every schedule that proptest thinks of: lists that arrive late, differ, shrink and grow;
//! crashes that keep or lose storage; one-way cuts; answers that get lost.

use super::world::{MOST_PODS, Op, Reads, World};
use proptest::prelude::*;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = 0usize..MOST_PODS;
    let op = prop_oneof![
        80 => (at.clone(), 0usize..3).prop_map(|(at, back)| Op::Step(at, back)),
        8 => at.clone().prop_map(Op::Start),
        8 => at.clone().prop_map(Op::List),
        2 => (at.clone(), any::<bool>()).prop_map(|(at, keep)| Op::Crash(at, keep)),
        1 => Just(Op::Spawn),
        1 => at.clone().prop_map(Op::Delete),
        1 => at.clone().prop_map(Op::Unlist),
        2 => (at.clone(), at.clone()).prop_map(|(from, to)| Op::Cut(from, to)),
        1 => Just(Op::Heal),
        1 => at.prop_map(Op::Promote),
    ];
    proptest::collection::vec(op, 0..300)
}

/// Everybody is listed from the start, behind one-way cuts; nobody crashes.
fn cuts() -> impl Strategy<Value = Vec<Op>> {
    let at = 0usize..4;
    let op = prop_oneof![
        40 => at.clone().prop_map(|at| Op::Step(at, 0)),
        3 => (at.clone(), at).prop_map(|(from, to)| Op::Cut(from, to)),
        1 => Just(Op::Heal),
    ];
    proptest::collection::vec(op, 0..300)
}

fn reads() -> impl Strategy<Value = Reads> {
    prop_oneof![Just(Reads::Fresh), Just(Reads::ListsAlone), Just(Reads::Stale)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_initialises_and_in_the_end_all_are_members_of_one_cluster(
        pods in 1usize..=5, reads in reads(), ops in ops(),
    ) {
        let mut world = World::new(pods, reads);
        for op in ops {
            world.apply(op)?;
        }
        world.settle()?;
    }

    #[test]
    fn a_status_that_lags_makes_no_second_cluster(pods in 2usize..=4, ops in cuts()) {
        let mut world = World::new(pods, Reads::Lagging);
        for at in 0..pods {
            world.set_listed(at, true);
            world.start(at);
        }
        for op in ops {
            world.apply(op)?;
        }
        world.settle()?;
        prop_assert!(world.initialised == 1);
    }
}
