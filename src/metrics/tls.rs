//! Certificates, their reloads, and who was turned away at the metrics port.
//!
//! Owns the label values of these. Sees no certificate: only when one expires, and how a reload went.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::Metrics;
use super::catalogue::{Label, Maker, Section, Values, ours, reference};

/// What TLS material is for: the label `use`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsUse {
    /// The certificate that `/metrics` is served with.
    Metrics,
    /// The CAs that verify scrapers.
    MetricsClients,
    /// The certificate that peers see, and the CAs that verify theirs.
    Peers,
    /// The CAs that verify Vault.
    Vault,
    /// The client certificate that Vault sees.
    VaultClient,
}

impl TlsUse {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Metrics, Self::MetricsClients, Self::Peers, Self::Vault, Self::VaultClient];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::MetricsClients => "metrics_clients",
            Self::Peers => "peers",
            Self::Vault => "vault",
            Self::VaultClient => "vault_client",
        }
    }
}

const USE: Label = Label {
    name: "use",
    values: Values::Known(&[
        ("metrics", "the certificate that `/metrics` is served with"),
        ("metrics_clients", "the CAs that verify scrapers"),
        ("peers", "the certificate that peers see, and the CAs that verify theirs"),
        ("vault", "the CAs that verify Vault"),
        ("vault_client", "the client certificate that Vault sees"),
    ]),
};

const RESULT: Label = Label {
    name: "result",
    values: Values::Known(&[("ok", "they are in use"), ("failed", "the old ones stay in use")]),
};

/// The last cause: whatever has none of its own.
const OTHER: &str = "other";

const REFUSALS: &[Label] = &[Label {
    name: "cause",
    values: Values::Known(&[
        ("no_certificate", "it showed none, and scrapers have to"),
        ("bad_certificate", "it showed one that does not count: of another CA, expired, for another use"),
        ("handshake_timeout", "it did not end its handshake in time"),
        ("not_tls", "it spoke something else: plain HTTP, usually"),
        ("too_many", "there were too many connections at once"),
        (OTHER, "anything else; the log has it"),
    ]),
}];

/// See the module.
pub(super) struct TlsMetrics {
    renewals: IntCounter,
    renewal_failures: IntCounter,
    expiry: IntGaugeVec,
    left_at_load: IntGaugeVec,
    reloads: IntCounterVec,
    failing: IntGaugeVec,
    ca_changes: IntCounter,
    refused: IntCounterVec,
    /// The expiry that was told last, so that a certificate which is told again is not taken for a new one.
    told: Mutex<BTreeMap<TlsUse, i64>>,
}

impl TlsMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Certificates);
        let made = Self {
            expiry: make.gauges(
                ours(
                    "certificate_expiry_timestamp_seconds",
                    "When the first certificate of this use expires, Unix time; absent where there is none.",
                )
                .by(&[USE]),
            )?,
            left_at_load: make.gauges(
                ours(
                    "certificate_left_at_load_seconds",
                    "How long that certificate was still valid when this process loaded it: what a renewal in good time is measured by.",
                )
                .by(&[USE]),
            )?,
            reloads: make.counters(
                ours("tls_reloads_total", "Attempts to load changed certificates, keys or CAs, by how they ended.")
                    .by(&[USE, RESULT]),
            )?,
            failing: make.gauges(
                ours("tls_reload_failing", "1 while the last attempt to load them has failed and the old ones are in use.")
                    .by(&[USE]),
            )?,
            renewals: make.counter(reference(
                "vault_certificate_renewal_requests_total",
                "The total number of requests to renew the certificate for kubernetes-vault. One for each series of retries.",
            ))?,
            renewal_failures: make.counter(reference(
                "vault_certificate_renewal_request_failures_total",
                "The total number of requests to renew the certificate for kubernetes-vault that failed.",
            ))?,
            ca_changes: make.counter(ours(
                "vault_ca_changes_total",
                "How often the CA that was read from Vault had changed without being pinned by vault.tls.caFingerprint.",
            ))?,
            refused: make.counters(
                ours(
                    "metrics_connections_refused_total",
                    "Connections to the metrics port that were turned away, by cause.",
                )
                .by(REFUSALS),
            )?,
            told: Mutex::new(BTreeMap::new()),
        };
        for used in TlsUse::ALL {
            made.failing.with_label_values(&[used.label()]);
        }
        Ok(made)
    }
}

impl Metrics {
    /// Vault was asked for a new certificate, or for the first one: one call for each series of retries.
    pub fn certificate_renewed(&self, failed: bool) {
        self.tls.renewals.inc();
        if failed {
            self.tls.renewal_failures.inc();
        }
    }

    /// When the first of the certificates in `used` expires (Unix seconds; `None` while there is none: no series).
    pub fn certificate_expires(&self, used: TlsUse, unix_seconds: Option<i64>) {
        let mut told = self.tls.told.lock().unwrap_or_else(PoisonError::into_inner);
        let label = [used.label()];
        let Some(at) = unix_seconds else {
            told.remove(&used);
            for gauge in [&self.tls.expiry, &self.tls.left_at_load] {
                // An error says that it was not there before.
                _ = gauge.remove_label_values(&label);
            }
            return;
        };
        if told.insert(used, at) != Some(at) {
            self.tls.left_at_load.with_label_values(&label).set(at.saturating_sub(self.now_seconds()).max(0));
            self.tls.expiry.with_label_values(&label).set(at);
        }
    }

