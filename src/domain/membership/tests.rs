//! The leader's decisions, sentence by sentence, and the stories of section 6.

use super::model::{Cluster, GRACE};
use super::*;
use crate::domain::membership::Change::{AddLearner, FinishJoint, RemoveLearner, SetVoters, UpdateMember};

fn set(of: &[u64]) -> BTreeSet<NodeId> {
    of.iter().map(|n| NodeId(*n)).collect()
}

/// Voters 1 to `n`, in pods of the same numbers, all alive; 1 leads.
fn cluster(n: u64) -> Cluster {
    let mut cluster = Cluster::default();
    for at in 1..=n {
        cluster.pod(at, at);
        cluster.member(at, at);
        cluster.configuration.voters.insert(NodeId(at));
    }
    cluster
}

#[test]
fn new_then_learner_then_voter_when_caught_up() {
    let mut c = cluster(2);
    c.pod(3, 3);
    assert!(matches!(c.decide(), Some(AddLearner(NodeId(3), _))));
    c.step();
    assert_eq!(c.decide(), None, "not caught up yet");
    c.catch_up(3);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 3]))));
}

#[test]
fn voters_grow_to_odd_numbers_at_most_five() {
    for (replicas, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5), (9, 5)] {
        let mut c = cluster(1);
        (2..=replicas).for_each(|n| c.pod(n, n));
        c.settle();
        assert_eq!(c.configuration.voters.len(), voters, "{replicas} replicas");
        assert_eq!(c.configuration.members.len() as u64, replicas, "further replicas stay learners");
    }
}

#[test]
fn one_to_three_is_one_joint_change_once_both_are_caught_up() {
    let mut c = cluster(1);
    c.pod(2, 2);
    c.pod(3, 3);
    c.step();
    c.step();
    c.catch_up(2);
    assert_eq!(c.decide(), None, "two voters would stop whenever one stops");
    c.catch_up(3);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 3]))));
}

#[test]
fn a_changed_address_is_updated_and_so_is_a_pod_that_lasting_storage_moved_to() {
    let mut c = cluster(3);
    c.presented.get_mut(&Cluster::uid(3)).unwrap().address = [10, 9, 9, 9].into();
    let Some(UpdateMember(NodeId(3), member)) = c.decide() else { panic!("{:?}", c.decide()) };
    assert_eq!(member.address, IpAddr::from([10, 9, 9, 9]));

    let mut c = cluster(3);
    c.lasting(3);
    c.delete_pod(3);
    c.pod(4, 3);
    c.presented.get_mut(&Cluster::uid(4)).unwrap().bound_to_pod = false;
    let Some(UpdateMember(NodeId(3), member)) = c.decide() else { panic!("{:?}", c.decide()) };
    assert_eq!(member.pod, Cluster::uid(4));
}

#[test]
fn an_id_that_two_pods_show_moves_nowhere() {
    let mut c = cluster(3);
    c.pod(4, 3);
    assert_eq!(c.decide(), None);
}

#[test]
fn lost_storage_in_place_is_swapped_at_once_in_one_joint_change() {
    let mut c = cluster(3);
    c.lose_storage(3, 33);
    assert!(matches!(c.decide(), Some(AddLearner(NodeId(33), _))));
    c.step();
    assert_eq!(c.decide(), None, "its successor is on its way");
    c.catch_up(33);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 33]))));
    c.step();
    assert_eq!(c.decide(), Some(RemoveLearner(NodeId(3))));
    c.step();
    assert_eq!(c.decide(), None);
}

#[test]
fn a_dead_voter_is_swapped_for_any_learner_that_is_caught_up_but_its_own_successor_first() {
    let mut c = cluster(3);
    c.pod(4, 4);
    c.settle();
    assert_eq!(c.configuration.voters, set(&[1, 2, 3]));
    c.lose_storage(3, 33);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 4]))), "a replica in reserve");
    c.member(33, 3);
    c.catch_up(33);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 33]))));
}

