//! The leader's reconcile decision: which one change brings the Raft membership closer to the replicas that there are.
//!
//! Pure. Owns the rules of growing, swapping, leaving and removing. What must never happen: a change that leaves less
//! than a majority of living voters, of the old and of the new set; a removal on the word of a failed or an empty read.
//!
//! Decided here where the design leaves it open:
//! - **Growing to odd numbers** means that a learner becomes a voter only if the new number of voters is odd: two
//!   replicas are one voter and one learner. Two voters would stop whenever either stops; one stops half as often.
//!   Voters that are alive are never demoted for the sake of a number: after a departure two may be left, which keep
//!   the ledger in two places, and the next learner that is caught up makes them three.
//! - **A swap keeps the number**, odd or not: a dead or leaving voter's place goes to a caught-up learner.
//! - A pod on lasting storage that presents another id proves nothing (another volume may have been mounted), but the
//!   old id counts as absent then: nobody listed presents it.
//! - A learner whose pod-bound storage went with its pod is removed at once: it has no vote, and it cannot return.
//! - Whoever leaves and was demoted is removed altogether. As a learner it would be promoted by the next leader, which
//!   does not know that it is leaving.
//! - A node that has acknowledged something within [`ALIVE_WITHIN`] is alive, whatever anybody says of its pod.
//! - A new node is added even while no list can be read: it proves by its certificate that it is one of us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{NodeId, PodUid};
use super::peers::Listed;

/// Most voters: five bear two failures; more make each commit slower and bear no more that matters.
pub const MAX_VOTERS: usize = 5;

/// Most members. Learners beyond five voters are replicas in reserve; each lost storage adds one until it is removed.
pub const MAX_MEMBERS: usize = 32;

/// Who acknowledged something within this time is alive: sixteen heartbeats as configured by default.
pub const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// A node of the configuration, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it is reached.
    pub address: IpAddr,
    /// The pod that it runs in.
    pub pod: PodUid,
    /// Its storage goes with that pod.
    pub bound_to_pod: bool,
}

/// The effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Everybody: voters and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// The voters; of a joint configuration those that it is to become.
    pub voters: BTreeSet<NodeId>,
    /// Of a joint configuration, those that it was.
    pub outgoing: Option<BTreeSet<NodeId>>,
}

impl Configuration {
    /// Whether it has a vote, in either half.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.as_ref().is_some_and(|outgoing| outgoing.contains(&node))
    }

    /// Whether those for whom `holds` holds are a majority, of both halves of a joint configuration.
    pub fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        std::iter::once(&self.voters).chain(&self.outgoing).all(|voters| is_majority(voters, &holds))
    }
}

/// Whether more than half of `voters` are such that `holds`.
pub fn is_majority(voters: &BTreeSet<NodeId>, holds: impl Fn(NodeId) -> bool) -> bool {
    voters.iter().filter(|node| holds(**node)).count() * 2 > voters.len()
}

/// Who was last heard to run in a pod: by its answer to a probe, or by its request to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The node id that it showed.
    pub node: NodeId,
    /// From where.
    pub address: IpAddr,
    /// Its storage goes with its pod.
    pub bound_to_pod: bool,
    /// It has asked to join.
    pub joining: bool,
}

/// How far a member follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// It has (nearly) all that is committed.
    pub caught_up: bool,
    /// Since its last acknowledgement; for one that never gave any, since we lead.
    pub silent_for: Duration,
}

/// All that the decision depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The leader itself.
    pub me: NodeId,
    /// The effective configuration. Nothing is decided while a change is under way: the caller does not ask.
    pub configuration: &'a Configuration,
    /// The fresh read; `None`: it failed.
    pub listed: Option<&'a [Listed]>,
    /// Who shows which id in which pod.
    pub presented: &'a BTreeMap<PodUid, Presented>,
    /// Members as the leader sees them.
    pub progress: &'a BTreeMap<NodeId, Progress>,
    /// Who has asked to leave (SIGTERM).
    pub leaving: &'a BTreeSet<NodeId>,
    /// `raft.deadServerGrace`.
    pub grace: Duration,
}

