//! `check` and `explain`, typed in the controller's pod: with its service account, its policy, and nothing more.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::Value;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::NAME;
use super::stage::{Plan, Stage};

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("check_and_explain_in_the_pod_name_what_is_wrong", On::Node, |cluster| commands(cluster).boxed_local())];

async fn commands(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("commands")).await?;
    let served = stage.pod("served").create().await?;
    served.served().await?;
    // The manifests grant what the controller uses: there is nothing to complain of.
    let (code, checked) = typed(&stage, &["check"]).await?;
    let complaints: Vec<String> = findings(&checked, &["error", "warning"]);
    ensure!(code == 0 && complaints.is_empty(), "exit code {code}, {complaints:#?}");
    explained(&stage, "served", "delivered", 0, "has its token").await?;

    let unknown = stage.pod("unknown").role("no-such-role").create().await?;
    let missing = stage.pod("missing").container("no-such-container").create().await?;
    unknown.event("AppRoleRefused").await?;
    missing.event("SecretIdNotDelivered").await?;
    explained(&stage, "unknown", "roleRefused", 1, "denies permission").await?;
    explained(&stage, "missing", "podRefused", 1, "no-such-container").await?;
    explained(&stage, "nobody", "notFound", 1, "There is no pod").await?;
    let (code, checked) = typed(&stage, &["check"]).await?;
    let (errors, warnings) = (findings(&checked, &["error"]), findings(&checked, &["warning"]).join("\n"));
    ensure!(code == 1 && errors.len() == 1, "exit code {code}, {errors:#?}");
    ensure!(errors[0].contains("\"no-such-role\" (commands/unknown) may not be asked for"), "{errors:#?}");
    ensure!(warnings.contains("commands/missing gets no token"), "{warnings}");
    // Neither has made a secret_id, or has disturbed the controller.
    ensure!(stage.logins().await?.len() == 1 && stage.secret_ids().await?.is_empty(), "secret_ids were made");
    stage.pod("after").create().await?.served().await?;
    Ok(())
}

/// Types a command in the controller's pod. Returns its exit code, and the JSON that it has printed.
async fn typed(stage: &Stage, command: &[&str]) -> Result<(i32, Value)> {
    let (cluster, namespace) = (&stage.cluster, stage.controller.namespace.as_str());
    let pod = stage.controller.pod(cluster).await?;
    let config = "--config=/kubernetes-vault/kubernetes-vault.yml";
    let whole = [&["kubernetes-vault"], command, &["--output=json", config]].concat();
    let output = cluster.exec(namespace, &pod, NAME, &whole).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&printed)
        .with_context(|| format!("{command:?}: {printed}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().context("it was killed")?, json))
}

/// Waits until a pod is explained by this cause.
async fn explained(stage: &Stage, name: &str, kind: &str, code: i32, words: &str) -> Result<()> {
    let pod = format!("{}/{name}", stage.name);
    let what = format!("{kind} of {pod}");
    let found = eventually(&what, LIMIT, || async {
        let (code, json) = typed(stage, &["explain", "pod", &pod]).await?;
        ensure!(json["kind"] == kind, "{json:#}");
        Ok(Some((code, json)))
    });
    let (exited, json) = stage.blame(found.await).await?;
    let conclusion = json["conclusion"].as_str().unwrap_or_default();
    ensure!(exited == code && conclusion.contains(words), "exit code {exited}: {json:#}");
    Ok(())
}

fn findings(checked: &Value, levels: &[&str]) -> Vec<String> {
    let all = checked["findings"].as_array().into_iter().flatten();
    let wanted = all.filter(|one| levels.iter().any(|level| one["level"] == *level));
    wanted.filter_map(|one| one["cause"].as_str()).map(str::to_owned).collect()
}