    /// What is used for `used` was loaded anew, or could not be and stays as it was.
    pub fn tls_reloaded(&self, used: TlsUse, failed: bool) {
        let result = if failed { "failed" } else { "ok" };
        self.tls.reloads.with_label_values(&[used.label(), result]).inc();
        self.tls.failing.with_label_values(&[used.label()]).set(failed.into());
    }

    /// The CA that was read from Vault is another one than before, and no pin says which is right.
    pub fn vault_ca_changed(&self) {
        self.tls.ca_changes.inc();
    }

    /// A connection to the metrics port was turned away: `no_certificate`, `bad_certificate`, `handshake_timeout`,
    /// `not_tls`, `too_many` or `other`. Whatever else it is counts as `other`.
    pub fn scraper_refused(&self, cause: &'static str) {
        let known =
            |label: &Label| matches!(label.values, Values::Known(all) if all.iter().any(|(one, _)| *one == cause));
        let cause = if REFUSALS.iter().any(known) { cause } else { OTHER };
        self.tls.refused.with_label_values(&[cause]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{metrics, metrics_at, page, value};
    use super::*;
    use crate::domain::ids::Timestamp;

    #[test]
    fn a_certificate_that_is_not_there_has_no_expiry() {
        let (metrics, _) = metrics_at(Timestamp(1_799_999_000_000));
        let is_there = || page(&metrics).contains("certificate_expiry_timestamp_seconds{");
        assert!(!is_there());
        metrics.certificate_expires(TlsUse::Peers, Some(1_800_000_000));
        assert_eq!(value(&metrics, r#"certificate_expiry_timestamp_seconds{use="peers"}"#), Some(1_800_000_000.0));
        metrics.certificate_expires(TlsUse::Peers, None);
        metrics.certificate_expires(TlsUse::Peers, None);
        assert!(!is_there() && !page(&metrics).contains("certificate_left_at_load_seconds{"));
    }

    #[test]
    fn a_certificate_that_is_told_again_is_not_a_new_one() {
        let (metrics, clock) = metrics_at(Timestamp(1_000_000));
        let left = || value(&metrics, r#"certificate_left_at_load_seconds{use="metrics"}"#);
        metrics.certificate_expires(TlsUse::Metrics, Some(1_600));
        assert_eq!(left(), Some(600.0));
        clock.set(Timestamp(1_500_000));
        metrics.certificate_expires(TlsUse::Metrics, Some(1_600));
        assert_eq!(left(), Some(600.0));
        metrics.certificate_expires(TlsUse::Metrics, Some(2_000));
        assert_eq!(left(), Some(500.0));
        metrics.certificate_expires(TlsUse::Metrics, Some(1_000));
        assert_eq!(left(), Some(0.0), "one that has expired already");
    }

    #[test]
    fn a_reload_is_failing_until_one_succeeds() {
        let metrics = metrics();
        let failing = || value(&metrics, r#"tls_reload_failing{use="metrics"}"#);
        assert_eq!(failing(), Some(0.0));
        metrics.tls_reloaded(TlsUse::Metrics, true);
        assert_eq!(failing(), Some(1.0));
        metrics.tls_reloaded(TlsUse::Metrics, false);
        assert_eq!(failing(), Some(0.0));
        for result in ["ok", "failed"] {
            assert_eq!(value(&metrics, &format!(r#"tls_reloads_total{{result="{result}",use="metrics"}}"#)), Some(1.0));
        }
        assert_eq!(value(&metrics, r#"tls_reloads_total{result="failed",use="vault_client"}"#), Some(0.0));
    }

    #[test]
    fn renewals_count_failed_ones_too() {
        let metrics = metrics();
        metrics.certificate_renewed(true);
        metrics.certificate_renewed(false);
        assert_eq!(value(&metrics, "vault_certificate_renewal_requests_total"), Some(2.0));
        assert_eq!(value(&metrics, "vault_certificate_renewal_request_failures_total"), Some(1.0));
    }

    #[test]
    fn refused_scrapers_make_no_labels_of_their_own() {
        let metrics = metrics();
        metrics.scraper_refused("too_many");
        metrics.scraper_refused("made up");
        for (cause, times) in [("too_many", 1.0), ("other", 1.0), ("not_tls", 0.0)] {
            let series = format!(r#"metrics_connections_refused_total{{cause="{cause}"}}"#);
            assert_eq!(value(&metrics, &series), Some(times), "{series}");
        }
        assert!(!page(&metrics).contains("made up"));
    }

    #[test]
    fn each_use_is_documented() {
        let Values::Known(documented) = USE.values else { unreachable!("its values are known") };
        assert!(TlsUse::ALL.iter().map(|used| used.label()).eq(documented.iter().map(|(value, _)| *value)));
    }
}
