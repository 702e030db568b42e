//! Updates of all replicas, one after another, under a trickle of pods: nobody waits long, and nobody is served twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::stage::{Plan, Stage};
use super::trio::{Trio, deployment, stateful_set};
use super::workload::{INIT, Workload};

/// Between two pods of the trickle: what it is, no wait for something.
const TRICKLE: Duration = Duration::from_secs(1);
/// From the start of an init container to its end. A lead that changes hands takes a second where all cases run at
/// once; times of containers are whole seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The same where replicas and pods are containers that take seconds to start, on the same two cores.
const LONGEST_WAIT_KUBELETS: Duration = Duration::from_secs(15);

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("a_rolling_update_of_the_stateful_set_is_not_noticed_by_pods", On::Node, |cluster| {
        update(cluster, "rollout", "StatefulSet").boxed_local()
    }),
    ("a_rolling_update_of_a_deployment_with_a_surge_is_not_noticed_by_pods", On::Node, |cluster| {
        update(cluster, "surge", "Deployment").boxed_local()
    }),
];

async fn update(cluster: Arc<Cluster>, name: &'static str, kind: &str) -> Result<()> {
    let replicas = if kind == "Deployment" { deployment()? } else { stateful_set()? };
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![replicas]), ..Plan::new(name) }).await?;
    trio.settled(3).await?;
    let done = AtomicBool::new(false);
    let rolled = async {
        let rolled = roll(&trio, kind).await;
        done.store(true, Ordering::Relaxed);
        rolled
    };
    let (rolled, pods) = tokio::join!(rolled, trickle(&trio.stage, &done));
    trio.blame(rolled).await?;
    let pods = pods?;
    ensure!(pods.len() > 3, "only {} pods came meanwhile", pods.len());
    let mut longest = Duration::ZERO;
    for pod in &pods {
        trio.blame(pod.served().await).await?;
        pod.took_one_push().await?;
        longest = longest.max(waited(&cluster, pod).await?);
    }
    trio.settled(3).await?;
    trio.served_once(pods.len()).await?;
    eprintln!("{kind}: {} pods meanwhile, none waited longer than {} s", pods.len(), longest.as_secs());
    let limit = if cluster.has_log_files() { LONGEST_WAIT } else { LONGEST_WAIT_KUBELETS };
    let bounded = ensured(longest <= limit, format!("a pod waited for {longest:?}"));
    trio.blame(bounded).await
}

/// As a change of the image does. Until all pods are new ones, and ready.
async fn roll(trio: &Trio, kind: &str) -> Result<()> {
    let old = trio.uids().await?;
    let template = json!({"metadata": {"annotations": {"e2e/rolled": "once"}}});
    trio.patch(kind, &json!({"spec": {"template": template}})).await?;
    eventually("three new replicas", LIMIT, || async {
        let new = trio.uids().await?;
        Ok((new.len() == 3 && new.is_disjoint(&old)).then_some(()))
    })
    .await?;
    trio.settled(3).await.map(drop)
}

async fn trickle<'a>(stage: &'a Stage, done: &AtomicBool) -> Result<Vec<Workload<'a>>> {
    let mut pods = Vec::new();
    while !done.load(Ordering::Relaxed) {
        pods.push(stage.pod(&format!("web-{}", pods.len())).create().await?);
        tokio::time::sleep(TRICKLE).await;
    }
    Ok(pods)
}

async fn waited(cluster: &Cluster, pod: &Workload<'_>) -> Result<Duration> {
    let object = serde_json::to_value(cluster.pods(&pod.namespace).get(&pod.name).await?)?;
    let statuses = object["status"]["initContainerStatuses"].as_array().context("no init container")?;
    let end = statuses.iter().find(|status| status["name"] == INIT).context("no init container")?;
    let time = |key: &str| -> Result<Timestamp> {
        let text = end["state"]["terminated"][key].as_str().context("it has not ended")?;
        Ok(text.parse()?)
    };
    Ok(time("finishedAt")?.duration_since(time("startedAt")?).unsigned_abs())
}

pub(crate) fn ensured(holds: bool, message: String) -> Result<()> {
    ensure!(holds, message);
    Ok(())
}
