//! The metrics, under the reference's names and ours.
//!
//! A leaf: it knows prometheus, and of ours only what it counts. Each file owns the metrics of one purpose; what they
//! are called and mean is described once, in [`catalogue`], and docs/metrics.md is written from there. The page must
//! never grow with what others can choose: every label has a bound.

pub mod catalogue;
mod cluster;
mod delivery;
mod kubernetes;
mod process;
mod roles;
#[cfg(test)]
mod tests;
mod tls;
mod vault;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Encoder, IntCounter, Registry, TextEncoder};

use self::catalogue::{Described, Maker};
use self::cluster::ClusterMetrics;
use self::delivery::DeliveryMetrics;
use self::kubernetes::KubernetesMetrics;
use self::process::ProcessMetrics;
use self::tls::TlsMetrics;
use self::vault::VaultMetrics;
use crate::clock::Clock;

pub use self::cluster::{MOST_PEERS, RaftSampled};
pub use self::kubernetes::{EventsSampled, WatchSampled};
pub use self::process::Room;
pub use self::tls::TlsUse;

/// What a page takes at first: that of three replicas with a dozen roles.
const USUAL_PAGE_BYTES: usize = 24 << 10;

/// All metrics of this process.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    registry: Registry,
    described: Vec<Described>,
    delivery: DeliveryMetrics,
    vault: VaultMetrics,
    cluster: ClusterMetrics,
    kubernetes: KubernetesMetrics,
    tls: TlsMetrics,
    process: ProcessMetrics,
    /// One page at a time: what is sampled belongs to one page, and a counter is raised by one reader.
    page: Mutex<()>,
}

/// What is read from elsewhere each time a page is made.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// The pods that wait.
    pub waiting: Waiting,
    /// This replica's part in the cluster, while it takes one.
    pub raft: Option<RaftSampled>,
    /// What was refused on the peers' ports since the start, by cause.
    pub refused: Vec<(&'static str, u64)>,
    /// How the watch on pods is.
    pub watch: WatchSampled,
    /// What became of Events.
    pub events: EventsSampled,
    /// This replica can do its part.
    pub ready: bool,
}

/// The pods that wait, as this replica's watch shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Pods whose init container runs.
    pub pods: u64,
    /// For how long the first of them has.
    pub oldest: Duration,
    /// Pods that will not be served as they stand.
    pub refused: u64,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two metrics have one name: a mistake in this folder.
    pub fn new(clock: Arc<dyn Clock>) -> prometheus::Result<Self> {
        let mut make = Maker::new();
        let delivery = DeliveryMetrics::new(&mut make)?;
        let vault = VaultMetrics::new(&mut make)?;
        let cluster = ClusterMetrics::new(&mut make)?;
        let kubernetes = KubernetesMetrics::new(&mut make)?;
        let tls = TlsMetrics::new(&mut make)?;
        let process = ProcessMetrics::new(&mut make)?;
        let (registry, described) = make.finish();
        let page = Mutex::new(());
        Ok(Self { clock, registry, described, delivery, vault, cluster, kubernetes, tls, process, page })
    }

    /// Every metric that there may be on the page, in the order in which a reader needs them.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The page that `/metrics` serves, with what was `sampled` for it.
    pub fn page(&self, sampled: &Sampled) -> Vec<u8> {
        let _one_at_a_time = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        self.delivery.observe(&sampled.waiting);
        self.cluster.observe(sampled.raft.as_ref(), &sampled.refused);
        self.kubernetes.observe(&sampled.watch, &sampled.events);
        self.process.observe(sampled.ready);
        let mut page = Vec::with_capacity(USUAL_PAGE_BYTES);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "metrics could not be written");
        }
        page
    }

    fn now_seconds(&self) -> i64 {
        whole(self.clock.now().0 / 1_000)
    }
}

/// A count as a gauge takes it.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Brings a counter up to what was counted elsewhere.
fn raise(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}
