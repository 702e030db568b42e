//! What can be seen of a node: for `status`, for readiness, for metrics.
//!
//! Reads only. Owns no decision but one: when a node is ready.

use std::time::Duration;

use openraft::ServerState;

use super::front::counted;
use super::running::Running;
use super::service::Handle;
use super::types::LogId;
use crate::domain::ids::{ClusterId, Epoch, NodeId, Term};
use crate::domain::ledger::Ledger;
use crate::domain::membership::Member;

/// A learner that lacks fewer entries than this has caught up.
const READY_LAG: u64 = 1_024;

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It delivers.
    Leader,
    /// It votes, and stands by.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It has no vote.
    Learner,
}

/// One of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMember {
    /// Its id.
    pub node: NodeId,
    /// Where and what it is.
    pub member: Member,
    /// It votes.
    pub voter: bool,
    /// Entries that it lacks, as the leader knows it.
    pub lag: Option<u64>,
    /// Since it acknowledged something, as the leader knows it.
    pub silent_for: Option<Duration>,
}

/// A node that takes part in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// How often that was formed anew.
    pub epoch: Epoch,
    /// What it is.
    pub role: Role,
    /// The term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Known to be committed, by a majority's word.
    pub committed: Option<u64>,
    /// In the ledger here.
    pub applied: Option<u64>,
    /// The last entry here.
    pub last: Option<u64>,
    /// The last entry that is in the snapshot here.
    pub snapshot: Option<u64>,
    /// Everybody.
    pub members: Vec<SeenMember>,
    /// Entries of the ledger.
    pub entries: usize,
    /// Settled ones among them.
    pub tombstones: usize,
}

impl Handle {
    /// This node, if it takes part in a cluster.
    pub fn seen(&self) -> Option<Seen> {
        self.ledger.running().map(|running| running.seen())
    }

    /// The ledger as it is now, to be looked at in peace: a copy costs nothing.
    pub fn ledger_now(&self) -> Option<Ledger> {
        self.ledger.running().map(|running| running.ledger.read(|applied| applied.ledger.clone()))
    }

    /// Why this node is in no cluster yet.
    pub fn forming(&self) -> Vec<String> {
        self.progress().reasons
    }

    /// Whether this node does its part: it votes, or has caught up. One that is kept out by another secret alone is
    /// ready after a while, so that a roll-out of a new one goes on.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn ready(&self) -> Result<(), String> {
        let Some(seen) = self.seen() else {
            let progress = self.progress();
            if progress.ready_all_the_same {
                return Ok(());
            }
            return Err(format!("this replica is in no cluster yet: {}", progress.reasons.join("; ")));
        };
        let voter = seen.members.iter().any(|member| member.node == seen.node && member.voter);
        let lag = seen.committed.zip(seen.applied).map(|(committed, applied)| committed.saturating_sub(applied));
        match (voter, lag) {
            (true, _) => Ok(()),
            (false, Some(lag)) if lag < READY_LAG => Ok(()),
            _ => Err("this replica has not caught up with its cluster yet".to_owned()),
        }
    }

    /// What happened on the peers' port, by cause.
    pub fn refused(&self) -> [(&'static str, u64); 5] {
        counted(&self.front.counts)
    }
}

impl Running {
    fn seen(&self) -> Seen {
        let metrics = self.metrics();
        let index = |log_id: &Option<LogId>| log_id.as_ref().map(LogId::index);
        let configuration = self.configuration();
        let progress = self.progress();
        let last = metrics.last_log_index;
        let members = configuration.members.iter().map(|(node, member)| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(node)).map(|matched| {
                let matched = matched.as_ref().map_or(0, LogId::index);
                last.unwrap_or(0).saturating_sub(matched)
            });
            SeenMember {
                node: *node,
                member: member.clone(),
                voter: configuration.is_voter(*node),
                lag: matched,
                silent_for: progress.get(node).map(|progress| progress.silent_for).filter(|for_| *for_ < Duration::MAX),
            }
        });
        let (entries, tombstones) = self.ledger.read(|applied| (applied.ledger.len(), applied.ledger.tombstones()));
        Seen {
            node: self.identity.node,
            cluster: self.identity.cluster,
            epoch: self.identity.epoch,
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                _ => Role::Learner,
            },
            term: Term(metrics.current_term),
            leader: self.leader().map(|(leader, _)| leader),
            committed: index(&metrics.cluster_committed),
            applied: index(&metrics.last_applied),
            last,
            snapshot: index(&metrics.snapshot),
            members: members.collect(),
            entries,
            tombstones,
        }
    }
}
