//! This process: what it is, whether it is ready, and the room that its ledger has.

use prometheus::{IntGauge, IntGaugeVec};

use super::catalogue::{Label, Maker, Maybe, Section, Values, ours};
use super::{Metrics, whole};

const BUILD: &[Label] = &[
    Label { name: "version", values: Values::Open("of this program") },
    Label { name: "commit", values: Values::Open("that it was built from; `unknown` where the build did not say") },
];

/// Where `raftDir` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is in it, in bytes.
    pub used: u64,
    /// What this process may still write on that file system, in bytes.
    pub free: u64,
}

/// See the module.
pub(super) struct ProcessMetrics {
    ready: IntGauge,
    used: Maybe,
    free: Maybe,
    info: IntGaugeVec,
}

impl ProcessMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Process);
        let made = Self {
            ready: make.gauge(ours("ready", "1 while /readyz says that this replica can do its part."))?,
            used: make.maybe(ours("storage_used_bytes", "What the ledger takes in raftDir."))?,
            free: make.maybe(ours("storage_free_bytes", "What is left for it on that file system."))?,
            info: make.gauges(ours("build_info", "1, with the version as a label.").by(BUILD))?,
        };
        #[cfg(target_os = "linux")]
        make.foreign(prometheus::process_collector::ProcessCollector::for_self())?;
        let commit = option_env!("KUBERNETES_VAULT_COMMIT").unwrap_or("unknown");
        made.info.with_label_values(&[env!("CARGO_PKG_VERSION"), commit]).set(1);
        Ok(made)
    }

    pub(super) fn observe(&self, ready: bool) {
        self.ready.set(ready.into());
    }
}

impl Metrics {
    /// The room that the ledger has; `None`: the system does not say.
    pub fn room(&self, room: Option<Room>) {
        self.process.used.set(room.map(|room| whole(room.used)));
        self.process.free.set(room.map(|room| whole(room.free)));
    }
}
