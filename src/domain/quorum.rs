//! A cluster that has lost its quorum: whether a survivor may form it anew, and under which epoch.
//!
//! Pure. What must never happen: two survivors form it anew, or one does while a quorum could still exist. So the
//! unattended way asks for proof of each voter's fate, and takes nobody's silence for one.
//!
//! A survivor is a **voter** of the last configuration that answers. All logs stand still when there is no quorum, so
//! all survivors compare the same positions and agree on the greatest one. A configuration counts from the moment when
//! it is in a log, as Raft has it, and both halves of a joint one count.
//!
//! Two things stay with `recover` that look like they could heal: a configuration that only the survivor with the
//! lesser log knows (nobody can say whether it was committed), and a voter whose storage outlives its pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::ids::{ClusterId, Epoch, NodeId, PodUid};
use super::membership::{Configuration, Member};
use super::peers::{Answer, Heard, Listed, LogId, LogState, PodState, Silence};

/// What a survivor that knows no leader has found by asking everybody.
#[derive(Clone, Debug)]
pub struct Round<'a> {
    /// Itself.
    pub node: NodeId,
    /// Its own pod.
    pub uid: &'a PodUid,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's epoch, as it knows it.
    pub epoch: Epoch,
    /// How far its own log goes.
    pub log: LogState,
    /// It knows a leader after all.
    pub leader: bool,
    /// The last configuration in its log.
    pub configuration: &'a Configuration,
    /// The fresh read; `None`: it failed.
    pub listed: Option<&'a [Listed]>,
    /// What became of the probe to each other listed peer.
    pub heard: &'a BTreeMap<PodUid, Heard>,
}

/// What a survivor does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A leader is there, or an election can find one.
    Alive,
    /// Form the cluster anew, alone, with the ledger, under this epoch.
    Reform(Epoch),
    /// Another survivor's log is greater: it forms the cluster anew, and we join it.
    Follow {
        /// Which one.
        node: NodeId,
        /// How far its log goes.
        last: LogId,
    },
    /// Not without an operator, or not yet.
    Blocked(Vec<Missing>),
}

/// What is missing for a lost quorum to heal: a line for the log, and for `kubernetes-vault recover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no fresh list, or we are not in it.
    NoList,
    /// We are no voter of the last configuration: our log may lack what was acknowledged.
    NotAVoter,
    /// A listed peer is silent.
    Silent {
        /// Who.
        peer: Listed,
        /// Why, as far as we can tell.
        silence: Silence,
        /// What the API server says of it.
        pod: PodState,
    },
    /// A peer knows a leader.
    KnowsLeader(Listed),
    /// A peer has a later configuration.
    LaterConfiguration(Listed, LogId),
    /// A peer knows the cluster in a later epoch: it was formed anew.
    LaterEpoch(Listed, Epoch),
    /// A peer belongs to another cluster.
    OtherCluster(Listed, ClusterId),
    /// A peer of this cluster does not say how far its log goes.
    NoLog(Listed),
    /// A voter neither answers nor is proven gone.
    Unaccounted(NodeId, Member),
    /// A voter is not there, but its storage may be: it outlives its pod.
    StorageMayExist(NodeId, Member),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoList => f.write_str("no fresh list of peers names this node"),
            Self::NotAVoter => f.write_str("this node is no voter of the last configuration"),
            Self::Silent { peer, silence, pod } => write!(f, "peer {peer} is silent: {silence}; {pod}"),
            Self::KnowsLeader(peer) => write!(f, "peer {peer} knows a leader"),
            Self::LaterConfiguration(peer, at) => write!(f, "peer {peer} has a later configuration ({at})"),
            Self::LaterEpoch(peer, epoch) => write!(f, "peer {peer} knows a later epoch ({})", epoch.0),
            Self::OtherCluster(peer, cluster) => write!(f, "peer {peer} belongs to another cluster ({cluster})"),
            Self::NoLog(peer) => write!(f, "peer {peer} does not say how far its log goes"),
            Self::Unaccounted(node, member) => {
                write!(f, "voter {node}, last at {}, neither answers nor is its pod gone", member.address)
            }
            Self::StorageMayExist(node, member) => write!(
                f,
                "voter {node}, last at {}, is not there, but its storage outlives its pod and may return",
                member.address
            ),
        }
    }
}

