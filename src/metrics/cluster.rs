//! Replicas, their leader and their ledger, as this replica sees them.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::{Label, Maker, Maybe, Section, Values, ours, reference};
use super::{Metrics, raise, whole};

/// Addresses of peers that the page has room for. Whoever tells of peers keeps to it.
pub const MOST_PEERS: usize = 24;

const NODE: &[Label] = &[Label {
    name: "node",
    values: Values::Open("the peer's IP address; `other` beyond the first 24 in the life of a process"),
}];

const CLUSTER: &[Label] = &[
    Label { name: "cluster_id", values: Values::Open("the cluster's id, which all its members share") },
    Label { name: "epoch", values: Values::Open("how often it was formed anew by survivors") },
];

/// Cause of a refusal that is counted here, by gossip; all others are read from Raft's port.
const ANOTHER_CLUSTER: &str = "another_cluster";

const REFUSALS: &[Label] = &[Label {
    name: "cause",
    values: Values::Known(&[
        ("stranger", "no certificate of a peer: another secret, another installation, a scanner"),
        ("crowded_out", "too many connections at once"),
        ("bad_frame", "a frame that cannot be read: too large, another version, damaged"),
        ("misdirected", "a frame for another cluster, epoch or node; one or two are usual while a cluster forms"),
        ("not_member", "a frame of a node that is no member any more"),
        (ANOTHER_CLUSTER, "a peer behind our service belongs to another cluster; each greeting of it counts"),
    ]),
}];

/// See [`super::Sampled::raft`].
#[derive(Clone, Debug, Default)]
pub struct RaftSampled {
    /// The cluster.
    pub cluster: String,
    /// How often it was formed anew.
    pub epoch: u64,
    /// The term.
    pub term: u64,
    /// This replica leads.
    pub leads: bool,
    /// It knows of a leader that a majority answers.
    pub leader_known: bool,
    /// Who votes.
    pub voters: usize,
    /// Of these, who has answered lately, this replica included. Only the leader knows.
    pub reachable: Option<usize>,
    /// Everybody.
    pub members: usize,
    /// Committed entries that are not in the ledger here yet.
    pub lag: u64,
    /// Entries that the member furthest behind lacks. Only the leader knows.
    pub most_behind: Option<u64>,
    /// Entries of the ledger.
    pub entries: usize,
    /// Settled ones among them.
    pub tombstones: usize,
    /// As many as it may hold.
    pub capacity: usize,
}