/// One change of the membership. After it is committed, decide anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Finishes the joint configuration that a crashed leader left, by the change to its own second half.
    FinishJoint(BTreeSet<NodeId>),
    /// One joint change to these voters. Who is none of them any more stays a learner.
    SetVoters(BTreeSet<NodeId>),
    /// A new node, without a vote.
    AddLearner(NodeId, Member),
    /// A known node at another address, or in another pod.
    UpdateMember(NodeId, Member),
    /// Away with a node that has no vote.
    RemoveLearner(NodeId),
}

/// The next change, if there is one to be made.
pub fn decide(situation: &Situation<'_>) -> Option<Change> {
    let s = situation;
    if s.configuration.outgoing.is_some() {
        return Some(Change::FinishJoint(s.configuration.voters.clone()));
    }
    // Who leaves has seconds; who serves at a new address is silent until it is known.
    set_voters(s)
        .or_else(|| updated_member(s))
        .or_else(|| removable_learner(s).map(Change::RemoveLearner))
        .or_else(|| new_learner(s))
}

impl Situation<'_> {
    fn silent_for(&self, node: NodeId) -> Duration {
        match self.progress.get(&node) {
            _ if node == self.me => Duration::ZERO,
            Some(progress) => progress.silent_for,
            // Not followed at all: no proof of anything.
            None => ALIVE_WITHIN,
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        self.silent_for(node) < ALIVE_WITHIN
    }

    /// The list, if it may prove an absence.
    fn list(&self) -> Option<&[Listed]> {
        self.listed.filter(|listed| !listed.is_empty())
    }

    fn is_listed(&self, pod: &PodUid) -> Option<bool> {
        Some(self.list()?.iter().any(|listed| listed.uid == *pod))
    }

    /// The pods that show this id. (Two do, where a volume was copied.)
    fn pods_of(&self, node: NodeId) -> impl Iterator<Item = (&PodUid, &Presented)> {
        self.presented.iter().filter(move |(_, shown)| shown.node == node)
    }

    fn shows_another(&self, member: &Member, node: NodeId) -> bool {
        self.presented.get(&member.pod).is_some_and(|shown| shown.node != node)
    }

    /// Its pod shows another id, so its storage, which was the pod's, is gone.
    fn is_proven_dead(&self, node: NodeId) -> bool {
        let Some(member) = self.configuration.members.get(&node) else { return false };
        member.bound_to_pod
            && self.shows_another(member, node)
            && self.pods_of(node).next().is_none()
            && !self.is_alive(node)
    }

    /// By a fresh read nobody who is listed is this node.
    fn is_absent(&self, node: NodeId) -> bool {
        let Some(member) = self.configuration.members.get(&node) else { return false };
        let Some(listed) = self.is_listed(&member.pod) else { return false };
        let elsewhere = self.pods_of(node).any(|(pod, _)| self.is_listed(pod) == Some(true));
        !elsewhere && (!listed || self.shows_another(member, node))
    }

    /// Absent, and silent for all of the grace.
    fn is_given_up(&self, node: NodeId) -> bool {
        !self.is_alive(node) && self.silent_for(node) >= self.grace && self.is_absent(node)
    }
}

/// Learners that may become voters, those first that stand in the pod of a voter that is proven dead.
fn candidates(s: &Situation<'_>) -> Vec<NodeId> {
    let dead: BTreeSet<&PodUid> = (s.configuration.voters.iter())
        .filter(|voter| s.is_proven_dead(**voter))
        .filter_map(|voter| s.configuration.members.get(voter).map(|member| &member.pod))
        .collect();
    let mut found: Vec<(bool, NodeId)> = (s.configuration.members.iter())
        .filter(|(node, _)| !s.configuration.voters.contains(node) && !s.leaving.contains(node))
        .filter(|(node, _)| s.progress.get(node).is_some_and(|progress| progress.caught_up) && s.is_alive(**node))
        // A pod that is no longer listed is on its way out.
        .filter(|(_, member)| s.is_listed(&member.pod) != Some(false))
        .map(|(node, member)| (!dead.contains(&member.pod), *node))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, node)| node).collect()
}

