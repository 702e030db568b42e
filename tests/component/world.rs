//! The servers that all cases share, and names and addresses that no two cases share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::future::LocalBoxFuture;
use testbed::fake_pods::simulated_ip;
use testbed::{ControllerPolicy, Testbed, TokenRole, Vault, VaultOptions, poll_until};
use tokio::runtime::Runtime;

/// What one case checks.
pub(crate) type Case = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>;

/// Long enough for two busy cores; a case waits for an event, never for this.
pub(crate) const LIMIT: Duration = Duration::from_secs(45);

/// The cases of a module, by name.
macro_rules! cases {
    ($list:ident: $($name:ident),* $(,)?) => {
        pub(crate) const $list: &[(&str, crate::world::Case)] =
            &[$((concat!(module_path!(), "::", stringify!($name)), |world| Box::pin($name(world)))),*];
    };
}
pub(crate) use cases;

/// Starts the servers with the first case.
#[derive(Default)]
pub(crate) struct Shared {
    started: OnceLock<Result<(Runtime, World), String>>,
    disturbance: RwLock<()>,
}

/// The servers.
pub(crate) struct World {
    pub(crate) bed: Testbed,
    ca_file: PathBuf,
    next: AtomicU16,
}

impl Shared {
    /// Runs a case beside others, or alone where it disturbs them.
    pub(crate) fn run(&self, case: Case, alone: bool) -> Result<()> {
        let started = self.started.get_or_init(|| start().map_err(|error| format!("{error:#}")));
        let (runtime, world) = started.as_ref().map_err(|error| anyhow!("the servers did not start: {error}"))?;
        // A case that failed has not harmed the servers: poison means nothing here.
        let (_beside, _sole);
        if alone {
            _sole = self.disturbance.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _beside = self.disturbance.read().unwrap_or_else(PoisonError::into_inner);
        }
        runtime.block_on(case(world))
    }

    /// Ends the servers.
    pub(crate) fn stop(&self) {
        if let Some(Ok((runtime, world))) = self.started.get() {
            runtime.block_on(world.bed.stop());
        }
    }
}

fn start() -> Result<(Runtime, World)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bed = Testbed::builder().nodes(0).vault(VaultOptions { tls: true, lasting: false });
    let bed = runtime.block_on(async {
        let bed = bed.start().await?;
        bed.vault()?.enable_approle().await?;
        testbed::fake_node::register(&bed.client()).await?;
        Ok::<_, anyhow::Error>(bed)
    })?;
    let ca_file = bed.directory().join("vault-ca.pem");
    std::fs::write(&ca_file, bed.vault()?.ca().context("Vault serves no TLS")?)?;
    Ok((runtime, World { bed, ca_file, next: AtomicU16::new(1) }))
}

impl World {
    /// The real Vault.
    pub(crate) fn vault(&self) -> Result<&Vault> {
        self.bed.vault()
    }

    /// The authority that signed Vault's certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// A number that no other case has.
    pub(crate) fn number(&self) -> u16 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A name that no other case has.
    pub(crate) fn name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.number())
    }

    /// An address that no other case has, and that one process may listen on.
    pub(crate) fn address(&self) -> IpAddr {
        simulated_ip(self.number() + 256)
    }

    /// A controller's token, periodic, of a role of its own.
    pub(crate) async fn token(&self, policy: ControllerPolicy) -> Result<String> {
        let role = TokenRole { name: self.name("controller"), period: "6h".into() };
        self.vault()?.create_controller_token(policy, &role).await
    }

    /// A new AppRole.
    pub(crate) async fn approle(&self, stem: &str) -> Result<String> {
        let name = self.name(stem);
        self.vault()?.create_approle("approle", &name, &["default"]).await?;
        Ok(name)
    }

    /// The accessors of the secret_ids that a role has now.
    pub(crate) async fn secret_ids(&self, role: &str) -> Result<Vec<String>> {
        self.vault()?.list(&format!("auth/approle/role/{role}/secret-id")).await
    }

    /// Waits until a role has so many secret_ids.
    pub(crate) async fn wait_for_secret_ids(&self, role: &str, count: usize) -> Result<()> {
        let what = format!("{count} secret_ids of {role}");
        poll_until(&what, LIMIT, || async {
            match self.secret_ids(role).await {
                // Vault's list is no snapshot: it answers so while one of them is being destroyed.
                Err(error) if format!("{error:#}").contains("no content found at the index") => Ok(None),
                found => Ok((found?.len() == count).then_some(())),
            }
        })
        .await
    }
}
