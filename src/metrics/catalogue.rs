//! What is measured, described once: what registers a metric is also what its documentation is written from.
//!
//! Owns names, help texts, labels and their values. A metric that is not described here cannot be registered, and a
//! label value that is known beforehand is there at zero from the start, so that it can be alerted on before its first
//! event.

use std::fmt;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What all names of ours begin with, as the reference's do.
const PREFIX: &str = "kubernetesvault_";

/// What a metric tells of, in the order in which a reader needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Whether init containers get their secrets, and how fast.
    Delivery,
    /// What keeps them from it on Vault's side, and the token we ask with.
    Vault,
    /// Replicas, their leader and their ledger.
    Cluster,
    /// What we know of pods, and tell their authors.
    Kubernetes,
    /// Certificates, keys and CAs.
    Certificates,
    /// This process.
    Process,
}

/// What Prometheus takes a metric for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These, each with its meaning.
    Known(&'static [(&'static str, &'static str)]),
    /// As they come, within a bound: what they are, in words.
    Open(&'static str),
}

/// One metric of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What it tells of.
    pub section: Section,
    /// Its whole name.
    pub name: String,
    /// What Prometheus takes it for.
    pub kind: Kind,
    /// Its meaning, with the unit.
    pub help: String,
    /// Its labels.
    pub labels: &'static [Label],
    /// The Go version has it, too.
    pub from_reference: bool,
}

/// What a metric is made from.
#[derive(Clone, Copy)]
pub(super) struct Definition {
    name: &'static str,
    help: &'static str,
    labels: &'static [Label],
    from_reference: bool,
}

/// A metric of ours, `name` without the prefix.
pub(super) const fn ours(name: &'static str, help: &'static str) -> Definition {
    Definition { name, help, labels: &[], from_reference: false }
}

/// A metric of the reference: name, type, labels and meaning are what users' dashboards rely on.
pub(super) const fn reference(name: &'static str, help: &'static str) -> Definition {
    Definition { name, help, labels: &[], from_reference: true }
}

impl Definition {
    /// With these labels.
    pub(super) const fn by(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }

    fn opts(&self) -> Opts {
        Opts::new(format!("{PREFIX}{}", self.name), self.help)
    }

    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }
}

/// A gauge that is not on the page while there is nothing to tell: an age, a rank or a time that a zero would belie.
pub(super) struct Maybe(IntGaugeVec);

impl Maybe {
    pub(super) fn set(&self, value: Option<i64>) {
        match value {
            Some(value) => self.0.with_label_values::<&str>(&[]).set(value),
            // An error says that it was not there before.
            None => _ = self.0.remove_label_values::<&str>(&[]),
        }
    }
}

/// Registers metrics and takes down what they are. The names are constants, so that a failure is a mistake in this
/// folder.
pub(super) struct Maker {
    registry: Registry,
    section: Section,
    described: Vec<Described>,
}

