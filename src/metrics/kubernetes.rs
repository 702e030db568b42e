//! What we know of pods, and tell their authors.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::catalogue::{Label, Maker, Section, Values, ours};
use super::raise;

const RESULTS: &[Label] = &[Label {
    name: "result",
    values: Values::Known(&[
        ("written", "created, or counted up"),
        ("dropped", "never tried: the queue was full, or the right to write Events is missing in that namespace"),
        ("failed", "the API server did not take it"),
    ]),
}];

/// How the watch on pods is.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchSampled {
    /// What is known of pods is current.
    pub fresh: bool,
    /// Complete lists begun.
    pub restarts: u64,
    /// Failures of it.
    pub errors: u64,
    /// Pods that could not be decoded.
    pub undecodable: u64,
}

/// What became of Events.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventsSampled {
    /// Created, or counted up.
    pub written: u64,
    /// Never tried.
    pub dropped: u64,
    /// Not taken by the API server.
    pub failed: u64,
}

/// See the module.
pub(super) struct KubernetesMetrics {
    fresh: IntGauge,
    restarts: IntCounter,
    errors: IntCounter,
    undecodable: IntCounter,
    events: IntCounterVec,
}

impl KubernetesMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Kubernetes);
        Ok(Self {
            fresh: make.gauge(ours(
                "watch_fresh",
                "1 while the list of pods is complete and the watch was heard of within the last minute.",
            ))?,
            restarts: make.counter(ours(
                "watch_restarts_total",
                "How often all pending pods were listed: once at the start, and whenever the watch could not go on from where it was.",
            ))?,
            errors: make.counter(ours(
                "watch_errors_total",
                "Failures of the watch: connections lost or refused, answers that were errors, silence.",
            ))?,
            undecodable: make.counter(ours(
                "watch_undecodable_pods_total",
                "Pods that could not be decoded, each time that one was met. They are not served; the log names them.",
            ))?,
            events: make.counters(ours("events_total", "Kubernetes Events on pods, by what became of them.").by(RESULTS))?,
        })
    }

    pub(super) fn observe(&self, watch: &WatchSampled, events: &EventsSampled) {
        self.fresh.set(watch.fresh.into());
        raise(&self.restarts, watch.restarts);
        raise(&self.errors, watch.errors);
        raise(&self.undecodable, watch.undecodable);
        for (result, times) in [("written", events.written), ("dropped", events.dropped), ("failed", events.failed)] {
            raise(&self.events.with_label_values(&[result]), times);
        }
    }
}
