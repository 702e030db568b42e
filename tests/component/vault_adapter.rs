//! The Vault adapter as the controller uses it, against the real Vault or a proxy before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use kubernetes_vault::deliver::ports::{SecretIdRequest, SecretIssuer as _, WrappedSecretId};
use kubernetes_vault::domain::delivery::VaultTrouble;
use kubernetes_vault::domain::ids::{AttemptId, PodRef, RoleName};
use kubernetes_vault::vault::{self, Ca, Fatal, Handle, Login, Options, Service, State, Tls};
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{LIMIT, World};

/// Counts what the adapter measures.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) renewals: AtomicU64,
    pub(crate) failed_renewals: AtomicU64,
    pub(crate) grants: AtomicU64,
}

impl vault::Meter for Meter {
    fn renewal(&self, failed: bool) {
        let counter = if failed { &self.failed_renewals } else { &self.renewals };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn token_ttl(&self, seconds: Option<u64>) {
        if seconds.is_some() {
            self.grants.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn vault_state(&self, _: &State) {}

    fn certificate(&self, _: bool) {}

    fn ca_changed(&self) {}

    fn reloaded(&self, _: bool) {}

    fn trusts(&self, _: Option<&str>, _: Option<&str>) {}
}

/// A running adapter.
pub(crate) struct Adapter {
    pub(crate) handle: Handle,
    pub(crate) meter: Arc<Meter>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Fatal>>,
}

impl Adapter {
    /// Starts it; it may not be usable yet.
    pub(crate) fn start(options: Options) -> Result<Self> {
        let meter = Arc::new(Meter::default());
        let (service, handle) = Service::new(options, meter.clone())?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.run(stop.clone()));
        Ok(Self { handle, meter, stop, task })
    }

    /// Starts it and waits until Vault may be used.
    pub(crate) async fn ready(options: Options) -> Result<Self> {
        let mut adapter = Self::start(options)?;
        tokio::select! {
            () = adapter.handle.usable() => Ok(adapter),
            ended = &mut adapter.task => bail!("the adapter ended: {ended:?}"),
            () = tokio::time::sleep(LIMIT) => bail!("not usable: {}", adapter.handle.unusable_because()),
        }
    }

    /// The words with which it gave up.
    pub(crate) async fn fatal(options: Options) -> Result<String> {
        let adapter = Self::start(options)?;
        match timeout(LIMIT, adapter.task).await.context("the adapter goes on")?? {
            Err(fatal) => Ok(fatal.to_string()),
            Ok(()) => Err(anyhow!("the adapter ended without a word")),
        }
    }

    /// A wrapped secret_id of `role`.
    pub(crate) async fn wrap(&self, role: &str) -> Result<Result<WrappedSecretId, VaultTrouble>> {
        Ok(self.handle.wrap(&request(role)?).await)
    }

    /// Waits until its state is as `is` wants it.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.handle.state();
        let waited = timeout(LIMIT, state.wait_for(|state| is(state))).await;
        waited.with_context(|| format!("never {what}"))?.context("the adapter has ended")?;
        Ok(())
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        timeout(Duration::from_secs(10), self.task).await.context("it does not stop")???;
        Ok(())
    }
}

/// What trouble there was.
pub(crate) fn trouble(result: Result<WrappedSecretId, VaultTrouble>) -> Result<VaultTrouble> {
    match result {
        Ok(_) => bail!("a secret_id was issued"),
        Err(trouble) => Ok(trouble),
    }
}

/// Options for the real Vault with this token.
pub(crate) fn options(world: &World, token: &str) -> Result<Options> {
    let login = Login::Token { token: token.into(), skip_token_role: false };
    Ok(Options {
        tls: Tls { ca: Ca::File(world.ca_file()), ..Tls::default() },
        ..plain(world.vault()?.address(), login)
    })
}

/// Options for a Vault at another address.
pub(crate) fn plain(address: &str, login: Login) -> Options {
    Options {
        address: address.to_owned(),
        namespace: None,
        approle_mount: "approle".to_owned(),
        wrapping_ttl: "60s".to_owned(),
        login,
        tls: Tls::default(),
    }
}

/// `vault.token`.
pub(crate) fn static_token(token: &str) -> Login {
    Login::Token { token: SecretString::from(token), skip_token_role: false }
}

/// A request for `role`, for a pod that names its case.
pub(crate) fn request(role: &str) -> Result<SecretIdRequest> {
    Ok(SecretIdRequest {
        role: RoleName::parse(role)?,
        pod: PodRef { namespace: "team".into(), name: "app-0".into(), uid: "11111111-2222".into() },
        service_account: "app".into(),
        node: "node-1".into(),
        attempt: AttemptId::from("00ff"),
    })
}
