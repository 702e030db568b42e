//! Nodes that go away: drained in order, or without power, with pods that are being served and with the leader on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bed::{Case, On};
use crate::cluster::{Cluster, LIMIT, eventually};
use crate::nodes::node_of;
use crate::stage::Plan;
use crate::trio::{Trio, measured, stateful_set};
use crate::workload::INIT;

/// The API server and etcd live there: it is not one to lose.
const CONTROL_PLANE: &str = "control-plane";
const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Pods that are being served when a node is drained.
const PODS: usize = 9;
/// From a leader's last moment to the token of a pod that came after it: election, delivery, and a kubelet's part.
const NODE_LOST: Duration = Duration::from_secs(15);
/// Handing the lead on puts it on another node soon: of three, two will do.
const HANDOVERS: usize = 8;

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("a_node_is_drained_during_delivery_and_each_pod_that_runs_has_one_token", On::ThreeNodes, |cluster| {
        drained(cluster).boxed_local()
    }),
    ("a_node_without_power_and_the_leader_on_it_does_not_stop_deliveries", On::ThreeNodes, |cluster| {
        without_power(cluster).boxed_local()
    }),
];

async fn drained(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![stateful_set()?]), ..Plan::new("drain") }).await?;
    let (_, node) = leader_on_a_worker(&trio, &cluster).await?;
    let pod = trio.stage.pod("web").object()?;
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": trio.stage.name},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"],
            },
        },
    });
    cluster.apply(&deployment).await?;
    // One of them waits for its secret_id on the node, or has just got it.
    let pods = cluster.pods(trio.stage.name);
    eventually("init container on the node", LIMIT, || async {
        let on_node = pods.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
        Ok(on_node.iter().any(|pod| started(pod, INIT)).then_some(()))
    })
    .await?;
    cordon(&cluster, &node, true).await?;
    let moved = async {
        for namespace in [trio.stage.name, trio.namespace()] {
            evict_from(&cluster, namespace, &node).await?;
        }
        eventually("all pods ready elsewhere", LIMIT, || async {
            let all = pods.list(&ListParams::default()).await?.items;
            let there = all.iter().filter(|pod| is_running(pod) && node_of(pod).is_ok_and(|on| on != node)).count();
            Ok((there == PODS && all.len() == PODS).then_some(()))
        })
        .await
    };
    let moved = moved.await;
    cordon(&cluster, &node, false).await?;
    trio.blame(moved).await?;
    for pod in pods.list(&ListParams::default()).await?.items {
        let pod = trio.stage.pod(&pod.name_any());
        pod.served().await?;
        pod.took_one_push().await?;
    }
    // Those that were evicted may have had theirs: at most as many as were on one node.
    let logins = trio.stage.logins().await?.len();
    ensure!((PODS..=2 * PODS).contains(&logins), "{logins} logins for {PODS} pods, some of them evicted");
    trio.settled(3).await.map(drop)
}

async fn without_power(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![stateful_set()?]), ..Plan::new("power") }).await?;
    let (leader, node) = leader_on_a_worker(&trio, &cluster).await?;
    let other = other_worker(&cluster, &node).await?;
    create_on(&trio, &cluster, "before", &other).await?;
    trio.stage.pod("before").served().await?;
    let nodes = cluster.nodes()?;
    nodes.power_off(&node).await?;
    let at = Instant::now();
    let served = async {
        create_on(&trio, &cluster, "after", &other).await?;
        trio.stage.pod("after").served().await
    };
    let served = served.await;
    let took = at.elapsed();
    let led = trio.led_without(&[&leader]).await;
    nodes.power_on(&node).await?;
    trio.blame(served).await?;
    led?;
    measured("a node's loss to the token of a pod that came after it", took, NODE_LOST)?;
    trio.stage.pod("after").took_one_push().await?;
    // The node comes back with the containers that it had, started again: three voters, and a pod on it is served.
    eventually("node that is ready again", LIMIT, || async { Ok(is_ready(&cluster, &node).await?.then_some(())) })
        .await?;
    trio.settled(3).await?;
    create_on(&trio, &cluster, "again", &node).await?;
    trio.stage.pod("again").served().await?;
    trio.stage.pod("again").took_one_push().await?;
    trio.served_once(3).await
}

/// The leader's pod and its node, once that is one that may be lost: asked to end elsewhere, a leader hands on.
async fn leader_on_a_worker(trio: &Trio, cluster: &Cluster) -> Result<(String, String)> {
    for _ in 0..HANDOVERS {
        let leader = trio.settled(3).await?;
        let pod = cluster.pods(trio.namespace()).get(&leader).await?;
        let node = node_of(&pod)?.to_owned();
        if !node.ends_with(CONTROL_PLANE) {
            return Ok((leader, node));
        }
        cluster.delete_pod_in_order(trio.namespace(), &leader).await?;
    }
    bail!("the leader stays on the control plane's node")
}

async fn other_worker(cluster: &Cluster, than: &str) -> Result<String> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let all = nodes.list(&ListParams::default().labels(&format!("!{CONTROL_PLANE_LABEL}"))).await?;
    let found = all.iter().map(kube::ResourceExt::name_any).find(|name| name != than);
    found.context("there is no other worker")
}

/// On a node of choice: the scheduler goes on to choose a lost one for most of a minute.
async fn create_on(trio: &Trio, cluster: &Cluster, name: &str, node: &str) -> Result<()> {
    let mut pod = trio.stage.pod(name).object()?;
    pod["spec"]["nodeName"] = json!(node);
    let pod: Pod = serde_json::from_value(pod)?;
    cluster.pods(trio.stage.name).create(&PostParams::default(), &pod).await?;
    Ok(())
}

async fn cordon(cluster: &Cluster, node: &str, unschedulable: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = json!({"spec": {"unschedulable": unschedulable}});
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// As `kubectl drain` does: by evictions, which a disruption budget may refuse for a while.
async fn evict_from(cluster: &Cluster, namespace: &str, node: &str) -> Result<()> {
    let pods = cluster.pods(namespace);
    for pod in pods.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await? {
        let name = pod.name_any();
        eventually(&format!("eviction of {name}"), LIMIT, || async {
            pods.evict(&name, &EvictParams::default()).await?;
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

async fn is_ready(cluster: &Cluster, node: &str) -> Result<bool> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let conditions = nodes.get(node).await?.status.and_then(|status| status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

fn started(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    statuses.into_iter().any(|one| one.name == container && one.container_id.is_some())
}

fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}
