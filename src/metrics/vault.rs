//! How Vault is, the token we ask it with, and what it was asked for.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::catalogue::{Label, Maker, Maybe, Section, Values, ours, reference};
use super::delivery::APPROLE;
use super::{Metrics, whole};
use crate::domain::delivery::VaultTrouble;

const TROUBLES: &[Label] = &[Label {
    name: "cause",
    values: Values::Known(&[
        ("unknown_role", "the AppRole does not exist"),
        ("forbidden", "our policy does not cover the role"),
        ("rejected", "Vault refuses the request for another reason; the Event has its words"),
        ("wrong_answer", "its answer may not be used: another creation path, or not wrapped"),
        ("sealed", "it is sealed"),
        ("standby", "it is a standby that forwards nothing"),
        ("rate_limited", "429"),
        ("unavailable", "another 5xx"),
        ("redirected", "it redirects to another host, where our token does not go"),
        ("unreachable", "no connection, a broken one, or a certificate that does not verify"),
        ("timed_out", "no answer in time"),
        ("not_logged_in", "our own token is no good, or there is none yet"),
    ]),
}];

/// See the module.
pub(super) struct VaultMetrics {
    usable: IntGauge,
    requests: IntCounterVec,
    failures: IntCounterVec,
    troubles: IntCounterVec,
    token_expiry: Maybe,
    token_ttl: Maybe,
    renewals: IntCounter,
    renewal_failures: IntCounter,
}

impl VaultMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Vault);
        Ok(Self {
            usable: make.gauge(ours(
                "vault_usable",
                "1 while this replica is logged in to Vault and its last request was served.",
            ))?,
            requests: make.counters(
                reference("vault_secret_id_requests_total", "The total number of requests for an approle's secret_id. Failed ones included.")
                    .by(APPROLE),
            )?,
            failures: make.counters(
                reference(
                    "vault_secret_id_requests_failures_total",
                    "The total number of requests for an approle's secret_id that failed.",
                )
                .by(APPROLE),
            )?,
            troubles: make.counters(
                ours("vault_secret_id_failures_total", "Requests for a secret_id that failed, by cause.").by(TROUBLES),
            )?,
            token_expiry: make.maybe(ours(
                "vault_token_expiry_timestamp_seconds",
                "When the token that this replica asks Vault with expires, Unix time; absent while there is none.",
            ))?,
            token_ttl: make.maybe(ours(
                "vault_token_ttl_seconds",
                "The TTL that Vault granted to that token last; it is renewed at half of it.",
            ))?,
            renewals: make.counter(reference(
                "vault_token_renewal_requests_total",
                "The total number of requests to renew the auth token for kubernetes-vault. One for each series of retries.",
            ))?,
            renewal_failures: make.counter(reference(
                "vault_token_renewal_request_failures_total",
                "The total number of requests to renew the auth token for kubernetes-vault that failed.",
            ))?,
        })
    }

    /// Vault was asked for a `secret_id`, for a role with that label.
    pub(super) fn requested(&self, label: &str, trouble: Option<&VaultTrouble>) {
        self.requests.with_label_values(&[label]).inc();
        if let Some(trouble) = trouble {
            self.failures.with_label_values(&[label]).inc();
            self.troubles.with_label_values(&[trouble.label()]).inc();
        }
    }
}

impl Metrics {
    /// Our Vault token was renewed, or could not be: one call for each series of retries.
    pub fn token_renewed(&self, failed: bool) {
        self.vault.renewals.inc();
        if failed {
            self.vault.renewal_failures.inc();
        }
    }

    /// The TTL that our Vault token was granted just now, in seconds; `None` when there is no token any more.
    pub fn token_granted(&self, ttl_seconds: Option<u64>) {
        let ttl = ttl_seconds.map(whole);
        self.vault.token_ttl.set(ttl);
        self.vault.token_expiry.set(ttl.map(|ttl| self.now_seconds().saturating_add(ttl)));
    }

    /// Whether we can ask Vault for `secret_id`s.
    pub fn vault_usable(&self, usable: bool) {
        self.vault.usable.set(usable.into());
    }
}
