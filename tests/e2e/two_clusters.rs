//! Two clusters, formed apart, whose pods come to stand behind one service: they stay two, and say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use kubernetes_vault::k8s::peers::PeerDirectory;
use serde_json::{Value, json};
use testbed::Signal;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::{NAME, Rbac, SERVICE, documents, rename, sample};
use super::failover::{create, served};
use super::rollout::ensured;
use super::stage::Plan;
use super::trio::{Trio, lone_pod, read};

/// The label by which the service selects its pods, and the one that the pod apart has beside it.
const LABEL: &str = "app.kubernetes.io/name";
const SIDE: &str = "side";
/// The pod that is a cluster of its own.
const APART: &str = "apart";
/// The fourth replica of the StatefulSet.
const NEWCOMER: &str = "kubernetes-vault-3";
/// What the log says, of members and of a newcomer.
const SEVERAL: &str = "several clusters are behind this service";

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("two_clusters_behind_one_service_stay_two_and_each_names_the_other", On::Testbed, |cluster| {
        stay_two(cluster).boxed_local()
    })];

async fn stay_two(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan::new("two-clusters")).await?;
    let leader = trio.settled(3).await?;
    let ours = cluster_of(&trio, &leader).await?;
    let theirs = form_apart(&trio).await?;
    ensure!(ours != theirs, "both clusters are {ours}");

    select(&trio, &json!({LABEL: NAME})).await?;
    for (pod, other, cluster) in [(leader.as_str(), APART, &theirs), (APART, leader.as_str(), &ours)] {
        trio.blame(names(&trio, pod, other, cluster).await).await?;
    }
    // Neither an election nor one more replica brings them together.
    trio.signal(&leader, Signal::KILL)?;
    trio.settled_without(&[APART], 3, 3).await?;
    trio.scale(4).await?;
    trio.blame(logs(&trio, NEWCOMER, &["waiting for peers", SEVERAL, &ours, &theirs, APART]).await).await?;
    let pods = create(&trio.stage, "two", 2).await?;
    served(&trio, &pods).await?;
    let statuses = trio.statuses().await?.into_iter();
    let are: BTreeMap<String, Value> = statuses.map(|mut seen| (seen.pod, seen.status["cluster"].take())).collect();
    let stay = |pod: &str| match pod {
        APART => json!(theirs),
        NEWCOMER => Value::Null,
        _ => json!(ours),
    };
    let stayed = are.len() == 5 && are.iter().all(|(pod, cluster)| *cluster == stay(pod));
    trio.blame(ensured(stayed, format!("{ours} and {theirs} became {are:?}"))).await?;

    // As docs/operations.md says: one of them stays, and the storage of the other goes.
    cluster.delete_pod(trio.namespace(), APART).await?;
    trio.settled_with(4, 3).await?;
    let pods = create(&trio.stage, "one", 1).await?;
    served(&trio, &pods).await?;
    trio.served_once(3).await
}

/// Has a pod form a cluster while the service lists nobody else. Returns the cluster's id.
async fn form_apart(trio: &Trio) -> Result<String> {
    let cluster = &trio.stage.cluster;
    select(trio, &json!({SIDE: APART})).await?;
    // A list that still had the three would be a reason to join them.
    let (directory, _) = PeerDirectory::new(cluster.client.clone(), trio.namespace(), NAME);
    eventually("service without pods", LIMIT, || async { Ok(directory.list().await?.is_empty().then_some(())) })
        .await?;
    let mut pod = lone_pod(trio.namespace(), APART)?;
    pod["metadata"]["labels"][SIDE] = json!(APART);
    cluster.apply(&pod).await?;
    let formed = eventually("cluster of one", LIMIT, || async {
        let status = trio.status(APART).await?;
        Ok((status["role"] == "leader").then_some(()))
    });
    trio.blame(formed.await).await?;
    cluster_of(trio, APART).await
}

/// Changes which pods are behind the service.
async fn select(trio: &Trio, labels: &Value) -> Result<()> {
    let mut service = documents(SERVICE)?.pop().context("no service")?;
    rename(&mut service, trio.namespace(), Rbac::Cluster);
    service["spec"]["selector"] = labels.clone();
    trio.stage.cluster.apply(&service).await
}

async fn cluster_of(trio: &Trio, pod: &str) -> Result<String> {
    let status = trio.status(pod).await?;
    Ok(status["cluster"].as_str().with_context(|| format!("{pod} is in no cluster"))?.to_owned())
}

/// Waits until a replica's log names `other` as one of `cluster`, its metrics count that, and its status says so.
async fn names(trio: &Trio, pod: &str, other: &str, cluster: &str) -> Result<()> {
    let bed = trio.stage.cluster.bed()?;
    let ip = bed.node_of(trio.namespace(), other)?.network(trio.namespace(), other)?.ip;
    logs(trio, pod, &[SEVERAL, &format!("peer={ip}"), cluster]).await?;
    eventually(&format!("count of it in the metrics of {pod}"), LIMIT, || async {
        let metrics = trio.stage.controller.metrics_of(&trio.stage.cluster, pod).await?;
        let count = sample::<f64>(&metrics, "kubernetesvault_peers_refused_total{cause=\"another_cluster\"}");
        Ok(count.filter(|count| *count > 0.0).map(drop))
    })
    .await?;
    let status = trio.status(pod).await?;
    ensure!(status["anotherClusterMetMs"].is_u64(), "the status of {pod} says nothing of it: {status}");
    Ok(())
}

/// Waits for a line with all these words in the log of a replica.
async fn logs(trio: &Trio, pod: &str, words: &[&str]) -> Result<()> {
    eventually(&format!("line in the log of {pod} with {words:?}"), LIMIT, || async {
        let log = read(&trio.log_file(pod)?)?;
        Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
    .await
}
