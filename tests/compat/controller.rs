//! Our controller as a process, with a configuration as the Go version's documents have it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;
use testbed::poll_until;
use tokio::process::Command;

use crate::process::{CONTROLLER, Ended, LIMIT, Running};
use crate::world::World;

/// Where it serves metrics, on an address of its own.
const METRICS_PORT: u16 = 9099;
const HEALTH_PORT: u16 = 9098;

/// What differs between configurations.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `vault.addr`.
    pub(crate) vault: String,
    pub(crate) token: String,
    /// More lines of the section `vault`, indented.
    pub(crate) vault_more: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    /// Who it is for the API server.
    pub(crate) kubeconfig: PathBuf,
}

impl Settings {
    /// A configuration that works.
    pub(crate) fn good(world: &World, namespace: &str) -> Self {
        Self {
            vault: world.vault.clone(),
            token: world.token.clone(),
            vault_more: String::new(),
            namespace: namespace.to_owned(),
            service: "kubernetes".to_owned(),
            kubeconfig: world.bed.kubeconfig(),
        }
    }

    fn yaml(&self, ip: Ipv4Addr, raft_dir: &Path) -> String {
        let Self { vault, token, vault_more, namespace, service, .. } = self;
        format!(
            "raftDir: {}\nvault:\n  addr: {vault}\n  token: {token}\n{vault_more}kubernetes:\n  watchNamespace: {namespace}\n  \
             serviceNamespace: default\n  service: {service}\nprometheus:\n  address: {ip}:{METRICS_PORT}\nhealth:\n  \
             address: {ip}:{HEALTH_PORT}\n",
            raft_dir.display()
        )
    }
}

/// The program with these arguments and variables, and no others, in this directory.
pub(crate) fn program(arguments: &[&str], environment: &[(&str, &str)], directory: &Path) -> Result<Running> {
    let mut command = Command::new(CONTROLLER);
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(directory);
    Running::start(command)
}

/// A running controller.
pub(crate) struct Controller {
    pub(crate) running: Running,
    _directory: TempDir,
    ip: Ipv4Addr,
}

impl Controller {
    /// Starts it beside the real API server.
    pub(crate) fn start(world: &World, settings: &Settings, arguments: &[&str]) -> Result<Self> {
        let [high, low] = world.next_number().to_be_bytes();
        let ip = Ipv4Addr::new(127, 1, high, low);
        let directory = tempfile::tempdir()?;
        // The name that is looked for where no argument says another.
        std::fs::write(
            directory.path().join("kubernetes-vault.yml"),
            settings.yaml(ip, &directory.path().join("raft")),
        )?;
        let environment = [("KUBECONFIG", settings.kubeconfig.to_str().unwrap_or_default())];
        let running = program(arguments, &environment, directory.path())?;
        Ok(Self { running, _directory: directory, ip })
    }

    /// Starts it and waits until Vault has taken its token.
    pub(crate) async fn at_work(world: &World, settings: &Settings) -> Result<Self> {
        let mut controller = Self::start(world, settings, &[])?;
        controller.running.until("logged in to Vault").await?;
        Ok(controller)
    }

    /// Its metrics.
    pub(crate) async fn metrics(&self, world: &World) -> Result<String> {
        let url = format!("http://{}:{METRICS_PORT}/metrics", self.ip);
        Ok(world.http.get(url).send().await?.error_for_status()?.text().await?)
    }

    /// Waits for a line of its metrics that begins so, and returns them all.
    pub(crate) async fn metrics_with(&self, world: &World, start: &str) -> Result<String> {
        poll_until(start, LIMIT, || async {
            // Until it listens there is none.
            let page = self.metrics(world).await.unwrap_or_default();
            Ok(page.lines().any(|line| line.starts_with(start)).then_some(page))
        })
        .await
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self, world: &World) -> Result<()> {
        let url = format!("http://{}:{HEALTH_PORT}/readyz", self.ip);
        poll_until("readiness", LIMIT, || async {
            let answer = world.http.get(&url).send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn terminate(self) -> Result<Ended> {
        self.running.terminate().await
    }
}