#[test]
fn a_swap_keeps_the_number_even_of_two_voters() {
    let mut c = cluster(3);
    c.leave(3);
    c.settle();
    assert_eq!(c.configuration.voters, set(&[1, 2]), "living voters are not demoted for the sake of a number");
    let mut leaving = c.clone();
    leaving.member(4, 4);
    leaving.pod(4, 4);
    leaving.catch_up(4);
    leaving.leave(2);
    assert_eq!(leaving.decide(), Some(SetVoters(set(&[1, 4]))));
    // Two of two are needed, so nothing can be committed without 2.
    c.lose_storage(2, 22);
    c.member(22, 2);
    c.catch_up(22);
    assert_eq!(c.decide(), None, "the rest is no quorum of the old");
}

#[test]
fn another_id_proves_nothing_on_lasting_storage_nor_against_one_that_acknowledges() {
    let mut c = cluster(3);
    c.lasting(3);
    c.lose_storage(3, 33);
    c.settle();
    assert_eq!(c.configuration.voters, set(&[1, 2, 3]));
    c.silence(3, GRACE);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 33]))), "nobody listed presents it: absent");

    let mut c = cluster(3);
    c.lose_storage(3, 33);
    c.member(33, 3);
    c.catch_up(33);
    c.silence(3, Duration::ZERO);
    assert_eq!(c.decide(), None, "a frame that came late");
}

#[test]
fn a_voter_is_removed_only_if_absent_and_silent_for_the_grace_and_the_rest_is_a_quorum() {
    let mut c = cluster(3);
    c.delete_pod(3);
    c.silence(3, GRACE - Duration::from_secs(1));
    assert_eq!(c.decide(), None, "not for long enough");
    c.silence(3, GRACE);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2]))));
    c.silence(2, Duration::from_secs(60));
    assert_eq!(c.decide(), None, "the rest is no quorum");

    let mut c = cluster(3);
    c.delete_pod(3);
    c.silence(3, Duration::ZERO);
    assert_eq!(c.decide(), None, "it acknowledges, whatever the list says");

    let mut c = cluster(3);
    c.silence(3, GRACE * 10);
    assert_eq!(c.decide(), None, "still listed");
}

#[test]
fn an_api_error_or_an_empty_list_removes_nobody() {
    for listed in [None, Some(Vec::new())] {
        let mut c = cluster(3);
        c.pod(4, 4);
        c.settle();
        for n in [3, 4] {
            c.delete_pod(n);
        }
        for n in [3, 4] {
            c.silence(n, GRACE * 10);
        }
        c.listed = listed;
        assert_eq!(c.decide(), None);
    }
}

#[test]
fn without_a_list_a_lost_storage_is_still_swapped() {
    let mut c = cluster(3);
    c.listed = None;
    c.lose_storage(3, 33);
    c.settle();
    assert_eq!(c.configuration.voters, set(&[1, 2, 33]));
}

#[test]
fn a_joint_configuration_that_was_left_is_finished_first() {
    let mut c = cluster(3);
    c.configuration.outgoing = Some(set(&[1, 2, 4]));
    c.leave(3);
    assert_eq!(c.decide(), Some(FinishJoint(set(&[1, 2, 3]))));
    c.step();
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2]))));
}

#[test]
fn whoever_leaves_is_demoted_for_a_learner_that_is_caught_up_and_is_not_promoted_again() {
    let mut c = cluster(3);
    c.pod(4, 4);
    c.settle();
    c.leave(3);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1, 2, 4]))));
    c.step();
    assert_eq!(c.decide(), Some(RemoveLearner(NodeId(3))), "the next leader would promote it");
    c.step();
    assert_eq!(c.decide(), None, "nor does it join again while it stops");
}

