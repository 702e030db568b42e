//! What a pod's author is told by Events, and what is not done for a pod that cannot be served.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use serde_json::json;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::controller::sample;
use super::stage::{Plan, Stage};
use super::workload::INIT;

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("an_unknown_role_is_an_event_and_no_storm", On::Any, |cluster| role(cluster).boxed_local()),
    ("a_role_that_is_made_later_is_served_then", On::Any, |cluster| later(cluster).boxed_local()),
    ("a_wrong_annotation_is_an_event_and_no_push", On::Any, |cluster| annotations(cluster).boxed_local()),
];

/// Bad input: "unknown role; role with `../`, `/`, `%2f`, newline, 10 kB, non-ASCII".
async fn role(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("role")).await?;
    let unknown = stage.pod("unknown").role("no-such-role").create().await?;
    let long = "r".repeat(10_000);
    let malformed = [
        ("parent", "../../token/create"),
        ("slash", "role/secret-id"),
        ("escaped", "role%2fsecret-id"),
        ("newline", "role\nX-Vault-Token: x"),
        ("long", &long),
        ("foreign", "rôle"),
    ];
    for (name, role) in malformed {
        stage.pod(name).role(role).create().await?;
    }
    let note = unknown.event("AppRoleRefused").await?;
    ensure!(note.contains("Vault issues no secret_id"), "{note}");
    for (name, _) in malformed {
        let note = cluster.event(stage.name, name, "SecretIdNotDelivered", "").await?;
        ensure!(note.len() < 1_024, "{name}: a note of {} bytes", note.len());
    }
    // Another pod is served meanwhile, and its role is the only one that metrics name.
    stage.pod("good").create().await?.served().await?;
    let metrics = stage.controller.metrics(&cluster).await?;
    let labels: Vec<&str> = metrics.lines().filter(|line| line.contains("approle=\"")).collect();
    let known = |line: &&str| line.contains("approle=\"role\"") || line.contains("approle=\"unknown\"");
    ensure!(labels.iter().all(known), "labels that a pod's author made: {labels:#?}");
    ensure!(stage.logins().await?.len() == 1, "logins that nobody asked for");
    // Asked again slowly: 5 s, then longer. One request would be enough here, ten would be a storm.
    let asked = sample::<f64>(&metrics, "kubernetesvault_vault_secret_id_requests_total{approle=\"unknown\"}");
    ensure!(asked.is_some_and(|asked| (1.0..10.0).contains(&asked)), "{asked:?} requests for an unknown role");
    Ok(())
}

/// Nothing but the role has to be put right; the init container was killed meanwhile, and is another one.
async fn later(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("later")).await?;
    let role = "auth/approle/role/later";
    let definition = cluster.vault.read(role).await?["data"].clone();
    cluster.vault.delete(role).await?;
    let pod = stage.pod("web").create().await?;
    pod.event("AppRoleRefused").await?;
    cluster.kill(stage.name, "web", INIT).await?;
    pod.restarted(1).await?;
    cluster.vault.write(role, &definition).await?;
    cluster.vault.write(&format!("{role}/role-id"), &json!({"role_id": stage.role_id})).await?;
    pod.served().await?;
    ensure!(stage.logins().await?.len() == 1, "one login for one pod");
    Ok(())
}

/// Bad input: "annotation naming no init container, an ordinary container".
async fn annotations(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("notes")).await?;
    let missing = stage.pod("missing").container("no-such-container").create().await?;
    let ordinary = stage.pod("ordinary").container("sample-app").create().await?;
    let missing_note = missing.event("SecretIdNotDelivered").await?;
    let ordinary_note = ordinary.event("SecretIdNotDelivered").await?;
    ensure!(missing_note.contains("no-such-container") || missing_note.contains("init container"), "{missing_note}");
    ensure!(ordinary_note != missing_note, "{ordinary_note}");
    // Both came before this one, and nothing was asked for them.
    stage.pod("good").create().await?.served().await?;
    let metrics = stage.controller.metrics(&cluster).await?;
    ensure!(metrics.contains("kubernetesvault_vault_secret_id_requests_total{approle=\"notes\"} 1"), "{metrics}");
    for name in ["missing", "ordinary"] {
        let pod = serde_json::to_value(cluster.pods(stage.name).get(name).await?)?;
        ensure!(pod["status"]["phase"] == "Pending", "{name} was served");
    }
    Ok(())
}
