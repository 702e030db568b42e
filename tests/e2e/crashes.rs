//! Processes that end when they should not: the controller's, and init containers'.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::sample;
use super::rollout::ensured;
use super::stage::{Plan, Policy, Stage};
use super::workload::INIT;

/// Pods that are being served when the controller dies.
const PODS: usize = 10;

pub(crate) const ALL: [(&str, On, Case); 4] = [
    ("a_controller_killed_in_mid_delivery_serves_all_pods", On::Any, |cluster| killed(cluster).boxed_local()),
    ("a_controller_that_is_replaced_loses_nothing", On::Any, |cluster| replaced(cluster).boxed_local()),
    ("a_crash_looping_init_container_leaves_no_secret_id", On::Testbed, |cluster| loops(cluster).boxed_local()),
    ("a_crash_looping_init_container_makes_no_storm_under_the_references_policy", On::Testbed, |cluster| {
        loops_reference(cluster).boxed_local()
    }),
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

/// Bad input: "role_id of another role". What was refused is destroyed by its accessor.
async fn loops(cluster: Arc<Cluster>) -> Result<()> {
    let left = refused(&cluster, Plan::new("loops")).await?;
    // One push may have been under way when the pod was deleted: its secret_id is kept, and counted.
    ensure!(left <= 1, "{left} secret_ids are left under our policy");
    Ok(())
}

/// The same where the controller may not destroy: what was refused stays in the list, and nobody has it.
async fn loops_reference(cluster: Arc<Cluster>) -> Result<()> {
    refused(&cluster, Plan { policy: Policy::Reference, ..Plan::new("loops-reference") }).await.map(drop)
}

/// A pod that is refused again and again beside one that is not. Returns how many secret_ids Vault still lists.
async fn refused(cluster: &Arc<Cluster>, plan: Plan) -> Result<usize> {
    let stage = Stage::up(cluster, plan).await?;
    let wrong = stage.pod("wrong").role_id("11111111-2222-3333-4444-555555555555").create().await?;
    wrong.event_saying("PushRefused", "412").await?;
    wrong.restarted(3).await?;
    stage.pod("good").create().await?.served().await?;
    cluster.delete_pod(stage.name, "wrong").await?;
    // At most one for each start, and one for the pod that is well.
    let starts = cluster.starts(stage.name, "wrong", INIT)?;
    let metrics = stage.controller.metrics(cluster).await?;
    let series = format!("kubernetesvault_vault_secret_id_requests_total{{approle=\"{}\"}}", stage.name);
    let asked: usize = sample(&metrics, &series).unwrap_or_default();
    let counted = format!("{asked} secret_ids for {starts} starts");
    stage.blame(ensured((2..=starts + 1).contains(&asked), counted)).await?;
    ensure!(stage.logins().await?.len() == 1, "a login with a wrong role_id");
    let left = stage.secret_ids().await?.len();
    ensure!(left < asked, "{left} of {asked} secret_ids are left: the one that was used as well");
    Ok(left)
}

/// As in an update: the old one is asked to end, and a new one takes over.
async fn replaced(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { secret_id_uses: 0, ..Plan::new("replaced") }).await?;
    stage.pod("before").create().await?.served().await?;
    let old = stage.controller.pod(&cluster).await?;
    let (pods, ()) = tokio::try_join!(
        try_join_all(["one", "two", "three", "four"].map(|name| stage.pod(name).create())),
        cluster.delete_pod_in_order(&stage.controller.namespace, &old),
    )?;
    for pod in &pods {
        pod.served().await?;
        pod.took_one_push().await?;
    }
    ensure!(stage.controller.pod(&cluster).await? != old, "the controller was not replaced");
    ensure!(stage.logins().await?.len() == 5, "one login for each pod");
    ensure!(stage.secret_ids().await?.len() == 5, "one secret_id for each pod");
    Ok(())
}
