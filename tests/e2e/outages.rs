//! Servers that go away and come back. Vault serves TLS here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::stage::{Plan, Stage};
use super::workload::field;

/// How long Vault is sealed: it is what the case is about, not a wait for something.
const SEALED: Duration = Duration::from_secs(20);
/// What a controller may log about an API server that was away for some seconds.
const LOG_LINES: usize = 100;

pub(crate) const ALL: [(&str, On, Case); 4] = [
    ("pods_wait_while_vault_is_sealed_and_are_served_then", On::Breakable, |cluster| sealed(cluster).boxed_local()),
    ("pods_wait_while_vault_does_not_answer_and_are_served_then", On::Breakable, |cluster| {
        paused(cluster).boxed_local()
    }),
    ("service_goes_on_after_the_api_server_was_killed", On::Breakable, |cluster| api_server(cluster).boxed_local()),
    ("a_ca_bundle_reaches_the_pod_and_verifies_vault", On::Breakable, |cluster| ca_bundle(cluster).boxed_local()),
];

/// Bad input: "Vault sealed".
async fn sealed(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { secret_id_uses: 0, ..Plan::new("sealed") }).await?;
    stage.pod("before").create().await?.served().await?;
    let vault = cluster.bed()?.vault()?;
    vault.seal().await?;
    let since = Instant::now();
    let waiting = async {
        let pods = try_join_all(["one", "two", "three"].map(|name| stage.pod(name).create())).await?;
        for pod in &pods {
            pod.event_saying("VaultUnavailable", "sealed").await?;
        }
        // A sealed Vault must not block a rollout.
        stage.controller.ready(&cluster).await?;
        tokio::time::sleep(SEALED.saturating_sub(since.elapsed())).await;
        anyhow::Ok(pods)
    };
    let pods = waiting.await;
    vault.unseal().await?;
    for pod in &pods? {
        pod.served().await?;
        pod.took_one_push().await?;
    }
    ensure!(stage.logins().await?.len() == 4, "one login for each pod");
    ensure!(stage.secret_ids().await?.len() == 4, "one secret_id for each pod");
    Ok(())
}

/// Bad input: "Vault slow (accepts and never answers)".
async fn paused(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("paused")).await?;
    stage.pod("before").create().await?.served().await?;
    let vault = cluster.bed()?.vault()?;
    vault.pause().await?;
    let waiting = async {
        let pod = stage.pod("after").create().await?;
        pod.event("VaultUnavailable").await?;
        anyhow::Ok(pod)
    };
    let pod = waiting.await;
    vault.resume().await?;
    let pod = pod?;
    pod.served().await?;
    pod.took_one_push().await?;
    ensure!(stage.logins().await?.len() == 2, "one login for each pod");
    Ok(())
}

/// Bad input: "watch: API server restart".
async fn api_server(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("restart")).await?;
    stage.pod("before").create().await?.served().await?;
    let lines = stage.controller.logs(&cluster).await?.lines().count();
    let plane = cluster.bed()?.control_plane();
    plane.kill_api_server().await;
    plane.start_api_server().await?;
    let pod = stage.pod("after").create().await?;
    pod.served().await?;
    pod.took_one_push().await?;
    let log = stage.controller.logs(&cluster).await?;
    let new = log.lines().count().saturating_sub(lines);
    ensure!(new < LOG_LINES, "{new} lines of log about one restart:\n{log}");
    ensure!(stage.logins().await?.len() == 2, "one login for each pod");
    Ok(())
}

async fn ca_bundle(cluster: Arc<Cluster>) -> Result<()> {
    ensure!(cluster.vault.for_pods.starts_with("https://"), "this Vault does not serve TLS");
    let stage = Stage::up(&cluster, Plan::new("bundle")).await?;
    let log = stage.pod("web").create().await?.served().await?;
    ensure!(field(&log, "CA bundle")? == "ca.crt", "{log}");
    ensure!(field(&log, "Vault")? == cluster.vault.for_pods, "{log}");
    let bundle = cluster.shell_file(stage.name, "web", "ca.crt").await?;
    ensure!(Some(bundle.trim()) == cluster.vault.ca.as_deref().map(str::trim), "another bundle: {bundle}");
    Ok(())
}
