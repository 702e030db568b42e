//! The metrics, under the reference's names and ours.
//!
//! A leaf: it knows prometheus, and of ours only what it counts. A role becomes a label only once Vault has issued
//! for it, so that no pod author can make labels at will.

mod tls;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::tls::TlsMetrics;
pub use self::tls::TlsUse;
use crate::deliver::ports::{Incident, Meter, Neutralised};
use crate::domain::delivery::{Answer, Meaning, VaultTrouble};
use crate::domain::ids::RoleName;
use crate::domain::limits::Limit;

/// Most roles that are labels: Vault has issued for each, and this many series are no burden to a scraper.
const MAX_ROLE_LABELS: usize = 1_000;

/// Label of a role for which Vault has not issued yet, or which came after [`MAX_ROLE_LABELS`].
const UNKNOWN_ROLE: &str = "unknown";

/// Upper bounds of the delivery histogram, in seconds: from a delivery that finds everything warm to the default
/// TIMEOUT of an init container.
const DELIVERY_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// Cause of a refusal that is counted here, by gossip; all others are read from Raft's port.
const ANOTHER_CLUSTER: &str = "another_cluster";

/// What a delivery may have to wait for: the values of the label `limit`.
const LIMITS: [&str; 5] = ["in_flight", "vault", "role", "namespace", "pod"];

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    discovered_nodes: IntGauge,
    secret_id_requests: IntCounterVec,
    secret_id_failures: IntCounterVec,
    token_renewals: IntCounter,
    token_renewal_failures: IntCounter,
    leader_changes: IntCounter,
    raft_nodes: IntGauge,
    pushes: IntCounterVec,
    push_failures: IntCounterVec,
    delivery: Histogram,
    queued: IntGauge,
    in_flight: IntGauge,
    push_outcomes: IntCounterVec,
    vault_troubles: IntCounterVec,
    incidents: IntCounterVec,
    neutralised: IntCounterVec,
    token_ttl: IntGauge,
    vault_usable: IntGauge,
    tls: TlsMetrics,
    limited: IntCounterVec,
    raft: RaftGauges,
    refused: IntGaugeVec,
    gossip: [(&'static str, IntCounterVec); 4],
    watch_restarts: IntGauge,
    undecodable_pods: IntGauge,
    events_dropped: IntGauge,
    accepted_roles: Mutex<BTreeSet<RoleName>>,
}

/// Registers what it makes; the names below are constants, so that a failure is a mistake in this file.
struct Maker {
    registry: Registry,
}

impl Maker {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(format!("kubernetesvault_{name}"), help))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(format!("kubernetesvault_{name}"), help), &[label]))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(format!("kubernetesvault_{name}"), help))
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two metrics have one name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker { registry: registry.clone() };
        make.build_info()?;
        let metrics = Self {
            discovered_nodes: make.gauge(
                "kubernetes_discovered_nodes_total",
                "The total number of nodes discovered using the kubernetes endpoint.",
            )?,
            secret_id_requests: make.counters(
                "vault_secret_id_requests_total",
                "The total number of requests for an approle's secret_id.",
                "approle",
            )?,
            secret_id_failures: make.counters(
                "vault_secret_id_requests_failures_total",
                "The total number of requests for an approle's secret_id that failed.",
                "approle",
            )?,
            token_renewals: make.counter(
                "vault_token_renewal_requests_total",
                "The total number of requests to renew the auth token for kubernetes-vault.",
            )?,
            token_renewal_failures: make.counter(
                "vault_token_renewal_request_failures_total",
                "The total number of requests to renew the auth token for kubernetes-vault that failed.",
            )?,
            leader_changes: make
                .counter("raft_leader_changes_seen_total", "The total number of leader changes seen.")?,
            raft_nodes: make.gauge("raft_nodes_total", "The total number of raft nodes in the cluster.")?,
            pushes: make.counters("server_secret_pushes_total", "The total number of secrets pushed.", "approle")?,
            push_failures: make.counters(
                "server_secret_push_failures_total",
                "The total number of secret pushes that failed.",
                "approle",
            )?,
            delivery: make.add(Histogram::with_opts(
                HistogramOpts::new(
                    "kubernetesvault_delivery_seconds",
                    "From the init container's start to its answer that it has its secret_id.",
                )
                .buckets(DELIVERY_BUCKETS.to_vec()),
            ))?,
            queued: make.gauge("queue_pods", "Pods that are due and wait for a free worker.")?,
            in_flight: make.gauge("in_flight_pods", "Pods that a worker is busy with.")?,
            push_outcomes: make.counters("push_outcomes_total", "Pushes by how they ended.", "outcome")?,
            vault_troubles: make.counters(
                "vault_secret_id_failures_total",
                "Requests for a secret_id that failed, by cause.",
                "cause",
            )?,
            incidents: make.counters("incidents_total", "What an operator should know of, by kind.", "kind")?,
            neutralised: make.counters(
                "secret_ids_neutralised_total",
                "secret_ids that were refused or never sent, by how they were put out of the world.",
                "how",
            )?,
            token_ttl: make.gauge(
                "vault_token_expiry_timestamp_seconds",
                "When the controller's Vault token expires, Unix time.",
            )?,
            vault_usable: make.gauge(
                "vault_usable",
                "1 while the controller is logged in to Vault and its token passes the checks.",
            )?,
            tls: TlsMetrics::new(&make)?,
            limited: make.counters("limited_total", "Deliveries that had to wait for a limit, by limit.", "limit")?,
            raft: RaftGauges::new(&make)?,
            refused: make.add(IntGaugeVec::new(
                Opts::new(
                    "kubernetesvault_peers_refused",
                    "Handshakes and frames refused on the peers' ports since the start, by cause.",
                ),
                &["cause"],
            ))?,
            gossip: make.gossip()?,
            watch_restarts: make.gauge("watch_restarts", "How often the watch on pods had to be started anew.")?,
            undecodable_pods: make.gauge("watch_undecodable_pods", "Pods that the watch could not decode.")?,
            events_dropped: make.gauge("events_dropped", "Kubernetes Events that were not written.")?,
            accepted_roles: Mutex::new(BTreeSet::new()),
            registry,
        };
        metrics.zero_bounded_labels();
        Ok(metrics)
    }

    /// The page that `/metrics` serves.
    pub fn render(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "metrics could not be written");
        }
        page
    }

    /// Peers found at start.
    pub fn nodes_discovered(&self, nodes: usize) {
        self.discovered_nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
    }

    /// This replica has become, or stopped being, the leader.
    pub fn leadership_changed(&self) {
        self.leader_changes.inc();
    }

    /// Members of the Raft cluster.
    pub fn raft_members(&self, members: usize) {
        self.raft_nodes.set(i64::try_from(members).unwrap_or(i64::MAX));
    }

    /// A peer has come or gone, by the word of gossip: `event` is `joined`, `left`, `failed` or `reaped`.
    pub fn gossip_changed(&self, event: &str, node: &str) {
        if let Some((_, counter)) = self.gossip.iter().find(|(name, _)| *name == event) {
            counter.with_label_values(&[node]).inc();
        }
    }

    /// A peer behind our service belongs to another cluster.
    pub fn another_cluster_met(&self) {
        self.refused.with_label_values(&[ANOTHER_CLUSTER]).inc();
    }

    /// Our Vault token was renewed, or could not be.
    pub fn token_renewed(&self, failed: bool) {
        self.token_renewals.inc();
        if failed {
            self.token_renewal_failures.inc();
        }
    }

    /// When our Vault token expires (Unix seconds; 0 while there is none).
    pub fn token_expires(&self, unix_seconds: i64) {
        self.token_ttl.set(unix_seconds);
    }

    /// Whether we can ask Vault for secret_ids.
    pub fn vault_usable(&self, usable: bool) {
        self.vault_usable.set(usable.into());
    }

    /// A delivery had to wait for `limit`: `in_flight`, `vault`, `role`, `namespace` or `pod`.
    pub fn limited(&self, limit: &'static str) {
        debug_assert!(LIMITS.contains(&limit), "{limit} is no limit that is documented");
        self.limited.with_label_values(&[limit]).inc();
    }

    /// What is read from elsewhere each time the page is made.
    pub fn observe(&self, sampled: &Sampled) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for (cause, times) in sampled.refused {
            set(&self.refused.with_label_values(&[cause]), times);
        }
        if let Some(raft) = &sampled.raft {
            self.raft.set(raft);
            self.raft_members(raft.members);
        }
        set(&self.watch_restarts, sampled.watch_restarts);
        set(&self.undecodable_pods, sampled.undecodable_pods);
        set(&self.events_dropped, sampled.events_dropped);
    }

    fn label<'a>(&self, role: &'a RoleName, accepted_now: bool) -> &'a str {
        let mut known = self.accepted_roles.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(role) {
            return role.as_str();
        }
        if accepted_now && known.len() < MAX_ROLE_LABELS {
            known.insert(role.clone());
            return role.as_str();
        }
        UNKNOWN_ROLE
    }

    /// A series that exists from the start can be alerted on before its first event.
    fn zero_bounded_labels(&self) {
        for incident in Incident::ALL {
            self.incidents.with_label_values(&[incident.label()]);
        }
        for how in [Neutralised::Destroyed, Neutralised::Unwrapped, Neutralised::LeftToExpire] {
            self.neutralised.with_label_values(&[how_label(how)]);
        }
        for limit in LIMITS {
            self.limited.with_label_values(&[limit]);
        }
        self.refused.with_label_values(&[ANOTHER_CLUSTER]);
    }
}

