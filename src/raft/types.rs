//! Raft's types, as this cluster uses them.

use openraft::impls::leader_id_std::LeaderId;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use crate::domain::ids::{NodeId, Term};
use crate::domain::ledger::{Command, Reply};
use crate::domain::membership::Member;

/// The runtime that Raft is given. Its random numbers (election timeouts) come from the seed that a node is started
/// with, so that a simulation can be repeated.
pub(super) type Runtime = DeterministicRng<TokioRuntime>;

openraft::declare_raft_types!(
    /// Standard Raft, one leader per term: a term alone names a leadership.
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = NodeId,
        Node = Member,
        LeaderId = LeaderId<u64, NodeId>,
        AsyncRuntime = Runtime,
);

/// A log entry.
pub(super) type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Where a log entry stands: term and index.
pub(super) type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// For whom a node has voted, and whether that one was elected.
pub(super) type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A configuration, and the entry that holds it.
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot holds, in short.
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: the encoded ledger.
pub(super) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>;
/// What can be seen of a running node.
pub(super) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

/// The term in which an entry was proposed.
pub(super) fn term_of(log_id: &LogId) -> Term {
    Term(log_id.committed_leader_id().term)
}
