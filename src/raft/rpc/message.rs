//! What is said in frames.
//!
//! Owns the wire's enums: variants and fields keep their order; a change that an earlier version could not read raises
//! [`super::frame::VERSION`]. Raft's own messages, those between members, and probes are kinds of their own: only the
//! first ever reach openraft.

use std::net::IpAddr;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::domain::ids::{ClusterId, Epoch, NodeId};
use crate::domain::ledger::{Command, Reply};
use crate::domain::membership::Member;
use crate::domain::peers::{Answer, Probe};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};

/// In whose name, and for whom, a frame is sent. What does not match closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The cluster.
    pub cluster: ClusterId,
    /// How often it was formed anew.
    pub epoch: Epoch,
    /// The sender.
    pub source: NodeId,
    /// The receiver, as the sender believes. Its address may belong to another node by now.
    pub target: NodeId,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Raft's own.
    Raft(Address, RaftRequest),
    /// Between nodes of one cluster, beside Raft.
    Member(Address, MemberRequest),
    /// Who are you? Of anybody, by anybody with the cluster's identity.
    Probe(Probe),
}

/// See [`Request::Raft`].
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftRequest {
    /// Entries, or a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A vote is asked for.
    Vote(VoteRequest<TypeConfig>),
    /// Would a vote be given?
    PreVote(VoteRequest<TypeConfig>),
    /// A snapshot, whose bytes follow in frames of their own.
    Snapshot {
        /// The leader's.
        vote: Vote,
        /// What it holds, in short.
        meta: SnapshotMeta,
        /// How many bytes follow.
        bytes: u64,
    },
    /// The leader hands over.
    Transfer(TransferLeaderRequest<TypeConfig>),
}

/// See [`Request::Member`].
#[derive(Debug, Serialize, Deserialize)]
pub enum MemberRequest {
    /// Here I am: take me up, or note where I am now.
    Present(Member),
    /// A fact about an attempt, for the ledger.
    Forward(Command),
    /// I am about to go for good.
    Leave,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Raft`].
    Raft(Box<RaftResponse>),
    /// To [`Request::Member`].
    Member(MemberResponse),
    /// To [`Request::Probe`].
    Probe(Answer),
    /// The sender is not in the configuration (any more): it has to present itself to the leader.
    NotMember {
        /// Of this cluster.
        cluster: ClusterId,
        /// As of this entry.
        committed: u64,
    },
    /// Cluster, epoch or target is not ours. The connection is closed.
    Misdirected {
        /// Who this is.
        node: NodeId,
        /// Where it belongs.
        cluster: Option<(ClusterId, Epoch)>,
    },
    /// It could not be done here now.
    Unable(String),
}

/// See [`Response::Raft`].
#[derive(Debug, Serialize, Deserialize)]
pub enum RaftResponse {
    /// To [`RaftRequest::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`RaftRequest::Vote`] and [`RaftRequest::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`RaftRequest::Snapshot`].
    Snapshot(SnapshotResponse<TypeConfig>),
    /// To [`RaftRequest::Transfer`]: taken, or why not.
    Transfer(Result<(), String>),
}

/// See [`Response::Member`].
#[derive(Debug, Serialize, Deserialize)]
pub enum MemberResponse {
    /// Noted.
    Done,
    /// Committed and applied.
    Applied(Reply),
    /// Only the leader can do that.
    NotLeader(Option<(NodeId, IpAddr)>),
}