impl Maker {
    fn gossip(&self) -> prometheus::Result<[(&'static str, IntCounterVec); 4]> {
        let counter = |event: &'static str, what: &str| {
            let help = format!("The total number of times a node {what} the cluster using gossip.");
            Ok::<_, prometheus::Error>((event, self.counters(&format!("gossip_nodes_{event}_total"), &help, "node")?))
        };
        Ok([
            counter("joined", "joined")?,
            counter("left", "left")?,
            counter("failed", "failed in")?,
            counter("reaped", "was reaped from")?,
        ])
    }

    fn build_info(&self) -> prometheus::Result<()> {
        let opts = Opts::new("kubernetesvault_build_info", "1, with the version as a label.");
        let info = self.add(IntGaugeVec::new(opts, &["version"]))?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(())
    }
}

/// See [`Metrics::observe`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampled {
    /// This replica's part in the cluster, once it takes one.
    pub raft: Option<RaftSampled>,
    /// What was refused on the peers' port, by cause.
    pub refused: [(&'static str, u64); 5],
    /// Restarts of the watch.
    pub watch_restarts: u64,
    /// Pods that could not be decoded.
    pub undecodable_pods: u64,
    /// Events that were not written.
    pub events_dropped: u64,
}

/// See [`Sampled::raft`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RaftSampled {
    /// The term.
    pub term: u64,
    /// This replica leads.
    pub leads: bool,
    /// Who votes.
    pub voters: usize,
    /// Everybody.
    pub members: usize,
    /// Committed entries that are not in the ledger here yet.
    pub lag: u64,
    /// Entries that the member furthest behind lacks; 0 where this replica does not lead.
    pub most_behind: u64,
    /// Entries of the ledger.
    pub entries: usize,
    /// Settled ones among them.
    pub tombstones: usize,
}

