//! Each start of each pod is served once, whatever it is called.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::stage::{Plan, Stage};
use super::workload::field;

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("two_pods_of_one_name_in_two_namespaces_get_one_token_each", On::Any, |cluster| twins(cluster).boxed_local()),
    ("a_pod_that_is_created_again_under_its_name_is_served_again", On::Any, |cluster| again(cluster).boxed_local()),
    ("a_pod_whose_sandbox_was_made_anew_is_served_at_its_new_address", On::Node, |cluster| {
        sandbox(cluster).boxed_local()
    }),
];

/// Bad input: "two pods of the same name in two namespaces".
async fn twins(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { watch: Some("~^twins(-too)?$".into()), ..Plan::new("twins") }).await?;
    cluster.namespace("twins-too").await?;
    let (one, two) = tokio::try_join!(stage.pod("web").create(), stage.pod("web").namespace("twins-too").create())?;
    let (one_log, two_log) = tokio::try_join!(one.served(), two.served())?;
    ensure!(field(&one_log, "accessor")? != field(&two_log, "accessor")?, "one token for two pods");
    one.took_one_push().await?;
    two.took_one_push().await?;
    ensure!(stage.logins().await?.len() == 2, "one login for each pod");
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    Ok(())
}

/// Bad input: "a pod deleted and re-created under its name".
async fn again(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("again")).await?;
    let mut accessors = Vec::new();
    for _ in 0..3 {
        let pod = stage.pod("web").create().await?;
        let log = pod.served().await?;
        pod.took_one_push().await?;
        accessors.push(field(&log, "accessor")?.to_owned());
        cluster.delete_pod(stage.name, "web").await?;
    }
    accessors.sort();
    let mut logins = stage.logins().await?;
    logins.sort();
    ensure!(accessors == logins, "tokens {accessors:?}, logins {logins:?}");
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    Ok(())
}

/// As after a restart of a node: the pod is the same, its containers and its address are not.
async fn sandbox(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("sandbox")).await?;
    let pod = stage.pod("web").create().await?;
    let first = pod.served().await?;
    cluster.restart_sandbox(stage.name, "web").await?;
    eventually("second login", LIMIT, || async { Ok((stage.logins().await?.len() == 2).then_some(())) }).await?;
    let second = eventually("second token", LIMIT, || async {
        let log = pod.served().await?;
        Ok((field(&log, "accessor")? != field(&first, "accessor")?).then_some(log))
    });
    stage.blame(second.await).await?;
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    Ok(())
}
