//! The connection to Vault: whom we believe, and what we show; made at the start, and anew when that changes.
//!
//! Owns the change of trust while running. Files are looked at every few seconds, PKI mounts every minute, and sooner
//! while Vault cannot be used. What is new is tried against Vault before it is used; what fails leaves the old in use.
//! While one root follows another, Vault still shows a certificate of the old one when its PKI mount already names the
//! new one: then both are believed, here and in the pods, until the new one alone is enough.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

use super::ca;
use super::call::{ApiPath, Call};
use super::client::Client;
use super::error::{Fatal, Stopped};
use super::options::{Ca, Options};
use super::proxies::Proxies;
use super::session::Session;
use super::tls::{text, towards};
use crate::files::{LOOK_EVERY, Watched};

/// How often PKI mounts are asked for their CA while all is well: one small request.
const ASK_MOUNTS_EVERY: Duration = Duration::from_secs(60);

/// A root that the mount names no more stays believed for so long after Vault last needed it: a Vault of several nodes
/// gets its new certificate on one after another, and each look meets one of them.
const OLD_ROOT_STAYS: Duration = Duration::from_secs(600);

/// See the module.
pub(super) struct Connector<'a> {
    pub(super) options: &'a Options,
    pub(super) url: &'a Url,
    pub(super) proxies: &'a Proxies,
    pub(super) session: &'a Arc<Session>,
}

/// What came of a look at what is configured now.
enum Outcome {
    /// Nothing is new.
    Same,
    /// It is in use.
    Adopted,
    /// The old is in use together with the new.
    Both,
    /// The old is in use, and why.
    Kept(String),
    /// Vault did not answer, which is told elsewhere.
    Silent,
}

