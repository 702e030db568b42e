//! Certificates, their reloads, and who was turned away at the metrics port.
//!
//! Owns the label values of these. Sees no certificate: only when one expires, and how a reload went.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::{Maker, Metrics};

/// What TLS material is for: the label `use`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Why a connection to the metrics port came to nothing: the values of the label `cause`.
const REFUSALS: [&str; 6] = ["no_certificate", "bad_certificate", "handshake_timeout", "not_tls", "too_many", "other"];

/// The last of [`REFUSALS`]: whatever has no value of its own.
const OTHER_REFUSAL: &str = "other";

/// See the module.
pub(super) struct TlsMetrics {
    renewals: IntCounter,
    renewal_failures: IntCounter,
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
    failing: IntGaugeVec,
    ca_changes: IntCounter,
    refused: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn new(make: &Maker) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("kubernetesvault_{name}"), help);
        let made = Self {
            renewals: make.counter(
                "vault_certificate_renewal_requests_total",
                "The total number of requests to renew the certificate for kubernetes-vault.",
            )?,
            renewal_failures: make.counter(
                "vault_certificate_renewal_request_failures_total",
                "The total number of requests to renew the certificate for kubernetes-vault that failed.",
            )?,
            expiry: make.add(IntGaugeVec::new(
                opts(
                    "certificate_expiry_timestamp_seconds",
                    "When the first certificate of this use expires, Unix time.",
                ),
                &["use"],
            ))?,
            reloads: make.add(IntCounterVec::new(
                opts("tls_reloads_total", "Attempts to load changed certificates, keys or CAs, by how they ended."),
                &["use", "result"],
            ))?,
            failing: make.add(IntGaugeVec::new(
                opts(
                    "tls_reload_failing",
                    "1 while the last attempt to load them has failed and the old ones are in use.",
                ),
                &["use"],
            ))?,
            ca_changes: make.counter(
                "vault_ca_changes_total",
                "How often the CA that was read from Vault had changed without being pinned.",
            )?,
            refused: make.counters(
                "metrics_connections_refused_total",
                "Connections to the metrics port that were turned away, by cause.",
                "cause",
            )?,
        };
        for used in TlsUse::ALL {
            for result in ["ok", "failed"] {
                made.reloads.with_label_values(&[used.label(), result]);
            }
            made.failing.with_label_values(&[used.label()]);
        }
        for cause in REFUSALS {
            made.refused.with_label_values(&[cause]);
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
        match unix_seconds {
            Some(at) => self.tls.expiry.with_label_values(&[used.label()]).set(at),
            // It may not have been there before.
            None => _ = self.tls.expiry.remove_label_values(&[used.label()]),
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
        let cause = if REFUSALS.contains(&cause) { cause } else { OTHER_REFUSAL };
        self.tls.refused.with_label_values(&[cause]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::*;

    #[test]
    fn a_certificate_that_is_not_there_has_no_expiry() {
        let metrics = Metrics::new().unwrap();
        assert!(!page(&metrics).contains("certificate_expiry_timestamp_seconds{"));
        metrics.certificate_expires(TlsUse::Peers, Some(1_800_000_000));
        let series = "kubernetesvault_certificate_expiry_timestamp_seconds{use=\"peers\"} 1800000000\n";
        assert!(page(&metrics).contains(series));
        metrics.certificate_expires(TlsUse::Peers, None);
        metrics.certificate_expires(TlsUse::Peers, None);
        assert!(!page(&metrics).contains("certificate_expiry_timestamp_seconds{"));
    }

    #[test]
    fn a_reload_is_failing_until_one_succeeds() {
        let metrics = Metrics::new().unwrap();
        let failing = |value: u8| format!("kubernetesvault_tls_reload_failing{{use=\"metrics\"}} {value}\n");
        assert!(page(&metrics).contains(&failing(0)));
        metrics.tls_reloaded(TlsUse::Metrics, true);
        assert!(page(&metrics).contains(&failing(1)));
        metrics.tls_reloaded(TlsUse::Metrics, false);
        let page = page(&metrics);
        assert!(page.contains(&failing(0)));
        for result in ["ok", "failed"] {
            assert!(
                page.contains(&format!("kubernetesvault_tls_reloads_total{{result=\"{result}\",use=\"metrics\"}} 1\n"))
            );
        }
        assert!(page.contains("kubernetesvault_tls_reloads_total{result=\"failed\",use=\"vault_client\"} 0\n"));
    }

    #[test]
    fn renewals_count_failed_ones_too() {
        let metrics = Metrics::new().unwrap();
        metrics.certificate_renewed(true);
        metrics.certificate_renewed(false);
        let page = page(&metrics);
        assert!(page.contains("kubernetesvault_vault_certificate_renewal_requests_total 2\n"));
        assert!(page.contains("kubernetesvault_vault_certificate_renewal_request_failures_total 1\n"));
    }

    #[test]
    fn refused_scrapers_make_no_labels_of_their_own() {
        let metrics = Metrics::new().unwrap();
        metrics.scraper_refused("too_many");
        metrics.scraper_refused("made up");
        let page = page(&metrics);
        for (cause, times) in [("too_many", 1), ("other", 1), ("not_tls", 0)] {
            let series = format!("kubernetesvault_metrics_connections_refused_total{{cause=\"{cause}\"}} {times}\n");
            assert!(page.contains(&series), "{series}");
        }
        assert!(!page.contains("made up"));
    }
}