impl Maker {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), section: Section::Delivery, described: Vec::new() }
    }

    /// What is made from here on belongs to `section`.
    pub(super) fn begin(&mut self, section: Section) {
        self.section = section;
    }

    /// The registry, and what is in it, in the order of a reader.
    pub(super) fn finish(mut self) -> (Registry, Vec<Described>) {
        self.described.sort_by_key(|described| described.section);
        (self.registry, self.described)
    }

    pub(super) fn counter(&mut self, of: Definition) -> prometheus::Result<IntCounter> {
        self.add(Kind::Counter, of, IntCounter::with_opts(of.opts())?)
    }

    /// Every combination of known label values is there at zero.
    pub(super) fn counters(&mut self, of: Definition) -> prometheus::Result<IntCounterVec> {
        let made = self.add(Kind::Counter, of, IntCounterVec::new(of.opts(), &of.label_names())?)?;
        for values in combinations(of.labels) {
            made.with_label_values(&values);
        }
        Ok(made)
    }

    pub(super) fn gauge(&mut self, of: Definition) -> prometheus::Result<IntGauge> {
        self.add(Kind::Gauge, of, IntGauge::with_opts(of.opts())?)
    }

    /// Nothing of it is there before it is set.
    pub(super) fn gauges(&mut self, of: Definition) -> prometheus::Result<IntGaugeVec> {
        self.add(Kind::Gauge, of, IntGaugeVec::new(of.opts(), &of.label_names())?)
    }

    /// Not there before it is set.
    pub(super) fn maybe(&mut self, of: Definition) -> prometheus::Result<Maybe> {
        Ok(Maybe(self.gauges(of)?))
    }

    pub(super) fn histogram(&mut self, of: Definition, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts { common_opts: of.opts(), buckets: buckets.to_vec() };
        self.add(Kind::Histogram, of, Histogram::with_opts(opts)?)
    }

    /// A collector that describes itself: that of the process.
    #[cfg(target_os = "linux")]
    pub(super) fn foreign(&mut self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.described.extend(collector.collect().iter().map(|family| Described {
            section: self.section,
            name: family.name().to_owned(),
            kind: match family.get_field_type() {
                MetricType::COUNTER => Kind::Counter,
                MetricType::HISTOGRAM => Kind::Histogram,
                _ => Kind::Gauge,
            },
            help: family.help().to_owned(),
            labels: &[],
            from_reference: true,
        }));
        self.registry.register(Box::new(collector))
    }

    fn add<C: Collector + Clone + 'static>(&mut self, kind: Kind, of: Definition, made: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(made.clone()))?;
        self.described.push(Described {
            section: self.section,
            name: format!("{PREFIX}{}", of.name),
            kind,
            help: of.help.to_owned(),
            labels: of.labels,
            from_reference: of.from_reference,
        });
        Ok(made)
    }
}

/// All combinations of the values of `labels`; none where one of them is open.
fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |so_far, label| {
        let Values::Known(values) = label.values else { return Vec::new() };
        so_far.iter().flat_map(|begun| values.iter().map(|(value, _)| [begun.as_slice(), &[*value]].concat())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURS: Label =
        Label { name: "colour", values: Values::Known(&[("red", "as blood"), ("blue", "as the sky")]) };
    const SIZES: Label = Label { name: "size", values: Values::Known(&[("s", "small"), ("l", "large")]) };
    const POD: Label = Label { name: "pod", values: Values::Open("a pod") };

    #[test]
    fn known_values_are_there_from_the_start_and_open_ones_are_not() {
        assert_eq!(combinations(&[COLOURS, SIZES]).len(), 4);
        assert_eq!(combinations(&[COLOURS])[1], ["blue"]);
        assert_eq!(combinations(&[COLOURS, POD]), [] as [Vec<&str>; 0]);
        let mut make = Maker::new();
        make.counters(ours("things_total", "Things.").by(&[COLOURS, SIZES])).unwrap();
        make.counters(ours("pods_total", "Pods.").by(&[POD])).unwrap();
        let (registry, described) = make.finish();
        assert_eq!(registry.gather().iter().map(|family| family.get_metric().len()).collect::<Vec<_>>(), [4]);
        assert_eq!(described.len(), 2, "a metric without a series is described all the same");
    }

    #[test]
    fn two_metrics_of_one_name_are_an_error() {
        let mut make = Maker::new();
        make.counter(ours("things_total", "Things.")).unwrap();
        assert!(make.gauge(ours("things_total", "Things.")).is_err());
    }

    #[test]
    fn what_may_be_absent_is_absent_until_it_is_set_and_again_afterwards() {
        let mut make = Maker::new();
        let age = make.maybe(ours("age_seconds", "An age.")).unwrap();
        let (registry, _) = make.finish();
        age.set(None);
        assert!(registry.gather().is_empty());
        age.set(Some(0));
        assert_eq!(registry.gather()[0].get_metric()[0].get_gauge().get_value().to_string(), "0");
        age.set(None);
        assert!(registry.gather().is_empty());
    }
}