/// The next set of voters: departures, swaps and growth in one joint change; failing that, less of it.
fn set_voters(s: &Situation<'_>) -> Option<Change> {
    let old = &s.configuration.voters;
    [true, false].into_iter().find_map(|with_departures| {
        let new = wanted_voters(s, with_departures);
        let lasts =
            !new.is_empty() && is_majority(old, |node| s.is_alive(node)) && is_majority(&new, |node| s.is_alive(node));
        (new != *old && lasts).then_some(Change::SetVoters(new))
    })
}

fn wanted_voters(s: &Situation<'_>, with_departures: bool) -> BTreeSet<NodeId> {
    let old = &s.configuration.voters;
    let mut candidates = candidates(s).into_iter();
    let mut new = old.clone();
    // Those who are proven dead give way to somebody, and to nobody else: their successor is on its way.
    for dead in old.iter().filter(|node| s.is_proven_dead(**node)) {
        let Some(successor) = candidates.next() else { break };
        new.remove(dead);
        new.insert(successor);
    }
    if with_departures {
        let departs = |node: &NodeId| s.leaving.contains(node) || s.is_given_up(*node);
        let mut departing: Vec<NodeId> = new.iter().copied().filter(departs).collect();
        // Where all leave, the leader stays: it is the one that can still let others in.
        departing.sort_by_key(|node| *node == s.me);
        for node in departing {
            // The last voter never leaves while no learner is caught up.
            let successor = candidates.next();
            if new.len() > 1 || successor.is_some() {
                new.remove(&node);
                new.extend(successor);
            }
        }
    }
    let spare: Vec<NodeId> = candidates.collect();
    let possible = (new.len() + spare.len()).min(MAX_VOTERS);
    let odd = if possible.is_multiple_of(2) { possible.saturating_sub(1) } else { possible };
    let room = odd.saturating_sub(new.len());
    new.extend(spare.into_iter().take(room));
    new
}

fn updated_member(s: &Situation<'_>) -> Option<Change> {
    s.configuration.members.iter().find_map(|(node, member)| {
        // Where two pods show one id, the one that we know is believed.
        let mut pods: Vec<_> = s.pods_of(*node).collect();
        if let Some(known) = pods.iter().find(|(pod, _)| **pod == member.pod) {
            pods = vec![*known];
        }
        let [(pod, shown)] = pods.as_slice() else { return None };
        let fresh = Member { address: shown.address, pod: (*pod).clone(), bound_to_pod: shown.bound_to_pod };
        (fresh != *member).then_some(Change::UpdateMember(*node, fresh))
    })
}

fn removable_learner(s: &Situation<'_>) -> Option<NodeId> {
    let removable = |node: NodeId, member: &Member| {
        let gone_with_pod = member.bound_to_pod && s.is_absent(node) && !s.is_alive(node);
        s.leaving.contains(&node) || s.is_proven_dead(node) || gone_with_pod || s.is_given_up(node)
    };
    let mut learners = s.configuration.members.iter().filter(|(node, _)| !s.configuration.is_voter(**node));
    learners.find(|(node, member)| **node != s.me && removable(**node, member)).map(|(node, _)| *node)
}

fn new_learner(s: &Situation<'_>) -> Option<Change> {
    if s.configuration.members.len() >= MAX_MEMBERS {
        return None;
    }
    s.presented.iter().find_map(|(pod, shown)| {
        let known = s.configuration.members.contains_key(&shown.node);
        if known || !shown.joining || s.leaving.contains(&shown.node) || s.is_listed(pod) == Some(false) {
            return None;
        }
        let member = Member { address: shown.address, pod: pod.clone(), bound_to_pod: shown.bound_to_pod };
        Some(Change::AddLearner(shown.node, member))
    })
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
