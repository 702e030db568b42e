//! How a replica stops, and how the next leader is found: order, successors, and who campaigns when.
//!
//! Pure. What must never happen: a leave on storage that outlives the pod (the voter comes back), unless it is told
//! to; two followers that campaign at the same moment because both saw one link break.

use std::time::Duration;

use super::ids::NodeId;

/// How long a successor has to take over before the next one is asked.
pub const TRANSFER_WAIT: Duration = Duration::from_millis(250);

/// How long pushes that are under way may take after SIGTERM.
pub const PUSHES_WAIT: Duration = Duration::from_secs(10);

/// `raft.leaveOnTerminate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaveOnTerminate {
    /// Leave if the storage goes with the pod.
    #[default]
    Auto,
    /// Leave; needed to go from three replicas to one on lasting storage.
    Always,
    /// Stay a member.
    Never,
}

impl LeaveOnTerminate {
    /// Whether a node leaves the cluster on SIGTERM.
    pub fn leaves(self, bound_to_pod: bool) -> bool {
        match self {
            Self::Auto => bound_to_pod,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What is done on SIGTERM, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStep {
    /// No further claim.
    StopClaiming,
    /// To each of [`successors`] in turn, [`TRANSFER_WAIT`] each.
    TransferLeadership,
    /// Pushes under way end, [`PUSHES_WAIT`] at most. Their outcomes are facts that any member may forward.
    FinishPushes,
    /// Ask the leader (ourselves, if nobody has taken over) to demote us, and wait for its commit.
    Leave,
    /// Close the ports.
    Close,
}

/// The steps for this node.
pub fn stop_steps(is_leader: bool, is_member: bool, policy: LeaveOnTerminate, bound_to_pod: bool) -> Vec<StopStep> {
    let steps = [
        (true, StopStep::StopClaiming),
        (is_leader, StopStep::TransferLeadership),
        (true, StopStep::FinishPushes),
        (is_member && policy.leaves(bound_to_pod), StopStep::Leave),
        (true, StopStep::Close),
    ];
    steps.into_iter().filter_map(|(wanted, step)| wanted.then_some(step)).collect()
}

/// A voter that may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Who.
    pub node: NodeId,
    /// The last index that it is known to have.
    pub matched: u64,
    /// Since its last acknowledgement.
    pub silent_for: Duration,
    /// It is stopping, too.
    pub leaving: bool,
}

/// In which order other voters are asked to take over: those that stay before those that stop, those that answer
/// before those that are silent, and then the most caught-up first.
pub fn successors(mut voters: Vec<Successor>) -> Vec<NodeId> {
    voters.sort_by_key(|voter| {
        let silent = voter.silent_for >= super::membership::ALIVE_WITHIN;
        (voter.leaving, silent, std::cmp::Reverse(voter.matched), voter.node)
    });
    voters.into_iter().map(|voter| voter.node).collect()
}

/// When a follower campaigns after its link to the leader was reset and its new dial was refused: when the lease ends,
/// and `step` later for each voter before it. `None`: it has no vote, or is the leader.
///
/// `voters` in ascending order, as the configuration has them.
pub fn campaign_after(
    voters: impl IntoIterator<Item = NodeId>,
    me: NodeId,
    leader: NodeId,
    lease_left: Duration,
    step: Duration,
) -> Option<Duration> {
    let rank = voters.into_iter().filter(|node| *node != leader).position(|node| node == me)?;
    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
    Some(lease_left.saturating_add(step.saturating_mul(rank)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_on_sigterm() {
        use LeaveOnTerminate::{Always, Auto, Never};
        for (policy, bound_to_pod, leaves) in [
            (Auto, true, true),
            (Auto, false, false),
            (Always, true, true),
            (Always, false, true),
            (Never, true, false),
            (Never, false, false),
        ] {
            assert_eq!(policy.leaves(bound_to_pod), leaves, "{policy:?} {bound_to_pod}");
        }
    }

    #[test]
    fn a_leader_hands_over_before_it_finishes_its_pushes_and_leaves_last() {
        use StopStep::{Close, FinishPushes, Leave, StopClaiming, TransferLeadership};
        let auto = LeaveOnTerminate::Auto;
        let all = [StopClaiming, TransferLeadership, FinishPushes, Leave, Close];
        assert_eq!(stop_steps(true, true, auto, true), all);
        assert_eq!(stop_steps(false, true, auto, true), [StopClaiming, FinishPushes, Leave, Close]);
        assert_eq!(stop_steps(true, true, auto, false), [StopClaiming, TransferLeadership, FinishPushes, Close]);
        assert_eq!(stop_steps(false, false, auto, true), [StopClaiming, FinishPushes, Close]);
    }

    #[test]
    fn the_most_caught_up_voter_is_asked_first_and_those_that_stop_last() {
        let voter = |node, matched, silent, leaving| Successor {
            node: NodeId(node),
            matched,
            silent_for: Duration::from_secs(silent),
            leaving,
        };
        let asked = successors(vec![
            voter(1, 9, 0, true),
            voter(2, 8, 5, false),
            voter(3, 5, 0, false),
            voter(4, 7, 0, false),
            voter(5, 7, 0, false),
        ]);
        assert_eq!(asked, [4, 5, 3, 2, 1].map(NodeId));
    }

    #[test]
    fn no_two_followers_campaign_at_one_moment() {
        let voters = [1, 2, 3, 4, 5].map(NodeId);
        let ms = Duration::from_millis;
        let after = |me| campaign_after(voters, NodeId(me), NodeId(3), ms(100), ms(20));
        assert_eq!([after(1), after(2), after(4), after(5)].map(|d| d.unwrap().as_millis()), [100, 120, 140, 160]);
        assert_eq!((after(3), after(9)), (None, None));
    }
}