#[test]
fn the_last_voter_never_leaves_while_no_learner_is_caught_up() {
    let mut c = cluster(1);
    c.leave(1);
    assert_eq!(c.decide(), None);
    c.pod(2, 2);
    c.step();
    assert_eq!(c.decide(), None);
    c.catch_up(2);
    assert_eq!(c.decide(), Some(SetVoters(set(&[2]))));

    let mut all = cluster(3);
    for n in [1, 2, 3] {
        all.leave(n);
    }
    all.settle();
    assert_eq!(all.configuration.voters, set(&[1]), "the leader stays");
}

#[test]
fn a_leave_that_would_cost_the_quorum_is_not_granted() {
    let mut c = cluster(3);
    c.silence(2, Duration::from_secs(60));
    c.leave(3);
    assert_eq!(c.decide(), None);
}

#[test]
fn a_learner_goes_with_its_pod_if_its_storage_does() {
    let mut c = cluster(1);
    c.pod(2, 2);
    c.settle();
    c.delete_pod(2);
    assert_eq!(c.decide(), Some(RemoveLearner(NodeId(2))));
    c.lasting(2);
    assert_eq!(c.decide(), None);
    c.silence(2, GRACE);
    assert_eq!(c.decide(), Some(RemoveLearner(NodeId(2))));
}

#[test]
fn members_are_limited() {
    let mut c = cluster(1);
    (2..=MAX_MEMBERS as u64 + 1).for_each(|n| c.pod(n, n));
    c.settle();
    assert_eq!(c.configuration.members.len(), MAX_MEMBERS);
}

/// Three replicas of a StatefulSet, replaced one by one: never without a quorum, three voters in the end.
#[test]
fn three_replicas_survive_a_rolling_update_that_stops_before_it_starts() {
    let mut c = cluster(3);
    for (old, new) in [(3, 6), (2, 5), (1, 4)] {
        c.hand_over_from(old);
        c.leave(old);
        c.settle();
        assert!(!c.configuration.is_voter(NodeId(old)));
        c.delete_pod(old);
        c.pod(new, new);
        c.settle();
        assert_eq!(c.configuration.voters.len(), 3, "after {old}");
    }
    assert_eq!(c.configuration.voters, set(&[4, 5, 6]));
    assert_eq!(c.configuration.members.len(), 3);
}

/// A Deployment with maxSurge 1 and maxUnavailable 0.
#[test]
fn three_replicas_survive_a_rolling_update_that_starts_before_it_stops() {
    let mut c = cluster(3);
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        c.pod(new, new);
        c.settle();
        c.hand_over_from(old);
        c.leave(old);
        assert!(matches!(c.decide(), Some(SetVoters(voters)) if voters.len() == 3), "a swap");
        c.settle();
        c.delete_pod(old);
        c.settle();
    }
    assert_eq!(c.configuration.voters, set(&[4, 5, 6]));
    assert_eq!(c.configuration.members.len(), 3);
}

#[test]
fn one_replica_survives_a_rolling_update_with_a_surge() {
    let mut c = cluster(1);
    c.pod(2, 2);
    c.settle();
    c.leave(1);
    c.settle();
    assert_eq!(c.configuration.voters, set(&[2]));
}

#[test]
fn three_to_one_and_one_to_three() {
    let mut c = cluster(3);
    // A StatefulSet with Parallel stops both at once.
    c.leave(2);
    c.leave(3);
    assert_eq!(c.decide(), Some(SetVoters(set(&[1]))));
    c.settle();
    for n in [2, 3] {
        c.delete_pod(n);
    }
    c.settle();
    assert_eq!((c.configuration.voters.clone(), c.configuration.members.len()), (set(&[1]), 1));
    for n in [4, 5] {
        c.pod(n, n);
    }
    c.settle();
    assert_eq!(c.configuration.voters, set(&[1, 4, 5]));
}

#[test]
fn three_to_one_with_the_leader_among_those_who_stop() {
    let mut c = cluster(3);
    c.me = NodeId(3);
    c.leave(2);
    c.leave(3);
    // Nobody took over: it demotes itself.
    assert_eq!(c.decide(), Some(SetVoters(set(&[1]))));
}
