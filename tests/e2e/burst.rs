//! Many pods at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use kube::api::ListParams;

use super::bed::{Case, On};
use super::cluster::{Cluster, eventually};
use super::stage::{Plan, Policy, Stage};
use super::workload::field;

/// As many as the issue says.
const PODS: usize = 200;
/// Requests to the API server at once, while they are made and watched.
const PARALLEL: usize = 25;
/// For all of them to run.
const STARTED: Duration = Duration::from_secs(420);

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("two_hundred_pods_at_once_get_one_token_each", On::Any, |cluster| burst(cluster).boxed_local())];

async fn burst(cluster: Arc<Cluster>) -> Result<()> {
    // What is used stays in Vault's list: so a secret_id too many would show, wherever it went.
    let plan = Plan { policy: Policy::Reference, secret_id_uses: 0, ..Plan::new("burst") };
    let stage = Stage::up(&cluster, plan).await?;
    let names: Vec<String> = (0..PODS).map(|index| format!("web-{index}")).collect();
    let pods: Vec<_> =
        stream::iter(&names).map(|name| stage.pod(name).create()).buffer_unordered(PARALLEL).try_collect().await?;
    // Hundreds of containers that are real ones take minutes to start on two cores, whoever serves them.
    let all = cluster.pods(stage.name);
    let run = eventually("pods that run, all of them", STARTED, || async {
        let running = all.list_metadata(&ListParams::default().fields("status.phase=Running")).await?.items.len();
        Ok((running == PODS).then_some(()))
    });
    stage.blame(run.await).await?;
    let accessors: Vec<String> = stream::iter(&pods)
        .map(|pod| async {
            let log = pod.served().await?;
            pod.took_one_push().await?;
            field(&log, "accessor").map(str::to_owned)
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let distinct: BTreeSet<&String> = accessors.iter().collect();
    ensure!(distinct.len() == PODS, "{} different tokens for {PODS} pods", distinct.len());
    let logins = stage.logins().await?;
    ensure!(logins.len() == PODS, "{} logins for {PODS} pods", logins.len());
    let secret_ids = stage.secret_ids().await?;
    ensure!(secret_ids.len() == PODS, "{} secret_ids for {PODS} pods", secret_ids.len());
    Ok(())
}
