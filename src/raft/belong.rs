//! Belonging: a node shows itself to its leader, and finds out what has become of its cluster when there is none.
//!
//! Owns the one serial task that runs rounds while Raft runs. Decides nothing: `domain::bootstrap` and
//! `domain::quorum` do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::ports::Directory;
use super::rounds::{Found, Rounds};
use super::rpc::message::{MemberRequest, MemberResponse};
use super::running::Running;
use crate::domain::bootstrap::Decision;
use crate::domain::ids::{Epoch, NodeId, PodUid};
use crate::domain::membership::Member;
use crate::domain::peers::{Heard, Listed, Standing};
use crate::domain::quorum::{self, Recovery, Verdict};

/// A member shows itself to the leader this often: a third of the time for which the leader remembers it.
const PRESENT_EVERY: Duration = Duration::from_secs(10);

/// A node that is to be taken up, or whose address the leader may not know, shows itself this often.
const PRESENT_EVERY_URGENT: Duration = Duration::from_millis(500);

/// Elections take half a second. Who has no leader for longer asks around.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Rounds while there is no leader.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// How taking part in a cluster ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What this node remembers is no more: it begins as a new one.
    StartOver,
    /// This node is the survivor that forms the cluster anew.
    Reform,
}

/// What `kubernetes-vault recover` asks of this task.
pub(super) struct RecoverRequest {
    /// Do it; otherwise only look.
    pub(super) act: bool,
    /// What was found; an error: the peers could not be listed.
    pub(super) answer: oneshot::Sender<Result<Recovery, String>>,
}

/// See the module.
pub(super) struct Belonging {
    pub(super) running: Arc<Running>,
    pub(super) rounds: Rounds,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) uid: PodUid,
    pub(super) bound_to_pod: bool,
    /// As a fresh list shows it.
    pub(super) myself: Option<Member>,
}

impl Belonging {
    /// Runs until there is an end that this node comes to by itself.
    pub(super) async fn run(mut self, recoveries: &mut mpsc::Receiver<RecoverRequest>) -> End {
        let mut changed = self.directory.changed();
        let mut metrics = self.running.raft.server_metrics();
        let mut leaderless_since: Option<Instant> = None;
        let mut leader_seen = None;
        loop {
            if self.myself.is_none() || changed.has_changed().unwrap_or(false) {
                changed.mark_unchanged();
                self.look_at_myself().await;
            }
            let leader = self.running.leader().map(|(node, _)| node);
            let mut wait = PRESENT_EVERY_URGENT;
            if leader.is_some() {
                leaderless_since = None;
                if self.show_to_leader().await && self.is_taken_up() {
                    wait = PRESENT_EVERY;
                }
            } else if leaderless_since.get_or_insert_with(Instant::now).elapsed() >= LOST_AFTER {
                if let Some(end) = self.ask_around().await {
                    return end;
                }
                wait = ROUND_EVERY;
            }
            leader_seen = leader.or(leader_seen);
            let until = Instant::now() + wait;
            loop {
                tokio::select! {
                    () = sleep(until.saturating_duration_since(Instant::now())) => break,
                    Ok(()) = changed.changed() => { changed.mark_changed(); break; }
                    // Only another leader is news.
                    seen = metrics.changed() => {
                        let leader = self.running.leader().map(|(node, _)| node);
                        let news = leader.is_some() && leader != leader_seen;
                        if news || seen.is_err() { break; }
                    }
                    Some(request) = recoveries.recv() => {
                        if let Some(end) = self.recover(request).await { return end; }
                        break;
                    }
                }
            }
        }
    }

    /// Where we are, by a fresh list.
    async fn look_at_myself(&mut self) {
        if let Ok(listed) = self.directory.listed().await {
            self.note_myself(&listed);
        }
    }

    fn note_myself(&mut self, listed: &[Listed]) {
        if let Some(mine) = listed.iter().find(|peer| peer.uid == self.uid) {
            let (address, pod) = (mine.address, mine.uid.clone());
            self.myself = Some(Member { address, pod, bound_to_pod: self.bound_to_pod });
        }
    }

    /// Whether the configuration has us as we are.
    fn is_taken_up(&self) -> bool {
        let metrics = self.running.metrics();
        let known = metrics.committed_membership_config.membership().get_node(&self.running.identity.node).cloned();
        known.is_some() && known == self.myself
    }

    /// Whether the leader has heard.
    async fn show_to_leader(&self) -> bool {
        if self.running.departs.load(Ordering::Relaxed) {
            return true;
        }
        let Some(member) = self.myself.clone() else { return false };
        if self.running.is_leader() {
            self.running.present(self.running.identity.node, member);
            return true;
        }
        self.running
            .ask_leader(MemberRequest::Present(member))
            .await
            .is_ok_and(|response| matches!(response, MemberResponse::Done))
    }