/// See the module.
pub(super) struct ClusterMetrics {
    leads: IntGauge,
    leader_known: IntGauge,
    leader_changes: IntCounter,
    voters: IntGauge,
    reachable: Maybe,
    nodes: IntGauge,
    discovered: IntGauge,
    term: IntGauge,
    lag: IntGauge,
    most_behind: Maybe,
    entries: IntGauge,
    tombstones: IntGauge,
    capacity: IntGauge,
    info: IntGaugeVec,
    refused: IntCounterVec,
    gossip: [(&'static str, IntCounterVec); 4],
}

impl ClusterMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Cluster);
        Ok(Self {
            leads: make.gauge(ours("raft_leader", "1 while this replica leads; the leader delivers."))?,
            leader_known: make.gauge(ours(
                "raft_leader_known",
                "1 while this replica knows of a leader that a majority answers. 0 everywhere: nothing is delivered.",
            ))?,
            leader_changes: make.counter(reference(
                "raft_leader_changes_seen_total",
                "The total number of leader changes seen: how often this replica gained or lost the lead.",
            ))?,
            voters: make.gauge(ours("raft_voters", "Members that vote."))?,
            reachable: make.maybe(ours(
                "raft_voters_reachable",
                "Voters that have answered within the last second, the leader included; only the leader has it.",
            ))?,
            nodes: make.gauge(reference("raft_nodes_total", "The total number of raft nodes in the cluster."))?,
            discovered: make.gauge(reference(
                "kubernetes_discovered_nodes_total",
                "The total number of nodes discovered using the kubernetes endpoint. Set once, at the start.",
            ))?,
            term: make.gauge(ours("raft_term", "Raft's term: it grows with each election."))?,
            lag: make.gauge(ours("raft_lag_entries", "Committed entries that are not in the ledger here yet."))?,
            most_behind: make.maybe(ours(
                "raft_most_behind_entries",
                "Entries that the member furthest behind lacks; only the leader has it.",
            ))?,
            entries: make.gauge(ours("ledger_entries", "Entries of the ledger, tombstones included."))?,
            tombstones: make.gauge(ours(
                "ledger_tombstones",
                "Settled entries of the ledger that are still remembered, for ten minutes.",
            ))?,
            capacity: make.gauge(ours(
                "ledger_capacity_entries",
                "Entries that the ledger may hold. With as many unsettled ones nothing more is claimed.",
            ))?,
            info: make.gauges(ours("raft_cluster_info", "1, with the cluster that this replica is in.").by(CLUSTER))?,
            refused: make.counters(
                ours("peers_refused_total", "Handshakes and frames refused on the peers' ports, by cause.")
                    .by(REFUSALS),
            )?,
            gossip: [
                ("joined", gossip(make, JOINED)?),
                ("left", gossip(make, LEFT)?),
                ("failed", gossip(make, FAILED)?),
                ("reaped", gossip(make, REAPED)?),
            ],
        })
    }

    pub(super) fn observe(&self, raft: Option<&RaftSampled>, refused: &[(&'static str, u64)]) {
        for (cause, times) in refused {
            raise(&self.refused.with_label_values(&[cause]), *times);
        }
        self.leads.set(raft.is_some_and(|raft| raft.leads).into());
        self.leader_known.set(raft.is_some_and(|raft| raft.leader_known).into());
        self.reachable.set(raft.and_then(|raft| raft.reachable).map(|voters| whole(voters as u64)));
        self.most_behind.set(raft.and_then(|raft| raft.most_behind).map(whole));
        // It may be in another one than before, and is in none while it forms.
        self.info.reset();
        let Some(raft) = raft else { return };
        self.info.with_label_values(&[raft.cluster.as_str(), &raft.epoch.to_string()]).set(1);
        self.voters.set(whole(raft.voters as u64));
        self.nodes.set(whole(raft.members as u64));
        self.term.set(whole(raft.term));
        self.lag.set(whole(raft.lag));
        self.entries.set(whole(raft.entries as u64));
        self.tombstones.set(whole(raft.tombstones as u64));
        self.capacity.set(whole(raft.capacity as u64));
    }
}

const JOINED: (&str, &str) =
    ("gossip_nodes_joined_total", "The total number of times a node joined the cluster using gossip.");
const LEFT: (&str, &str) =
    ("gossip_nodes_left_total", "The total number of times a node left the cluster using gossip.");
const FAILED: (&str, &str) =
    ("gossip_nodes_failed_total", "The total number of times a node failed in the cluster using gossip.");
const REAPED: (&str, &str) =
    ("gossip_nodes_reaped_total", "The total number of times a node was reaped from the cluster using gossip.");

fn gossip(make: &mut Maker, (name, help): (&'static str, &'static str)) -> prometheus::Result<IntCounterVec> {
    make.counters(reference(name, help).by(NODE))
}

impl Metrics {
    /// Peers found at start.
    pub fn nodes_discovered(&self, nodes: usize) {
        self.cluster.discovered.set(whole(nodes as u64));
    }

    /// This replica has become, or stopped being, the leader.
    pub fn leadership_changed(&self) {
        self.cluster.leader_changes.inc();
    }

    /// A peer has come or gone, by the word of gossip: `event` is `joined`, `left`, `failed` or `reaped`. `node` is an
    /// address, out of a bounded number of them.
    pub fn gossip_changed(&self, event: &str, node: &str) {
        if let Some((_, counter)) = self.cluster.gossip.iter().find(|(name, _)| *name == event) {
            counter.with_label_values(&[node]).inc();
        }
    }

    /// A peer behind our service belongs to another cluster.
    pub fn another_cluster_met(&self) {
        self.cluster.refused.with_label_values(&[ANOTHER_CLUSTER]).inc();
    }
}