/// The unattended way: every voter accounted for, every listed peer answers, none knowing better.
pub fn decide(round: &Round<'_>) -> Verdict {
    if round.leader {
        return Verdict::Alive;
    }
    let mut missing = obstacles(round);
    if !missing.is_empty() {
        return Verdict::Blocked(missing);
    }
    let survivors = survivors(round);
    if round.configuration.is_quorum(|node| survivors.contains_key(&node)) {
        return Verdict::Alive;
    }
    missing.extend(voters(round).into_iter().filter_map(|node| unaccounted(round, &survivors, node)));
    if !missing.is_empty() {
        return Verdict::Blocked(missing);
    }
    greatest(round, &survivors)
}

/// What `kubernetes-vault recover` finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The last log id of each voter that answers, this node's included, the greatest first. Printed first.
    pub logs: Vec<(NodeId, LogId)>,
    /// What the unattended way lacks: what the operator takes upon themselves. Printed next.
    pub missing: Vec<Missing>,
    /// The new epoch, or why not.
    pub outcome: Result<Epoch, Refusal>,
}

/// Why `recover` does nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A leader is known.
    #[error("the cluster has a leader; nothing is to be recovered")]
    Leader,
    /// The peers were not read.
    #[error("no fresh list of peers names this node; the peers have to be asked first")]
    NoList,
    /// A later configuration or epoch exists.
    #[error("{0}: recover there, or wait for it")]
    Outdated(String),
    /// It has no vote.
    #[error("this node is no voter of the last configuration; run it on one that is")]
    NotAVoter,
    /// Voters that answer, or that are said to run, are a quorum.
    #[error(
        "a quorum could answer: {0}. If their nodes are lost, delete their pods first (kubectl delete pod --force)"
    )]
    QuorumPossible(String),
    /// Another survivor has more.
    #[error("voter {node} has a greater log ({last}); run it there")]
    GreaterLog {
        /// Which.
        node: NodeId,
        /// How far it goes.
        last: LogId,
    },
}

/// The forced way. The caller has asked all listed peers.
pub fn recover(round: &Round<'_>) -> Recovery {
    let survivors = survivors(round);
    let mut missing = obstacles(round);
    missing.extend(voters(round).into_iter().filter_map(|node| unaccounted(round, &survivors, node)));
    let mut logs: Vec<(NodeId, LogId)> = survivors.iter().map(|(node, last)| (*node, *last)).collect();
    logs.sort_by_key(|(node, last)| std::cmp::Reverse((*last, *node)));
    let outcome = refusal(round, &survivors, &missing).map_or_else(
        || match greatest(round, &survivors) {
            Verdict::Follow { node, last } => Err(Refusal::GreaterLog { node, last }),
            _ => Ok(next(round.epoch)),
        },
        Err,
    );
    Recovery { logs, missing, outcome }
}

fn refusal(round: &Round<'_>, survivors: &BTreeMap<NodeId, LogId>, missing: &[Missing]) -> Option<Refusal> {
    if round.leader {
        return Some(Refusal::Leader);
    }
    for obstacle in missing {
        match obstacle {
            Missing::KnowsLeader(_) => return Some(Refusal::Leader),
            Missing::NoList => return Some(Refusal::NoList),
            Missing::NotAVoter => return Some(Refusal::NotAVoter),
            Missing::LaterConfiguration(..) | Missing::LaterEpoch(..) | Missing::OtherCluster(..) => {
                return Some(Refusal::Outdated(obstacle.to_string()));
            }
            _ => {}
        }
    }
    let able = |node: NodeId| survivors.contains_key(&node) || is_said_to_run(round, node);
    if round.configuration.is_quorum(able) {
        let named: Vec<String> = voters(round).into_iter().filter(|node| able(*node)).map(|n| n.to_string()).collect();
        return Some(Refusal::QuorumPossible(format!("voters {} answer or are said to run", named.join(", "))));
    }
    None
}

/// Silent, but the API server says that its container runs.
fn is_said_to_run(round: &Round<'_>, node: NodeId) -> bool {
    let Some(member) = round.configuration.members.get(&node) else { return false };
    matches!(round.heard.get(&member.pod), Some(Heard::Silent(_, PodState::Running)))
}

