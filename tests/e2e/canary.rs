//! No secret is ever shown: everything that was printed, at debug level, is searched for every secret that Vault made.
//!
//! Vault's own audit log, unhashed, says which secrets there are: also those that nobody was meant to keep.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::Needles;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::stage::{Plan, Stage};

/// A value of the KV store that no log has any business with.
const KV_CANARY: &str = "canary-7f3a9c51d0e84b62";
/// Where secrets are in an entry of the audit log.
const SECRETS: [&str; 7] = [
    "/request/client_token",
    "/request/data/secret_id",
    "/request/data/token",
    "/auth/client_token",
    "/response/auth/client_token",
    "/response/wrap_info/token",
    "/response/data/secret_id",
];

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("no_secret_is_in_any_log_event_metric_or_status", On::Testbed, |cluster| canary(cluster).boxed_local())];

async fn canary(cluster: Arc<Cluster>) -> Result<()> {
    let bed = cluster.bed()?;
    let audit = bed.directory().join("vault-audit.log");
    let device = json!({"type": "file", "options": {"file_path": audit, "log_raw": "true"}});
    cluster.vault.write("sys/audit/canary", &device).await?;
    let stage = Stage::up(&cluster, Plan::new("canary")).await?;
    cluster.vault.write("secret/data/canary/greeting", &json!({"data": {"message": KV_CANARY}})).await?;
    let known = act(&stage).await?;
    // Its log so far, and a second start: what is printed at the end counts too.
    stage.controller.kill(&cluster).await?;
    stage.pod("last").create().await?.served().await?;

    let mut needles = Needles::default();
    needles.add(KV_CANARY);
    needles.add(&stage.token);
    known.iter().for_each(|secret| needles.add(secret));
    for line in std::fs::read_to_string(&audit)?.lines() {
        let entry: Value = serde_json::from_str(line)?;
        let found = SECRETS.iter().filter_map(|path| entry.pointer(path)?.as_str());
        found.filter(|secret| *secret != testbed::ROOT_TOKEN).for_each(|secret| needles.add(secret));
    }
    // At least: the controller's token, and for each pod a wrapping token, a secret_id and a client token.
    ensure!(needles.len() > 10, "only {} secrets are known", needles.len());
    let positive = format!("x{}", known.first().context("no secret was left for a pod")?);
    ensure!(needles.find(&positive).is_some(), "the search finds nothing");
    for (name, text) in everything(&cluster, &stage).await? {
        if let Some(line) = needles.line(&text) {
            anyhow::bail!("a secret is in {name}: {line}");
        }
    }
    Ok(())
}

/// Everything that a pod may see, good and bad. Returns what the init containers left for applications.
async fn act(stage: &Stage) -> Result<Vec<String>> {
    let cluster = &stage.cluster;
    stage.pod("token").create().await?;
    stage.pod("secret-id").init_env("RETRIEVE_TOKEN", "false").create().await?;
    let wrapped = stage.pod("wrapped").init_env("RETRIEVE_TOKEN", "false").init_env("UNWRAP_SECRET", "false");
    wrapped.create().await?;
    let wrong = stage.pod("wrong").role_id("11111111-2222-3333-4444-555555555555").create().await?;
    let unknown = stage.pod("unknown").role("no-such-role").create().await?;
    let lost = stage.pod("lost").init_env("VAULT_ADDR", "http://127.0.0.1:1").create().await?;
    let mut left = Vec::new();
    for (pod, file, key) in [
        ("token", "vault-token", "clientToken"),
        ("secret-id", "vault-secret-id", "secretId"),
        ("wrapped", "vault-wrapped-secret-id", "wrappedSecretId"),
    ] {
        Box::pin(stage.pod(pod).served()).await?;
        let content: Value = serde_json::from_str(&cluster.shell_file(stage.name, pod, file).await?)?;
        left.push(content[key].as_str().context("a file without its secret")?.to_owned());
    }
    wrong.restarted(1).await?;
    unknown.event("AppRoleRefused").await?;
    lost.event("SecretIdRetrying").await?;
    Ok(left)
}

/// What was printed, and what anybody who may read pods can see.
async fn everything(cluster: &Cluster, stage: &Stage) -> Result<Vec<(String, String)>> {
    let mut found = vec![("the metrics".to_owned(), stage.controller.metrics(cluster).await?)];
    for node in cluster.bed()?.nodes() {
        for file in node.all_log_files() {
            let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
            // Where the log lies says whose it is.
            found.push((file.display().to_string(), text));
        }
    }
    let events: Api<Event> = Api::all(cluster.client.clone());
    for event in events.list(&ListParams::default()).await? {
        found.push(("an Event".to_owned(), serde_json::to_string(&event)?));
    }
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    for pod in pods.list(&ListParams::default()).await? {
        found.push((format!("the status of {:?}", pod.metadata.name), serde_json::to_string(&pod.status)?));
    }
    // A search that misses a log finds nothing either.
    for line in
        ["kubernetes-vault has started", "level=debug msg=\"Listening on port 50000", "AppRoleRefused", "attempt="]
    {
        ensure!(found.iter().any(|(_, text)| text.contains(line)), "nothing that is searched contains {line:?}");
    }
    Ok(found)
}
