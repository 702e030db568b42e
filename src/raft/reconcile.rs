//! The leader brings the configuration closer to the replicas that there are, one change at a time.
//!
//! The async shell around [`crate::domain::membership`]. Owns no decision; must never change anything on a list that
//! could not be read.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, ServerState};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::ports::Directory;
use super::running::Running;
use crate::domain::ids::PodUid;
use crate::domain::membership::{Change, Configuration, Presented, Progress, Situation, decide};
use crate::domain::peers::Listed;

/// Progress is looked at this often: a learner that has caught up votes that much later at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A list is read anew this often without any sign of a change.
const LIST_EVERY: Duration = Duration::from_secs(15);

/// A list is read anew this often while a member is silent.
const LIST_EVERY_URGENT: Duration = Duration::from_secs(2);

/// Who has not presented itself for this long is not there any more, or is a member whom heartbeats show.
const PRESENTED_FOR: Duration = Duration::from_secs(30);

/// A change is two entries, each a round trip and a sync; a majority that does not answer makes it wait for ever.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// Reconciles whenever this node leads.
pub(super) async fn always(running: Arc<Running>, directory: Arc<dyn Directory>, grace: Duration) {
    // Heartbeats do not change these; the whole metrics change with each tick.
    let mut metrics = running.raft.server_metrics();
    loop {
        while metrics.borrow_watched().state == ServerState::Leader {
            while_leading(&running, &directory, grace).await;
            // The whole, by which that one goes, may say so a moment later.
            yield_now().await;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

async fn while_leading(running: &Running, directory: &Arc<dyn Directory>, grace: Duration) {
    let mut changed = directory.changed();
    let mut list: Option<(Option<Vec<Listed>>, Instant)> = None;
    while running.is_leader() {
        let silent = running.progress().values().any(|progress| progress.silent_for > Duration::from_secs(1));
        directory.urgent(silent);
        let age = if silent { LIST_EVERY_URGENT } else { LIST_EVERY };
        let fresh = list.as_ref().is_some_and(|(_, at)| at.elapsed() < age) && !changed.has_changed().unwrap_or(false);
        if !fresh {
            changed.mark_unchanged();
            list = Some((read(directory).await, Instant::now()));
        }
        let listed = list.as_ref().and_then(|(listed, _)| listed.as_deref());
        let situation = View::of(running);
        if let Some(change) = decide(&situation.situation(running, listed, grace)) {
            // What removes somebody, or gives a vote, is decided on a list that was read for it.
            if needs_fresh_list(&change) && list.as_ref().is_none_or(|(_, at)| at.elapsed() >= LOOK_EVERY) {
                list = None;
                continue;
            }
            if make(running, change).await {
                continue;
            }
        }
        tokio::select! {
            () = running.wake.notified() => {}
            // To wait for it is to have seen it: the list has to be forgotten here.
            Ok(()) = changed.changed() => list = None,
            () = sleep(LOOK_EVERY) => {}
        }
    }
    directory.urgent(false);
}

async fn read(directory: &Arc<dyn Directory>) -> Option<Vec<Listed>> {
    match directory.listed().await {
        Ok(listed) => Some(listed),
        Err(why) => {
            tracing::debug!(cause = %why, "peers cannot be listed; no member is removed");
            None
        }
    }
}

fn needs_fresh_list(change: &Change) -> bool {
    matches!(change, Change::SetVoters(_) | Change::RemoveLearner(_))
}

/// What the leader knows by itself, at one moment.
struct View {
    configuration: Configuration,
    presented: BTreeMap<PodUid, Presented>,
    progress: BTreeMap<crate::domain::ids::NodeId, Progress>,
    leaving: std::collections::BTreeSet<crate::domain::ids::NodeId>,
}

impl View {
    fn of(running: &Running) -> Self {
        let mut shown: Vec<_> = {
            let mut all = running.presented.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, presented| presented.at.elapsed() < PRESENTED_FOR);
            all.iter().map(|(node, presented)| (presented.at, *node, presented.member.clone())).collect()
        };
        // Of two that showed themselves in one pod the later one is there.
        shown.sort_by_key(|(at, node, _)| (*at, *node));
        let presented = shown.into_iter().map(|(_, node, member)| {
            let shown = Presented { node, address: member.address, bound_to_pod: member.bound_to_pod, joining: true };
            (member.pod, shown)
        });
        Self {
            presented: presented.collect(),
            configuration: running.configuration(),
            progress: running.progress(),
            leaving: running.leaving(),
        }
    }

    fn situation<'a>(&'a self, running: &Running, listed: Option<&'a [Listed]>, grace: Duration) -> Situation<'a> {
        Situation {
            me: running.identity.node,
            configuration: &self.configuration,
            listed,
            presented: &self.presented,
            progress: &self.progress,
            leaving: &self.leaving,
            grace,
        }
    }
}

/// Makes one change. False: not now.
async fn make(running: &Running, change: Change) -> bool {
    tracing::info!(?change, "changing the configuration");
    let members = match change {
        Change::FinishJoint(voters) | Change::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
        Change::AddLearner(node, member) => ChangeMembers::AddNodes([(node, member)].into()),
        Change::UpdateMember(node, member) => ChangeMembers::SetNodes([(node, member)].into()),
        Change::RemoveLearner(node) => ChangeMembers::RemoveNodes([node].into()),
    };
    match timeout(CHANGE_LIMIT, running.raft.change_membership(members, true)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::info!(%error, "the configuration could not be changed");
            false
        }
        Err(_) => {
            tracing::info!("the configuration could not be changed: a majority does not answer in time");
            false
        }
    }
}