/// What is shown of Raft and of the ledger.
struct RaftGauges {
    term: IntGauge,
    leads: IntGauge,
    voters: IntGauge,
    lag: IntGauge,
    most_behind: IntGauge,
    entries: IntGauge,
    tombstones: IntGauge,
}

impl RaftGauges {
    fn new(make: &Maker) -> prometheus::Result<Self> {
        Ok(Self {
            term: make.gauge("raft_term", "Raft's term.")?,
            leads: make.gauge("raft_leader", "1 while this replica leads.")?,
            voters: make.gauge("raft_voters", "Members that vote.")?,
            lag: make.gauge("raft_lag_entries", "Committed entries that are not in the ledger here yet.")?,
            most_behind: make.gauge(
                "raft_most_behind_entries",
                "Entries that the member furthest behind lacks; the leader knows.",
            )?,
            entries: make.gauge("ledger_entries", "Entries of the ledger, tombstones included.")?,
            tombstones: make.gauge("ledger_tombstones", "Settled entries of the ledger that are still remembered.")?,
        })
    }

    fn set(&self, seen: &RaftSampled) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.term, seen.term);
        set(&self.leads, seen.leads.into());
        set(&self.voters, seen.voters as u64);
        set(&self.lag, seen.lag);
        set(&self.most_behind, seen.most_behind);
        set(&self.entries, seen.entries as u64);
        set(&self.tombstones, seen.tombstones as u64);
    }
}

