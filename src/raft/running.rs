//! A node that takes part in a cluster: openraft, started on a store, and what is asked of it.
//!
//! Owns the configuration that openraft is given. Must never be started twice on one store, nor answer for a cluster
//! other than its marker's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::log_store::LogStore;
use super::proposals::{self, Proposals};
use super::pulse;
use super::rpc::client::{Link, Links};
use super::rpc::message::{Address, MemberRequest, MemberResponse, Request, Response};
use super::state_machine::{Machine, SharedLedger};
use super::types::{LogId, RaftMetrics, Runtime, StoredMembership, TypeConfig, term_of};
use crate::domain::ids::{ClusterId, Epoch, NodeId, Term};
use crate::domain::ledger::{Command, Reply};
use crate::domain::membership::{Configuration, Member, Progress};
use crate::domain::peers::{self, LogState, Standing};
use crate::seeded::{self, Bug};
use crate::store::{Batch, Family, Store};

/// Entries between two snapshots, at least. An entry of a delivery is some 250 bytes: 2 MiB of log, replayed in
/// milliseconds. A large ledger waits for more ([`super::state_machine`]).
const SNAPSHOT_EVERY: u64 = 8_192;

/// Entries that are kept behind a snapshot, for members that were away for a moment.
const KEEP_BEHIND: u64 = 1_024;

/// Entries that are removed at once, at least.
const PURGE_BATCH: u64 = 256;

/// Entries in one message to a member.
const MAX_PAYLOAD: u64 = 512;

/// A snapshot of a full ledger takes seconds to send.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);

/// A member that lacks fewer entries than this has caught up: a burst is that far ahead of everybody.
const CAUGHT_UP: u64 = 1_024;

/// That this node is or was a voter.
const VOTER: &[u8] = b"voter";

/// A leader that nothing is heard of for this many leases does not lead any more, whether or not another one could be
/// elected: heartbeats come several times in each.
const SILENT_LEASES: u32 = 4;

/// One message to the leader and back.
const FORWARD_LIMIT: Duration = Duration::from_secs(1);

/// How fast Raft is. The election timeout's upper end is also the lease of a leader.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A follower that hears nothing waits for the lease and for something between these two.
    pub election_min: Duration,
    /// See there.
    pub election_max: Duration,
}

/// Who this node is, in which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The node.
    pub(super) node: NodeId,
    /// The cluster.
    pub(super) cluster: ClusterId,
    /// How often it was formed anew.
    pub(super) epoch: Epoch,
}

/// See the module.
pub(super) struct Running {
    pub(super) raft: Raft<TypeConfig, Machine>,
    pub(super) ledger: SharedLedger,
    pub(super) identity: Identity,
    pub(super) links: Links,
    /// Whoever presented itself to us, and where it says it is. Read by the leader's reconciliation.
    pub(super) presented: Mutex<HashMap<NodeId, Presented>>,
    /// Bumped when there may be something to reconcile.
    pub(super) wake: Notify,
    /// The marker says that we belong to this cluster. Until then our configuration is nobody's but our own.
    pub(super) belongs: AtomicBool,
    /// We are, or were, a voter: our log may hold what no other one does.
    pub(super) ever_voter: AtomicBool,
    /// We are on our way out: nobody is to take us up again.
    pub(super) departs: AtomicBool,
    /// Who spoke to us as the leader last, and when.
    heard: Mutex<Option<(NodeId, Instant)>>,
    proposals: Proposals,
    lease: Duration,
}

/// A node that has presented itself.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) member: Member,
    pub(super) at: Instant,
    /// It is about to go.
    pub(super) leaving: bool,
}

impl Running {
    /// Starts openraft on `store`.
    ///
    /// # Errors
    /// What `store` holds cannot be used, with the place.
    pub(super) async fn start(store: Store, links: Links, timings: Timings, belongs: bool) -> io::Result<Arc<Self>> {
        let ever_voter = store.get(Family::Meta, VOTER).map_err(io::Error::other)?.is_some();
        let identity = Identity { node: links.node, cluster: links.cluster, epoch: links.epoch };
        let config = config(identity, timings).validate().map_err(io::Error::other)?;
        let (machine, ledger) = Machine::load(store.clone())?;
        let log = LogStore::new(store);
        log.drop_after_gap().await?;
        let raft = Raft::new(identity.node, Arc::new(config), links.clone(), log, machine);
        let raft = raft.await.map_err(io::Error::other)?;
        // `pulse` sends them.
        raft.runtime_config().heartbeat(false);
        Ok(Arc::new(Self {
            raft,
            ledger,
            identity,
            links,
            presented: Mutex::default(),
            wake: Notify::new(),
            belongs: AtomicBool::new(belongs),
            ever_voter: AtomicBool::new(ever_voter),
            departs: AtomicBool::new(false),
            heard: Mutex::default(),
            proposals: Proposals::new(),
            // A tenth less than followers wait: clocks of two machines do not run equally fast.
            lease: timings.election_max * 9 / 10,
        }))
    }

