//! Going away in order: the lead is handed over, and pod-bound storage leaves the configuration.
//!
//! Owns the two steps that SIGTERM asks of Raft; what lies between them (pushes that are under way) is not its matter.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout};

use super::rpc::message::{MemberRequest, MemberResponse};
use super::running::Running;
use super::types::LogId;
use crate::domain::handover::{Successor, TRANSFER_WAIT, successors};
use crate::domain::ids::NodeId;

/// A demotion is two entries. The grace period of a pod is 30 s, of which pushes may have taken 10.
const LEAVE_LIMIT: Duration = Duration::from_secs(8);

/// Between two questions to a leader that may be just changing.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Running {
    /// Hands the lead to the most caught-up voter, or to the next one when it does not take it. Returns whether this
    /// node does not lead any more.
    pub(super) async fn hand_over(&self) -> bool {
        for successor in self.successors() {
            if !self.is_leader() {
                return true;
            }
            tracing::info!(%successor, "handing over the lead");
            if self.raft.trigger().transfer_leader(successor).await.is_err() {
                return true;
            }
            let mut metrics = self.raft.metrics();
            let handed = async {
                while self.is_leader() {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            if timeout(TRANSFER_WAIT, handed).await.is_ok() {
                return true;
            }
        }
        !self.is_leader()
    }

    /// Voters but this one, the most caught-up first.
    fn successors(&self) -> Vec<NodeId> {
        let metrics = self.metrics();
        let progress = self.progress();
        let leaving = self.leaving();
        let voters = metrics.membership_config.membership().voter_ids();
        let others = voters.filter(|voter| *voter != self.identity.node).map(|node| Successor {
            node,
            matched: metrics.replication.as_ref().and_then(|all| all.get(&node)?.as_ref()).map_or(0, LogId::index),
            silent_for: progress.get(&node).map_or(Duration::MAX, |progress| progress.silent_for),
            leaving: leaving.contains(&node),
        });
        successors(others.collect())
    }

    /// Has the leader take this node out of the voters. Gives up after a while: the others notice by themselves then.
    pub(super) async fn leave(self: &Arc<Self>) {
        self.departs.store(true, Ordering::Relaxed);
        // Who is alone has nobody to leave the ledger to.
        if self.configuration().members.len() == 1 {
            return;
        }
        let deadline = Instant::now() + LEAVE_LIMIT;
        while Instant::now() < deadline {
            if !self.is_voter() {
                tracing::info!("this replica has left the voters");
                return;
            }
            if self.is_leader() {
                self.leaves(self.identity.node);
                sleep(ASK_AGAIN).await;
                continue;
            }
            match self.ask_leader(MemberRequest::Leave).await {
                Ok(MemberResponse::Done) => {}
                Ok(_) => tracing::debug!("the leader has changed while this replica leaves"),
                Err(error) => tracing::debug!(cause = error, "cannot ask to leave"),
            }
            sleep(ASK_AGAIN).await;
        }
        tracing::warn!("stopped as a voter: the others take this replica out once they know that its pod is gone");
    }

    /// Whether this node votes, by the newest configuration that it has.
    pub(super) fn is_voter(&self) -> bool {
        self.metrics().membership_config.membership().voter_ids().any(|voter| voter == self.identity.node)
    }
}
