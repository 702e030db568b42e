//! Processes that end when they should not: the controller's, and init containers'.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::stage::{Plan, Stage};
use super::workload::INIT;

/// Pods that are being served when the controller dies.
const PODS: usize = 10;

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("a_controller_killed_in_mid_delivery_serves_all_pods", On::Any, |cluster| killed(cluster).boxed_local()),
    ("a_crash_looping_init_container_makes_no_storm_of_secret_ids", On::Any, |cluster| loops(cluster).boxed_local()),
];

async fn killed(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { secret_id_uses: 0, ..Plan::new("killed") }).await?;
    stage.controller.ready(&cluster).await?;
    let names: Vec<String> = (0..PODS).map(|index| format!("web-{index}")).collect();
    let pods = try_join_all(names.iter().map(|name| stage.pod(name).create())).await?;
    // Some have theirs, others do not: that is in mid-delivery.
    eventually("first delivery", LIMIT, || async { Ok((!stage.logins().await?.is_empty()).then_some(())) }).await?;
    stage.controller.kill(&cluster).await?;
    for pod in &pods {
        pod.served().await?;
        pod.took_one_push().await?;
    }
    let logins = stage.logins().await?.len();
    ensure!(logins == PODS, "{logins} logins for {PODS} pods");
    Ok(())
}

/// Bad input: "role_id of another role".
async fn loops(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { secret_id_uses: 0, ..Plan::new("loops") }).await?;
    let wrong = stage.pod("wrong").role_id("11111111-2222-3333-4444-555555555555").create().await?;
    let note = wrong.event("PushRefused").await;
    let restarted = cluster
        .pod_when(stage.name, "wrong", "third restart", |pod| {
            pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(3)
        })
        .await?;
    // Each start may cost one, later starts wait for the controller's back-off; what was refused is destroyed.
    let restarts = restarted["status"]["initContainerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
    let left = u64::try_from(stage.secret_ids().await?.len())?;
    ensure!(left <= 1, "{left} secret_ids are left after {restarts} restarts");
    let log = cluster.logs(stage.name, "wrong", INIT).await?;
    ensure!(note.is_ok() || log.contains("VAULT_ROLE_ID"), "{log}");
    // Nobody else waits for it.
    stage.pod("good").create().await?.served().await?;
    ensure!(stage.logins().await?.len() == 1, "a login with a wrong role_id");
    Ok(())
}