    /// No leader: what do the others say?
    async fn ask_around(&mut self) -> Option<End> {
        self.directory.urgent(true);
        let found = self.rounds.run().await?;
        self.note_myself(&found.listed);
        match &found.ruling.decision {
            Decision::StartOver { cluster } => {
                tracing::warn!(%cluster, "no voter of the remembered cluster is left: beginning as a new node");
                return Some(End::StartOver);
            }
            Decision::Join { epoch, .. } if *epoch > self.running.identity.epoch => {
                tracing::warn!("the cluster was formed anew without this node: joining it as a new one");
                return Some(End::StartOver);
            }
            _ => {}
        }
        if self.show_to_whoever_knows(&found).await {
            return None;
        }
        match self.verdict(&found)? {
            Verdict::Reform(Epoch(epoch)) => {
                tracing::warn!(epoch, "every other voter is gone with its storage: forming the cluster anew");
                Some(End::Reform)
            }
            Verdict::Blocked(missing) => {
                for what in missing {
                    tracing::info!("a majority of voters is lost, and this cluster cannot heal by itself yet: {what}");
                }
                None
            }
            Verdict::Alive | Verdict::Follow { .. } => None,
        }
    }

    /// Shows us to members of our cluster that know a leader: they may have removed us, and forgotten.
    async fn show_to_whoever_knows(&self, found: &Found) -> bool {
        if self.running.departs.load(Ordering::Relaxed) {
            return false;
        }
        let Some(member) = &self.myself else { return false };
        let mine = (self.running.identity.cluster, self.running.identity.epoch);
        for (uid, heard) in &found.heard {
            let Heard::Answer(answer) = heard else { continue };
            let knows = matches!(answer.standing, Standing::Member { leader: true, .. });
            let Some(peer) = found.listed.iter().find(|peer| peer.uid == *uid) else { continue };
            if knows && answer.standing.cluster() == Some(mine) && self.show_to(answer.node, peer, member).await {
                return true;
            }
        }
        false
    }

    async fn show_to(&self, node: NodeId, peer: &Listed, member: &Member) -> bool {
        let request = || MemberRequest::Present(member.clone());
        match self.running.ask(node, peer.address, request()).await {
            Ok(MemberResponse::Done) => true,
            Ok(MemberResponse::NotLeader(Some((leader, address)))) => {
                matches!(self.running.ask(leader, address, request()).await, Ok(MemberResponse::Done))
            }
            _ => false,
        }
    }

    fn verdict(&self, found: &Found) -> Option<Verdict> {
        self.with_quorum_round(found, quorum::decide)
    }

    fn with_quorum_round<R>(&self, found: &Found, f: impl FnOnce(&quorum::Round<'_>) -> R) -> Option<R> {
        let identity = self.running.identity;
        let (_, log) = self.running.standing();
        let configuration = self.running.configuration();
        Some(f(&quorum::Round {
            node: identity.node,
            uid: &self.uid,
            cluster: identity.cluster,
            epoch: identity.epoch,
            log: log?,
            leader: self.running.leader().is_some(),
            configuration: &configuration,
            listed: Some(&found.listed),
            heard: &found.heard,
        }))
    }

    /// Looks, and does it if it was asked to and nothing forbids it.
    async fn recover(&mut self, request: RecoverRequest) -> Option<End> {
        let found = self.rounds.run().await;
        let recovery = match found.as_ref() {
            Some(found) => self.with_quorum_round(found, quorum::recover).ok_or("this node has no log".to_owned()),
            None => Err("the peers cannot be listed".to_owned()),
        };
        let act = request.act && recovery.as_ref().is_ok_and(|recovery| recovery.outcome.is_ok());
        // Who asked may have gone; what was asked for is done all the same.
        let _ = request.answer.send(recovery);
        if act {
            tracing::warn!("forming the cluster anew, as an operator has asked");
        }
        act.then_some(End::Reform)
    }
}

/// Notes whether this node votes and where the others are, and notices when Raft dies. Returns why it did.
pub(super) async fn watch_raft(running: Arc<Running>, store: crate::store::Store) -> String {
    // Heartbeats do not change these; the whole metrics change with each tick.
    let mut metrics = running.raft.server_metrics();
    let mut noted = None;
    loop {
        let votes = {
            let seen = metrics.borrow_watched();
            let membership = seen.membership_config.membership();
            if *seen.membership_config.log_id() != noted {
                running.note_places(&seen.membership_config);
                noted = *seen.membership_config.log_id();
            }
            membership.voter_ids().any(|voter| voter == running.identity.node)
        };
        if votes
            && !running.ever_voter.load(Ordering::Relaxed)
            && let Err(error) = running.remember_voter(&store).await
        {
            return error.to_string();
        }
        if metrics.changed().await.is_err() {
            let end = running.metrics().running_state;
            return end.err().map_or_else(|| "Raft has stopped".to_owned(), |fatal| fatal.to_string());
        }
    }
}