impl Connector<'_> {
    /// Connects for the first time.
    pub(super) async fn connect(&self) -> Result<Arc<Client>, Stopped> {
        let bundle = ca::load(self.options, self.url, self.proxies, None).await?;
        let client = Arc::new(self.client(bundle.as_deref())?);
        if let (Ca::Pki { fingerprints, .. }, Some(bundle)) = (&self.options.tls.ca, &bundle)
            && fingerprints.is_empty()
        {
            tracing::warn!(
                sha256 = ca::fingerprints(bundle),
                "these CA certificates were fetched from Vault without verification and are trusted from now on; \
                 pin them by vault.tls.caFingerprint"
            );
        }
        self.adopt(&client, bundle);
        Ok(client)
    }

    /// The files that concern the connection. To be made before the first of them is read.
    pub(super) fn watched(&self) -> Watched {
        Watched::new(self.paths())
    }

    /// Follows changes, for ever.
    pub(super) async fn follow(&self, mut watched: Watched) {
        if self.url.scheme() != "https" {
            return std::future::pending().await;
        }
        let mut asked = Instant::now();
        // What is new and could not be used yet is tried again, and told once.
        let (mut pending, mut told) = (false, false);
        // When Vault still needed the root that goes.
        let mut needed: Option<Instant> = None;
        loop {
            sleep(LOOK_EVERY).await;
            let changed = watched.changed();
            let asks = matches!(self.options.tls.ca, Ca::Pki { .. })
                && (asked.elapsed() >= ASK_MOUNTS_EVERY || self.session.is_unavailable());
            if !(changed || pending || asks) {
                continue;
            }
            asked = Instant::now();
            let rests = needed.is_none_or(|at| at.elapsed() >= OLD_ROOT_STAYS);
            match self.look(changed || pending, rests).await {
                Outcome::Same => pending = !rests,
                Outcome::Silent => {}
                Outcome::Adopted => {
                    tracing::info!("the TLS settings towards Vault have changed and are used from now on");
                    self.session.meter.reloaded(false);
                    (pending, told, needed) = (false, false, None);
                }
                Outcome::Both => {
                    if needed.is_none() {
                        tracing::warn!(
                            "Vault has a new CA and does not show a certificate of it yet: both are believed until it does"
                        );
                        self.session.meter.reloaded(false);
                    }
                    (pending, needed) = (true, Some(Instant::now()));
                }
                Outcome::Kept(cause) => {
                    if changed || !told {
                        tracing::warn!(
                            cause,
                            "new TLS settings towards Vault cannot be used; the old ones stay in use"
                        );
                        self.session.meter.reloaded(true);
                        told = true;
                    }
                    pending |= changed;
                }
            }
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if let Ca::File(path) = &self.options.tls.ca {
            paths.push(path.clone());
        }
        if let Some(client) = &self.options.tls.client {
            paths.extend([client.certificate.clone(), client.key.clone()]);
        }
        paths
    }

    /// Looks at what is configured now. `force`: also where the CAs are the same, since our own certificate may be new.
    /// `rests`: a root that goes was not needed for so long that it may.
    async fn look(&self, force: bool, rests: bool) -> Outcome {
        let Some(current) = self.session.client() else { return Outcome::Same };
        let used = self.session.address().ca_bundle.clone();
        let wanted = match ca::load(self.options, self.url, self.proxies, Some(&current)).await {
            Ok(wanted) => wanted,
            Err(Stopped::Trouble(_)) => return Outcome::Silent,
            Err(Stopped::Fatal(fatal)) => return Outcome::Kept(crate::causes::with_causes(&fatal)),
        };
        if wanted == used && !force {
            return Outcome::Same;
        }
        let is_pki = matches!(self.options.tls.ca, Ca::Pki { .. });
        let cause = match self.try_out(wanted.as_deref()).await {
            Ok(_) if is_pki && !rests && wanted != used => return Outcome::Same,
            Ok(client) => return self.take(client, wanted, used.as_deref(), Outcome::Adopted),
            Err(cause) => cause,
        };
        // A mount says what Vault's CA is; a file is an order, which is carried out as a whole or not at all.
        let (true, Some(old), Some(new)) = (is_pki, used.as_deref(), wanted) else { return Outcome::Kept(cause) };
        let both = match ca::union(old, &new) {
            Ok(both) => both,
            Err(fatal) => return Outcome::Kept(fatal.to_string()),
        };
        match self.try_out(Some(&both)).await {
            Ok(_) if both == old => Outcome::Both,
            Ok(client) => self.take(client, Some(both), Some(old), Outcome::Both),
            Err(_) => Outcome::Kept(cause),
        }
    }

    fn take(&self, client: Client, bundle: Option<String>, before: Option<&str>, outcome: Outcome) -> Outcome {
        if let Ca::Pki { fingerprints, .. } = &self.options.tls.ca
            && fingerprints.is_empty()
            && bundle.as_deref() != before
        {
            tracing::warn!(
                sha256 = bundle.as_deref().map(ca::fingerprints),
                sha256_before = before.map(ca::fingerprints),
                "Vault's CA has changed, and nothing pins it (vault.tls.caFingerprint does)"
            );
            self.session.meter.ca_changed();
        }
        self.adopt(&Arc::new(client), bundle);
        outcome
    }

    fn adopt(&self, client: &Arc<Client>, bundle: Option<String>) {
        let chain = self.options.tls.client.as_ref();
        let chain = chain.and_then(|client| text("vault.tls.clientCert", &client.certificate).ok());
        self.session.meter.trusts(bundle.as_deref(), chain.as_deref());
        self.session.connect(Arc::clone(client), bundle);
    }

    /// A client for `bundle` over which Vault has answered.
    async fn try_out(&self, bundle: Option<&str>) -> Result<Client, String> {
        let client = self.client(bundle).map_err(|fatal| fatal.to_string())?;
        // Any answer will do, also that it is sealed.
        let health = Call::get(ApiPath::default().then("sys/health"));
        client.exchange(&health).await.map_err(|trouble| trouble.to_string())?;
        Ok(client)
    }

    fn client(&self, bundle: Option<&str>) -> Result<Client, Fatal> {
        let tls = towards(self.url, bundle, &self.options.tls)?;
        Client::new(self.url, self.options.namespace.as_deref(), tls, self.proxies)
    }
}

#[cfg(test)]
mod tests;