fn how_label(how: Neutralised) -> &'static str {
    match how {
        Neutralised::Destroyed => "destroyed",
        Neutralised::Unwrapped => "unwrapped",
        Neutralised::LeftToExpire => "left_to_expire",
    }
}

impl Meter for Metrics {
    fn secret_id_requested(&self, role: &RoleName, trouble: Option<&VaultTrouble>) {
        let label = self.label(role, trouble.is_none());
        self.secret_id_requests.with_label_values(&[label]).inc();
        if let Some(trouble) = trouble {
            self.secret_id_failures.with_label_values(&[label]).inc();
            self.vault_troubles.with_label_values(&[trouble.label()]).inc();
        }
    }

    fn pushed(&self, role: &RoleName, answer: &Answer) {
        let label = self.label(role, false);
        self.pushes.with_label_values(&[label]).inc();
        self.push_outcomes.with_label_values(&[answer.label()]).inc();
        if answer.meaning() != Meaning::Accepted {
            self.push_failures.with_label_values(&[label]).inc();
        }
    }

    fn delivered(&self, after: Duration) {
        self.delivery.observe(after.as_secs_f64());
    }

    fn happened(&self, what: Incident, times: u64) {
        self.incidents.with_label_values(&[what.label()]).inc_by(times);
    }

    fn neutralised(&self, how: Neutralised) {
        self.neutralised.with_label_values(&[how_label(how)]).inc();
    }

    fn limited(&self, limit: Limit) {
        Self::limited(self, limit.label());
    }

    fn load(&self, queued: usize, in_flight: usize) {
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Bad-input table: unknown role, no new metric label.
    #[test]
    fn a_role_is_a_label_only_once_vault_has_accepted_it() {
        let metrics = Metrics::new().unwrap();
        let role = RoleName::parse("made-up").unwrap();
        metrics.secret_id_requested(&role, Some(&VaultTrouble::UnknownRole));
        assert!(!page(&metrics).contains("made-up"));
        assert!(page(&metrics).contains(r#"kubernetesvault_vault_secret_id_requests_total{approle="unknown"} 1"#));
        metrics.secret_id_requested(&role, None);
        assert!(page(&metrics).contains(r#"kubernetesvault_vault_secret_id_requests_total{approle="made-up"} 1"#));
    }

    #[test]
    fn a_limit_that_nobody_waited_for_is_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.limited("role");
        for (limit, times) in [("in_flight", 0), ("vault", 0), ("role", 1), ("namespace", 0), ("pod", 0)] {
            assert!(page(&metrics).contains(&format!("kubernetesvault_limited_total{{limit=\"{limit}\"}} {times}\n")));
        }
    }

    #[test]
    fn the_number_of_role_labels_is_bounded() {
        let metrics = Metrics::new().unwrap();
        for n in 0..MAX_ROLE_LABELS + 5 {
            metrics.secret_id_requested(&RoleName::parse(&format!("role-{n}")).unwrap(), None);
        }
        let lines =
            page(&metrics).lines().filter(|l| l.starts_with("kubernetesvault_vault_secret_id_requests_total{")).count();
        assert_eq!(lines, MAX_ROLE_LABELS + 1);
    }
}