    /// What can be seen of Raft now.
    pub(super) fn metrics(&self) -> RaftMetrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// The term in which this node leads.
    pub(super) fn leads_in(&self) -> Option<Term> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(Term(metrics.current_term))
    }

    pub(super) fn is_leader(&self) -> bool {
        self.leads_in().is_some()
    }

    /// Whether this node leads in `term`, and no other node can have been elected yet.
    pub(super) fn holds_lease(&self, term: Term) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.current_term != term.0 {
            return false;
        }
        let membership = metrics.membership_config.membership();
        let alone = membership.voter_ids().all(|voter| voter == self.identity.node);
        alone || metrics.last_quorum_acked.is_some_and(|acked| acked.into_inner().elapsed() < self.lease)
    }

    /// Who leads, and where that one is: a leader that still speaks, or that a majority still answers. openraft goes on
    /// to name one that is gone, for as long as no majority has elected another.
    pub(super) fn leader(&self) -> Option<(NodeId, IpAddr)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let membership = metrics.membership_config.membership();
        let member = membership.get_node(&leader)?;
        let speaks = |since: Duration| since < self.lease * SILENT_LEASES;
        let leads = if leader == self.identity.node {
            let alone = membership.voter_ids().all(|voter| voter == leader);
            alone || metrics.last_quorum_acked.is_some_and(|acked| speaks(acked.into_inner().elapsed()))
        } else {
            self.heard_from(leader).is_some_and(|at| speaks(at.elapsed()))
        };
        leads.then_some((leader, member.address))
    }

    /// `source` has spoken to us as a leader does.
    pub(super) fn hears(&self, source: NodeId) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((source, Instant::now()));
    }

    /// When the leader that openraft goes by has spoken to us last.
    pub(super) fn heard_leader(&self) -> Option<Instant> {
        let leader = self.raft.metrics().borrow_watched().current_leader?;
        self.heard_from(leader)
    }

    /// When `leader` has spoken to us last, if nobody else has since.
    fn heard_from(&self, leader: NodeId) -> Option<Instant> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.filter(|(node, _)| *node == leader).map(|(_, at)| at)
    }

    /// Commits `command` here, as the leader.
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, String> {
        self.proposals.propose(command).await
    }

    /// Hands proposals to Raft.
    pub(super) async fn commits(&self) -> Infallible {
        self.proposals.always(|together| proposals::commit(&self.raft, together)).await
    }

    /// Has a fact committed by whoever leads.
    pub(super) async fn forward(&self, command: Command) -> Result<Reply, String> {
        let response = self.ask_leader(MemberRequest::Forward(command)).await?;
        match response {
            MemberResponse::Applied(reply) => Ok(reply),
            _ => Err("the leader has changed".into()),
        }
    }

    /// Asks whoever leads.
    pub(super) async fn ask_leader(&self, request: MemberRequest) -> Result<MemberResponse, String> {
        let (leader, address) = self.leader().ok_or("no leader is known")?;
        self.ask(leader, address, request).await
    }

    /// Asks a node of this cluster.
    pub(super) async fn ask(
        &self,
        target: NodeId,
        address: IpAddr,
        request: MemberRequest,
    ) -> Result<MemberResponse, String> {
        let Identity { node, cluster, epoch } = self.identity;
        let address = SocketAddr::new(address, self.links.port);
        let request = Request::Member(Address { cluster, epoch, source: node, target }, request);
        let mut link = Link::new(self.links.network.clone(), address);
        match link.call(&request, FORWARD_LIMIT).await {
            Ok(Response::Member(response)) => Ok(response),
            Ok(Response::Unable(why)) => Err(why),
            Ok(_) => Err(format!("{address} is not node {target} of this cluster any more")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The term of the newest entry that is applied here.
    pub(super) fn applied_term(&self) -> Option<Term> {
        self.ledger.read(|applied| applied.log_id.as_ref().map(term_of))
    }

    /// What we are to our cluster, and how far our log goes: for our answers to probes.
    pub(super) fn standing(&self) -> (Standing, Option<LogState>) {
        let Identity { node, cluster, epoch } = self.identity;
        let ever_voter = self.ever_voter.load(Ordering::Relaxed);
        let metrics = self.metrics();
        let last = self.raft.data_metrics().borrow_watched().last_log;
        let position = |log_id: &LogId| peers::LogId { term: term_of(log_id), index: log_id.index() };
        let log = last
            .as_ref()
            .zip(metrics.membership_config.log_id().as_ref())
            .map(|(last, configuration)| LogState { last: position(last), configuration: position(configuration) });
        let committed = metrics.committed_membership_config.membership().get_node(&node).is_some();
        let standing = match (self.belongs.load(Ordering::Relaxed), committed) {
            (false, _) => Standing::Initialising,
            (true, true) => Standing::Member { cluster, epoch, ever_voter, leader: self.leader().is_some() },
            (true, false) => Standing::Remembers { cluster, epoch, ever_voter },
        };
        (standing, log)
    }

    /// The newest configuration here, committed or not.
    pub(super) fn configuration(&self) -> Configuration {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let halves = membership.get_joint_config();
        Configuration {
            members: membership.nodes().map(|(node, member)| (*node, member.clone())).collect(),
            voters: halves.last().cloned().unwrap_or_default(),
            outgoing: (halves.len() > 1).then(|| halves[0].clone()),
        }
    }

    /// How the others follow, as the leader knows it.
    pub(super) fn progress(&self) -> BTreeMap<NodeId, Progress> {
        let metrics = self.metrics();
        let (Some(matched), Some(acked)) = (&metrics.replication, &metrics.heartbeat) else { return BTreeMap::new() };
        let last = metrics.last_log_index.unwrap_or(0);
        let progress = |(node, matched): (&NodeId, &Option<LogId>)| {
            let silent_for = acked.get(node).copied().flatten().map_or(Duration::MAX, |at| at.into_inner().elapsed());
            let caught_up = matched.as_ref().is_some_and(|matched| matched.index() + CAUGHT_UP >= last);
            (*node, Progress { caught_up, silent_for })
        };
        matched.iter().map(progress).collect()
    }

    /// Notes where members are.
    pub(super) fn note_places(&self, configuration: &StoredMembership) {
        let membership = configuration.membership();
        self.links.places.keep(|node| membership.get_node(&node).is_some());
        membership.nodes().for_each(|(node, member)| self.links.places.note(*node, member.address));
    }

    /// Who has asked to leave.
    pub(super) fn leaving(&self) -> BTreeSet<NodeId> {
        let presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
        presented.iter().filter(|(_, presented)| presented.leaving).map(|(node, _)| *node).collect()
    }

    /// Notes in the store that this node votes, before its first vote can matter.
    pub(super) async fn remember_voter(&self, store: &Store) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.put(Family::Meta, VOTER, Vec::new());
        store.commit(batch).await.map_err(io::Error::other)?;
        self.ever_voter.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops openraft. Nothing is written to the store afterwards.
    pub(super) async fn stop(&self) {
        self.proposals.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop in order");
        }
    }
}

/// Runs `task` with random numbers from `seed`: openraft draws its election timeouts from it. Whatever starts a task
/// of openraft's has to run inside.
pub(super) fn seeded<F: Future>(seed: u64, task: F) -> impl Future<Output = F::Output> {
    Runtime::scope(seed, task)
}

fn config(identity: Identity, timings: Timings) -> Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: identity.cluster.to_string(),
        heartbeat_interval: pulse::told_to_openraft(millis(timings.election_min)),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_LIMIT),
        max_payload_entries: MAX_PAYLOAD,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND,
        // One range is removed at a time: many small ones slow the store's reads.
        purge_batch_size: PURGE_BATCH,
        // A node that was cut off does not disturb the others when it comes back.
        enable_pre_vote: Some(true),
        // A restarted leader has to be elected again: what is committed is known only then.
        // SEEDED BUG, where it is on.
        enable_leader_restore: Some(seeded::on(Bug::LeaderRestored)),
        ..Config::default()
    }
}
