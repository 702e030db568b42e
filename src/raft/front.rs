//! What peers are answered: probes at any time, Raft and members only once we belong to a cluster.
//!
//! Owns what this node is, as its peers see it. Must never hand a Raft message of another cluster, epoch or node to
//! openraft, nor any at all before this node belongs to a cluster: an openraft node that knows no cluster votes for
//! whoever asks.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use openraft::raft::{SnapshotResponse, VoteResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ledger::RaftLedger;
use super::rpc::message::{Address, MemberRequest, MemberResponse, RaftRequest, RaftResponse, Request, Response};
use super::rpc::server::{Counts, Handler};
use super::running::{Identity, Presented, Running};
use super::types::{Snapshot, SnapshotMeta, Vote};
use crate::domain::bootstrap::{Bootstrap, Myself};
use crate::domain::ids::{ClusterId, Epoch, NodeId};
use crate::domain::ledger::Command;
use crate::domain::peers::Standing;
use crate::seeded::{self, Bug};

/// Nodes that have presented themselves and are remembered. Five voters, a few learners, and what replaced them since.
const MAX_PRESENTED: usize = 64;

/// A follower syncs what it is sent before it answers; the leader has given up by then.
const RAFT_LIMIT: Duration = Duration::from_secs(5);

/// Leaders whose connection broke and that nobody has looked after yet: the newest alone matters.
pub(super) const HANG_UPS: usize = 1;

/// See the module.
pub(super) struct Front {
    /// Our storage's id, and what this node is and has promised: see [`Bootstrap`].
    state: Mutex<(NodeId, Bootstrap)>,
    ledger: RaftLedger,
    hang_ups: mpsc::Sender<NodeId>,
    pub(super) counts: Arc<Counts>,
}

impl Front {
    pub(super) fn new(ledger: RaftLedger, hang_ups: mpsc::Sender<NodeId>, me: Myself) -> Arc<Self> {
        let state = (me.node, Bootstrap::new(me, Standing::Uninitialised, None));
        Arc::new(Self { state: Mutex::new(state), ledger, hang_ups, counts: Arc::default() })
    }

    /// Begins anew, as `me`.
    pub(super) fn begin(&self, me: Myself, standing: Standing) {
        *self.lock() = (me.node, Bootstrap::new(me, standing, None));
    }

    /// Does something with what this node is and has promised, brought up to date first.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Bootstrap) -> R) -> R {
        let mut state = self.lock();
        if let Some(running) = self.ledger.running() {
            let (standing, log) = running.standing();
            state.1.set_standing(standing, log);
        }
        f(&mut state.1)
    }

    fn lock(&self) -> MutexGuard<'_, (NodeId, Bootstrap)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running node that `address` is meant for; otherwise who we are.
    fn addressed(&self, address: &Address) -> Result<Arc<Running>, Misdirected> {
        match self.ledger.running() {
            Some(running) if running.is(address) => Ok(running),
            Some(running) => {
                let Identity { node, cluster, epoch } = running.identity;
                Err(Misdirected { node, cluster: Some((cluster, epoch)) })
            }
            None => {
                let (node, bootstrap) = &*self.lock();
                Err(Misdirected { node: *node, cluster: bootstrap.standing().cluster() })
            }
        }
    }

    async fn raft(running: &Running, source: NodeId, request: RaftRequest) -> Response {
        if matches!(request, RaftRequest::Vote(_) | RaftRequest::PreVote(_))
            && let Some(not_member) = running.not_member(source)
        {
            return not_member;
        }
        if matches!(request, RaftRequest::Append(_) | RaftRequest::Transfer(_)) {
            running.hears(source);
        }
        let raft = &running.raft;
        let unable = |error: &dyn std::fmt::Display| Response::Unable(error.to_string());
        let response = match request {
            RaftRequest::Append(request) => raft.append_entries(request).await.map(RaftResponse::Append),
            RaftRequest::Vote(request) => raft.vote(request).await.map(RaftResponse::Vote),
            RaftRequest::PreVote(request) => raft.pre_vote(request).await.map(RaftResponse::Vote),
            RaftRequest::Transfer(request) => match raft.handle_transfer_leader(request).await {
                Ok(taken) => Ok(RaftResponse::Transfer(taken.map_err(|error| error.to_string()))),
                Err(error) => return unable(&error),
            },
            RaftRequest::Snapshot { .. } => return unable(&"a snapshot without its bytes"),
        };
        response.map_or_else(|error| unable(&error), |response| Response::Raft(Box::new(response)))
    }

    async fn member(running: &Running, source: NodeId, request: MemberRequest) -> MemberResponse {
        if !running.is_leader() {
            return MemberResponse::NotLeader(running.leader());
        }
        match request {
            MemberRequest::Present(member) => {
                running.present(source, member);
                MemberResponse::Done
            }
            MemberRequest::Leave => {
                running.leaves(source);
                MemberResponse::Done
            }
            // Only a fact may come from anybody; whatever else is proposed has to be the leader's own.
            MemberRequest::Forward(command @ Command::Outcome(_)) => match running.propose(command).await {
                Ok(reply) => MemberResponse::Applied(reply),
                Err(_) => MemberResponse::NotLeader(running.leader()),
            },
            MemberRequest::Forward(_) => MemberResponse::NotLeader(None),
        }
    }
}

