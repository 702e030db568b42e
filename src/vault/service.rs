//! The long-running part: it connects, logs in, and then keeps the token alive until it is told to stop.
//!
//! Owns the order of the start. Nothing is usable before the checks of the token have passed. What Vault has decided
//! ends it; what may pass by itself is tried again for ever.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::connection::Connector;
use super::error::{Fatal, Stopped};
use super::handle::{Handle, Shared};
use super::keeper::Keeper;
use super::login;
use super::memory::Memory;
use super::neutralise::{CAPABILITY_AGE, MAX_AT_ONCE};
use super::options::Options;
use super::proxies::Proxies;
use super::session::{Meter, Session};
use crate::deliver::ports::VaultAddress;
use crate::domain::backoff;

/// For how long a role's refusal of metadata is remembered: a corrected policy is noticed within the hour.
const METADATA_AGE: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Service {
    options: Options,
    url: Url,
    proxies: Proxies,
    session: Arc<Session>,
}

impl Service {
    /// Checks what can be checked without Vault. Asks nothing yet.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(options: Options, meter: Arc<dyn Meter>) -> Result<(Self, Handle), Fatal> {
        Self::with_proxies(options, meter, Proxies::from_env())
    }

    pub(super) fn with_proxies(
        options: Options,
        meter: Arc<dyn Meter>,
        proxies: Proxies,
    ) -> Result<(Self, Handle), Fatal> {
        let url = options.url()?;
        options.check_mounts()?;
        options.login.check()?;
        let wrapping_ttl = HeaderValue::from_str(options.wrapping_ttl.trim());
        let wrapping_ttl = wrapping_ttl.map_err(|_| Fatal::Header { key: "vault.wrappingTTL" })?;
        let namespace = options.namespace.clone().filter(|namespace| !namespace.is_empty());
        let address = VaultAddress { address: options.address.clone(), ca_bundle: None, namespace: namespace.clone() };
        let session = Arc::new(Session::new(address, meter));
        let shared = Shared {
            session: Arc::clone(&session),
            mount: options.approle_mount.trim_matches('/').to_owned(),
            namespace,
            wrapping_ttl,
            without_metadata: Memory::new(METADATA_AGE),
            may_destroy: Memory::new(CAPABILITY_AGE),
            neutralising: Semaphore::new(MAX_AT_ONCE),
        };
        Ok((Self { options, url, proxies, session }, Handle { shared: Arc::new(shared) }))
    }

    /// Runs until `cancel`.
    ///
    /// # Errors
    /// Vault has answered, and what it said will not change by waiting; or a file of the configuration is unusable.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Fatal> {
        let connector = self.connector();
        // Before they are read for the first time: what changes from now on is noticed.
        let watched = connector.watched();
        let start = async {
            let client = self.patiently(|| connector.connect()).await?;
            Ok::<_, Fatal>(client)
        };
        let client = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            connected = start => connected?,
        };
        let keep = async {
            let log_in = async || {
                // A corrected CA may have brought another one since the last try.
                let client = self.session.client().unwrap_or_else(|| Arc::clone(&client));
                login::obtain(&client, &self.options.login).await
            };
            let held = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                held = self.patiently(log_in) => held?,
            };
            tracing::info!(vault.addr = %self.options.address, "logged in to Vault");
            let client = self.session.client().unwrap_or(client);
            Keeper::new(Arc::clone(&self.session), client, &self.options.login, held).run(&cancel).await;
            Ok(())
        };
        tokio::select! {
            ended = keep => ended,
            () = connector.follow(watched) => Ok(()),
        }
    }

    fn connector(&self) -> Connector<'_> {
        Connector { options: &self.options, url: &self.url, proxies: &self.proxies, session: &self.session }
    }

    /// Tries `step` until Vault has answered.
    async fn patiently<T, F: Future<Output = Result<T, Stopped>>>(&self, step: impl Fn() -> F) -> Result<T, Fatal> {
        let mut failures = 0;
        loop {
            let trouble = match step().await {
                Ok(done) => return Ok(done),
                Err(Stopped::Fatal(fatal)) => return Err(fatal),
                Err(Stopped::Trouble(trouble)) => trouble,
            };
            failures += 1;
            self.session.waiting(&trouble);
            let wait = backoff::VAULT.wait(failures, rand::random());
            tokio::time::sleep(trouble.retry_after().map_or(wait, |asked| asked.max(wait))).await;
        }
    }
}

#[cfg(test)]
mod tests;
