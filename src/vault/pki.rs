//! Certificates from a PKI mount of this Vault, for ourselves: the page of the metrics, and the peers.
//!
//! Owns the request, and when it is made again: at half of the certificate's life, as the reference renews. A key
//! leaves this module as a secret only. Whether a certificate is of any use is not judged here: whoever asked for it
//! says so, and what was refused is asked for anew as if Vault had refused.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{Data, secret};
use super::ca;
use super::call::{ApiPath, Call};
use super::handle::Handle;
use super::memory::Quiet;
use super::renew::{RETRY, rest, series_limit};
use super::session::Session;
use crate::domain::backoff;
use crate::domain::delivery::VaultTrouble;

/// A certificate is not asked for more often than this: each costs Vault a key and an entry in its store. One that
/// lives for less than twice as long is of little use.
const LEAST: Duration = Duration::from_secs(5);

/// Over how long replicas are spread that have to renew at once.
const SPREAD: Duration = Duration::from_secs(10);

/// How often CAs are asked for: a root that was replaced is believed within a minute.
const LOOK_AT_CAS_EVERY: Duration = Duration::from_secs(60);

/// What is asked of `<mount>/issue/<role>`. Empty texts are not sent.
#[derive(Clone, Default, Serialize)]
pub struct CertificateRequest {
    /// The PKI mount.
    #[serde(skip)]
    pub mount: String,
    /// The role of that mount.
    #[serde(skip)]
    pub role: String,
    /// The subject's common name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub common_name: String,
    /// DNS names, with commas in between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alt_names: String,
    /// Addresses, with commas in between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip_sans: String,
    /// URIs, with commas in between.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri_sans: String,
    /// For how long; the role's default where it is empty, and never longer than the role allows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ttl: String,
}

/// What Vault has issued. No `Debug`: it holds a key.
#[derive(Deserialize)]
pub struct IssuedCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// What stands between it and the root, PEM.
    #[serde(default)]
    pub ca_chain: Vec<String>,
    /// Its key, PEM.
    #[serde(deserialize_with = "secret")]
    pub private_key: SecretString,
    /// When it runs out, in Unix seconds.
    #[serde(default)]
    pub expiration: u64,
}

/// What became of what was handed over.
pub type Taken = Result<(), String>;

impl Handle {
    /// Keeps a certificate alive: asks for one, hands it to `take`, and asks for the next at half of its life, for ever.
    ///
    /// `left` is what is left of an earlier one that is in use; the first is due at half of it, or as soon as `sooner` says
    /// so. `now` tells the time in Unix seconds. Each series of tries counts once, as the reference counts.
    pub async fn keep_certificate(
        &self,
        request: CertificateRequest,
        left: Duration,
        sooner: &Notify,
        now: impl Fn() -> u64 + Send,
        mut take: impl FnMut(IssuedCertificate) -> Taken + Send,
    ) {
        let session = &self.shared.session;
        let (mut due, mut expires) = (Instant::now() + left / 2, Instant::now() + left);
        let quiet = Quiet::default();
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                // Replicas learn of a new CA in the same minute, and need not ask in the same moment.
                () = sooner.notified() => sleep(SPREAD.mul_f64(rand::random())).await,
            }
            session.usable().await;
            let began = Instant::now();
            let limit = series_limit(expires.saturating_duration_since(began).max(LEAST));
            let mut failures = 0;
            let issued = loop {
                let cause = match issue(session, &request).await.map_err(|trouble| trouble.to_string()) {
                    Ok(issued) => {
                        let ttl = Duration::from_secs(issued.expiration.saturating_sub(now()));
                        match take(issued) {
                            Ok(()) => break Some(ttl),
                            Err(why) => why,
                        }
                    }
                    Err(cause) => cause,
                };
                failures += 1;
                if quiet.allows(&request.mount) {
                    tracing::warn!(
                        pki.mount = request.mount,
                        pki.role = request.role,
                        cause,
                        "no certificate from Vault; the one before it stays in use, if there is one"
                    );
                }
                let again = RETRY.wait(failures, rand::random());
                if began.elapsed() + again > limit {
                    break None;
                }
                sleep(again).await;
            };
            session.meter.certificate(issued.is_none());
            due = match issued {
                Some(ttl) => {
                    expires = Instant::now() + ttl;
                    Instant::now() + (ttl / 2).max(LEAST)
                }
                None => Instant::now() + rest(expires.saturating_duration_since(Instant::now())).max(LEAST),
            };
        }
    }

    /// Hands the CA certificates of `mounts`, PEM, to `take`: now, and whenever they have changed, for ever. They come over
    /// the connection that is verified as all others are. `failing` hears when Vault begins to refuse them (an issuer that was
    /// deleted stays believed until the mount names another one), and when it ends.
    pub async fn follow_cas(
        &self,
        mounts: &[String],
        mut take: impl FnMut(&str) -> Taken + Send,
        failing: impl Fn(bool) + Send,
    ) {
        let session = &self.shared.session;
        let quiet = Quiet::default();
        let (mut known, mut failures, mut refused) = (String::new(), 0, false);
        loop {
            session.usable().await;
            let fetched = fetch_cas(session, mounts).await;
            if fetched.is_err() != refused {
                refused = fetched.is_err();
                failing(refused);
            }
            let cause = match fetched {
                Ok(bundle) if bundle == known => None,
                Ok(bundle) => match take(&bundle) {
                    Ok(()) => {
                        known = bundle;
                        None
                    }
                    Err(why) => Some(why),
                },
                Err(cause) => Some(cause),
            };
            failures = if cause.is_some() { failures + 1 } else { 0 };
            if let Some(cause) = cause
                && quiet.allows("cas")
            {
                tracing::warn!(cause, "the CA certificates of PKI mounts cannot be had; those before them stay in use");
            }
            let wait = if failures > 0 && known.is_empty() {
                backoff::VAULT.wait(failures, rand::random())
            } else {
                LOOK_AT_CAS_EVERY
            };
            sleep(wait).await;
        }
    }

    /// One certificate, now.
    ///
    /// # Errors
    /// Why Vault gives none.
    pub async fn issue_certificate(&self, request: &CertificateRequest) -> Result<IssuedCertificate, VaultTrouble> {
        issue(&self.shared.session, request).await
    }

    /// The CA certificates of `mounts`, now; PEM.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn ca_certificates(&self, mounts: &[String]) -> Result<String, String> {
        fetch_cas(&self.shared.session, mounts).await
    }
}

async fn issue(session: &Arc<Session>, request: &CertificateRequest) -> Result<IssuedCertificate, VaultTrouble> {
    let (client, token) = session.ready()?;
    let path = ApiPath::default().then(&request.mount).then("issue").name(&request.role);
    let call = Call::post(path, request).with_token(&token);
    let sent = client.send(&call).await;
    if let Err(VaultTrouble::Forbidden(_)) = &sent {
        // It may be the token's end, which has to be known.
        session.is_dead(&client, &token).await;
    }
    Ok(sent?.read::<Data<IssuedCertificate>>()?.data)
}

async fn fetch_cas(session: &Arc<Session>, mounts: &[String]) -> Result<String, String> {
    let client = session.client().ok_or("not connected to Vault yet")?;
    ca::of_mounts(&client, mounts, &[]).await.map_err(|stopped| stopped.into_trouble().to_string())
}

#[cfg(test)]
mod tests;