/// A frame that is not for us: who we are.
struct Misdirected {
    node: NodeId,
    cluster: Option<(ClusterId, Epoch)>,
}

impl From<Misdirected> for Response {
    fn from(Misdirected { node, cluster }: Misdirected) -> Self {
        Self::Misdirected { node, cluster }
    }
}

#[async_trait]
impl Handler for Front {
    async fn answer(&self, _from: IpAddr, request: Request) -> Response {
        match request {
            Request::Probe(probe) => Response::Probe(self.with(|bootstrap| bootstrap.answer(&probe))),
            Request::Raft(address, request) => match self.addressed(&address) {
                Ok(running) => {
                    let answered = Self::raft(&running, address.source, request);
                    let late = || Response::Unable("it took too long".into());
                    tokio::time::timeout(RAFT_LIMIT, answered).await.unwrap_or_else(|_| late())
                }
                // SEEDED BUG
                Err(_) if seeded::on(Bug::VoteWhileUninitialised) && self.ledger.running().is_none() => grant(request),
                Err(misdirected) => misdirected.into(),
            },
            Request::Member(address, request) => match self.addressed(&address) {
                Ok(running) => Response::Member(Self::member(&running, address.source, request).await),
                Err(misdirected) => misdirected.into(),
            },
        }
    }

    async fn install(&self, address: Address, vote: Vote, meta: SnapshotMeta, data: Vec<u8>) -> Response {
        let running = match self.addressed(&address) {
            Ok(running) => running,
            Err(misdirected) => return misdirected.into(),
        };
        running.hears(address.source);
        match running.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: data }).await {
            Ok(response) => Response::Raft(Box::new(RaftResponse::Snapshot(SnapshotResponse::new(response.vote)))),
            Err(error) => Response::Unable(error.to_string()),
        }
    }

    fn hung_up(&self, source: NodeId) {
        let leads = self.ledger.running().and_then(|running| running.leader()).is_some_and(|(node, _)| node == source);
        if leads {
            // Full: somebody is looking after it already.
            let _ = self.hang_ups.try_send(source);
        }
    }
}

impl Running {
    /// Whether a frame with that address is meant for this node.
    fn is(&self, address: &Address) -> bool {
        let mine = self.identity;
        address.cluster == mine.cluster
            && address.epoch == mine.epoch
            && (address.target == mine.node || seeded::on(Bug::NoTargetCheck))
    }

    /// Who asks for a vote has to be in the configuration, where we have one. One that we do not know yet is refused
    /// as well: it may ask the others.
    fn not_member(&self, source: NodeId) -> Option<Response> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let known = membership.nodes().next().is_none() || membership.get_node(&source).is_some();
        (!known).then(|| Response::NotMember {
            cluster: self.identity.cluster,
            committed: metrics.cluster_committed.map_or(0, |log_id| log_id.index()),
        })
    }

    pub(super) fn present(&self, node: NodeId, member: crate::domain::membership::Member) {
        let mut presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
        if presented.len() >= MAX_PRESENTED && !presented.contains_key(&node) {
            let oldest = presented.iter().min_by_key(|(_, presented)| presented.at).map(|(node, _)| *node);
            oldest.map(|node| presented.remove(&node));
        }
        presented.insert(node, Presented { member, at: Instant::now(), leaving: false });
        drop(presented);
        self.wake.notify_one();
    }

    pub(super) fn leaves(&self, node: NodeId) {
        let mut presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = self.metrics();
        let member = metrics.membership_config.membership().get_node(&node).cloned();
        match presented.get_mut(&node) {
            Some(presented) => presented.leaving = true,
            None => {
                if let Some(member) = member {
                    presented.insert(node, Presented { member, at: Instant::now(), leaving: true });
                }
            }
        }
        drop(presented);
        self.wake.notify_one();
    }
}

/// A seeded bug's answer: the vote, whoever asks.
fn grant(request: RaftRequest) -> Response {
    match request {
        RaftRequest::Vote(request) | RaftRequest::PreVote(request) => {
            let granted = VoteResponse { vote: request.vote, vote_granted: true, last_log_id: None };
            Response::Raft(Box::new(RaftResponse::Vote(granted)))
        }
        _ => Response::Unable("a seeded bug".into()),
    }
}

/// What a frame of that origin did, for the counters of the port.
pub(super) fn counted(counts: &Counts) -> [(&'static str, u64); 5] {
    [
        ("stranger", counts.strangers.load(Ordering::Relaxed)),
        ("crowded_out", counts.crowded_out.load(Ordering::Relaxed)),
        ("bad_frame", counts.bad_frames.load(Ordering::Relaxed)),
        ("misdirected", counts.misdirected.load(Ordering::Relaxed)),
        ("not_member", counts.not_members.load(Ordering::Relaxed)),
    ]
}
