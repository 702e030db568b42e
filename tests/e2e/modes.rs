//! What an application gets: the three modes of the init container, under either policy.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::stage::{Plan, Policy, Stage};
use super::workload::field;

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("a_pod_holds_a_token_that_reads_a_secret", On::Any, |cluster| token(cluster).boxed_local()),
    ("the_three_modes_work_under_the_references_policy", On::Any, |cluster| modes(cluster).boxed_local()),
    ("another_mount_of_approle_is_served", On::Any, |cluster| mount(cluster).boxed_local()),
];

async fn token(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("token")).await?;
    let pod = stage.pod("web").create().await?;
    let log = pod.served().await?;
    ensure!(field(&log, "lease duration")? == "21600 s", "{log}");
    ensure!(stage.logins().await? == [field(&log, "accessor")?], "{log}");
    pod.took_one_push().await?;
    let note = pod.event("SecretIdDelivered").await?;
    ensure!(note.contains("took its secret_id"), "{note}");
    // It was good for one login, and nothing else was made.
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    let metrics = stage.controller.metrics(&cluster).await?;
    for line in [
        "kubernetesvault_server_secret_pushes_total{approle=\"token\"} 1",
        "kubernetesvault_vault_secret_id_requests_total{approle=\"token\"} 1",
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    Ok(())
}

async fn modes(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { policy: Policy::Reference, ..Plan::new("modes") }).await?;
    let token = stage.pod("token").create().await?;
    let secret_id = stage.pod("secret-id").init_env("RETRIEVE_TOKEN", "false").create().await?;
    let wrapped = stage.pod("wrapped").init_env("RETRIEVE_TOKEN", "FALSE").init_env("UNWRAP_SECRET", "false");
    let wrapped = wrapped.create().await?;
    let logs = [token.served().await?, secret_id.served().await?, wrapped.served().await?];
    for (log, file) in logs.iter().zip(["vault-token", "vault-secret-id", "vault-wrapped-secret-id"]) {
        ensure!(log.lines().next().is_some_and(|line| line.ends_with(&format!(": {file}"))), "{log}");
    }
    for pod in [&token, &secret_id, &wrapped] {
        pod.took_one_push().await?;
    }
    ensure!(stage.logins().await?.len() == 3, "each application logs in once");
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    Ok(())
}

async fn mount(cluster: Arc<Cluster>) -> Result<()> {
    let mut plan = Plan { mount: "teams/approle", ..Plan::new("mount") };
    plan.vault["approleMount"] = "teams/approle".into();
    let stage = Stage::up(&cluster, plan).await?;
    let log = stage.pod("web").create().await?.served().await?;
    ensure!(stage.logins().await? == [field(&log, "accessor")?], "{log}");
    Ok(())
}