/// Everything but the fate of voters: the list, our own right, and what each listed peer says.
fn obstacles(round: &Round<'_>) -> Vec<Missing> {
    let listed = round.listed.unwrap_or_default();
    if !listed.iter().any(|listed| listed.uid == *round.uid) {
        return vec![Missing::NoList];
    }
    let mut missing = Vec::new();
    if !round.configuration.is_voter(round.node) {
        missing.push(Missing::NotAVoter);
    }
    for peer in listed.iter().filter(|listed| listed.uid != *round.uid) {
        match round.heard.get(&peer.uid) {
            Some(Heard::Answer(answer)) if answer.uid == peer.uid => missing.extend(objection(round, peer, answer)),
            Some(Heard::Silent(silence, pod)) => {
                missing.push(Missing::Silent { peer: peer.clone(), silence: silence.clone(), pod: *pod });
            }
            _ => {
                let (silence, pod) = (Silence::OtherPod, PodState::Unknown);
                missing.push(Missing::Silent { peer: peer.clone(), silence, pod });
            }
        }
    }
    missing
}

/// What a peer's answer holds against forming the cluster anew.
fn objection(round: &Round<'_>, peer: &Listed, answer: &Answer) -> Option<Missing> {
    let peer = peer.clone();
    if answer.standing.knows_leader() {
        return Some(Missing::KnowsLeader(peer));
    }
    let (cluster, epoch) = answer.standing.cluster()?;
    if cluster != round.cluster {
        return Some(Missing::OtherCluster(peer, cluster));
    }
    if epoch > round.epoch {
        return Some(Missing::LaterEpoch(peer, epoch));
    }
    match answer.log {
        Some(log) if log.configuration > round.log.configuration => {
            Some(Missing::LaterConfiguration(peer, log.configuration))
        }
        None if round.configuration.is_voter(answer.node) => Some(Missing::NoLog(peer)),
        _ => None,
    }
}

fn voters(round: &Round<'_>) -> BTreeSet<NodeId> {
    let configuration = round.configuration;
    configuration.voters.iter().chain(configuration.outgoing.iter().flatten()).copied().collect()
}

/// The answers of the pods that were asked.
fn answers<'a>(round: &'a Round<'_>) -> impl Iterator<Item = &'a Answer> {
    round.heard.iter().filter_map(|(uid, heard)| match heard {
        Heard::Answer(answer) if answer.uid == *uid => Some(answer),
        _ => None,
    })
}

/// The voters that answer, ourselves included, and how far their logs go.
fn survivors(round: &Round<'_>) -> BTreeMap<NodeId, LogId> {
    let ours = |answer: &&Answer| answer.standing.cluster() == Some((round.cluster, round.epoch));
    let others = answers(round).filter(ours).filter_map(|answer| Some((answer.node, answer.log?.last)));
    let everybody = others.chain(std::iter::once((round.node, round.log.last)));
    everybody.filter(|(node, _)| round.configuration.is_voter(*node)).collect()
}

/// What is missing to know that `node` will never vote again, or that it takes part.
fn unaccounted(round: &Round<'_>, survivors: &BTreeMap<NodeId, LogId>, node: NodeId) -> Option<Missing> {
    if survivors.contains_key(&node) {
        return None;
    }
    // A voter without an entry among the members cannot be proven gone; openraft has no such configuration.
    let member = round.configuration.members.get(&node)?.clone();
    let listed = round.listed.is_some_and(|listed| listed.iter().any(|listed| listed.uid == member.pod));
    let replaced = answers(round).any(|answer| answer.uid == member.pod && answer.node != node);
    if listed && !replaced {
        return Some(Missing::Unaccounted(node, member));
    }
    // It answers, but as a node of an earlier epoch or of none: its storage was not the pod's alone.
    if answers(round).any(|answer| answer.node == node) {
        return Some(Missing::Unaccounted(node, member));
    }
    (!member.bound_to_pod).then_some(Missing::StorageMayExist(node, member))
}

fn greatest(round: &Round<'_>, survivors: &BTreeMap<NodeId, LogId>) -> Verdict {
    let greatest = survivors.iter().max_by_key(|(node, last)| (**last, **node));
    match greatest {
        Some((node, last)) if *node != round.node => Verdict::Follow { node: *node, last: *last },
        _ => Verdict::Reform(next(round.epoch)),
    }
}

fn next(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
