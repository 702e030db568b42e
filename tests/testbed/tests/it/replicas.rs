//! What a workload of several replicas needs: endpoints of pods in any state, and storage of every kind.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use testbed::{Signal, Testbed, poll_until};

use super::bed::{LIMIT, create, pods, shell, wait_for, wait_for_phase};

/// Says what it finds in each of the folders, and leaves a mark there.
const MARK: &str = "for d in /var/lib/layer /empty /node; do mkdir -p $d; \
    echo $d $(cat $d/mark 2>/dev/null | wc -l); echo x >> $d/mark; done; echo marked; exec sleep 1000";

fn storing(name: &str) -> Value {
    let mut app = shell("app", MARK);
    app["env"] = json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    app["volumeMounts"] = json!([
        {"name": "empty", "mountPath": "/empty"},
        {"name": "node", "mountPath": "/node", "subPathExpr": "$(POD_NAME)"},
    ]);
    let volumes = json!([
        {"name": "empty", "emptyDir": {}},
        {"name": "node", "hostPath": {"path": format!("/var/lib/{name}"), "type": "DirectoryOrCreate"}},
    ]);
    json!({"terminationGracePeriodSeconds": 1, "containers": [app], "volumes": volumes})
}

/// How many earlier starts left a mark in the container's own layer, the emptyDir and the node's folder.
async fn found(bed: &Testbed, name: &str) -> Result<String> {
    poll_until("marks", LIMIT, || async {
        let log = bed.logs("default", name, "app")?;
        Ok(log.contains("marked").then_some(log))
    })
    .await
    .map(|log| log.replace("marked\n", "").replace('\n', ", "))
}

/// A container's own layer goes with each start, an emptyDir with its pod, and a folder of the node with neither.
pub(super) async fn storage(bed: &Testbed) -> Result<()> {
    create(bed, "storing", storing("storing")).await?;
    wait_for_phase(bed, "storing", "Running").await?;
    let first = found(bed, "storing").await?;
    ensure!(first == "/var/lib/layer 0, /empty 0, /node 0, ", "{first}");
    bed.node_of("default", "storing")?.signal("default", "storing", "app", Signal::KILL)?;
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    };
    wait_for(bed, "storing", "restarted", restarted).await?;
    let second = found(bed, "storing").await?;
    ensure!(second == "/var/lib/layer 0, /empty 1, /node 1, ", "{second}");
    pods(bed).delete("storing", &DeleteParams::default()).await?;
    let gone = || async { Ok(pods(bed).get_opt("storing").await?.is_none().then_some(())) };
    poll_until("end of the pod", LIMIT, gone).await?;
    create(bed, "storing", storing("storing")).await?;
    wait_for_phase(bed, "storing", "Running").await?;
    let third = found(bed, "storing").await?;
    ensure!(third == "/var/lib/layer 0, /empty 0, /node 2, ", "{third}");
    Ok(())
}

async fn endpoints(bed: &Testbed, service: &str) -> Result<Vec<Endpoint>> {
    let slices: Api<EndpointSlice> = Api::namespaced(bed.client(), "default");
    let selected = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&selected).await?;
    let ipv4 = slices.items.into_iter().filter(|slice| slice.address_type == "IPv4");
    Ok(ipv4.flat_map(|slice| slice.endpoints).collect())
}

fn is_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.terminating == Some(true))
}

/// A headless service for pods of this label, ready or not.
async fn headless(bed: &Testbed, name: &str) -> Result<()> {
    let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"clusterIP": "None",
        "publishNotReadyAddresses": true, "selector": {"app": name}, "ports": [{"port": 45679}]}}))?;
    let services: Api<Service> = Api::namespaced(bed.client(), "default");
    services.create(&PostParams::default(), &service).await.map(drop).context("cannot create the service")
}

/// A container that is never ready and takes its time to end.
fn never_ready() -> Value {
    let mut app = shell("app", "trap 'sleep 3; exit 0' TERM; while true; do sleep 0.1; done");
    app["readinessProbe"] = json!({"exec": {"command": ["/bin/false"]}, "periodSeconds": 1});
    app
}

fn workload(name: &str, mut more: Value) -> Value {
    more["replicas"] = json!(3);
    more["selector"] = json!({"matchLabels": {"app": name}});
    more["template"] = json!({"metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 10, "containers": [never_ready()]}});
    json!({"metadata": {"name": name}, "spec": more})
}

/// Three replicas of a StatefulSet know each other by name before any is ready, and see each other end.
pub(super) async fn stateful_set(bed: &Testbed) -> Result<()> {
    headless(bed, "three").await?;
    let sets: Api<StatefulSet> = Api::namespaced(bed.client(), "default");
    let set = workload("three", json!({"serviceName": "three", "podManagementPolicy": "Parallel"}));
    sets.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
    let all = poll_until("three endpoints", LIMIT, || async {
        let found = endpoints(bed, "three").await?;
        Ok((found.len() == 3).then_some(found))
    })
    .await?;
    let serving = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.serving);
    ensure!(all.iter().all(|endpoint| serving(endpoint) == Some(false)), "{all:#?}");
    let node = bed.node_of("default", "three-0")?;
    poll_until("name of a replica", LIMIT, || async {
        let answer = node.exec("default", "three-0", "app", &["getent", "hosts", "three-2.three.default.svc"]).await;
        Ok(answer.is_ok_and(|answer| answer.status.success()).then_some(()))
    })
    .await?;
    pods(bed).delete("three-1", &DeleteParams::default()).await?;
    poll_until("a replica that is ending", LIMIT, || async {
        Ok(endpoints(bed, "three").await?.iter().any(is_terminating).then_some(()))
    })
    .await?;
    let replaced = |found: Vec<Endpoint>| found.len() == 3 && !found.iter().any(is_terminating);
    poll_until("its successor", LIMIT, || async { Ok(replaced(endpoints(bed, "three").await?).then_some(())) }).await?;
    sets.delete("three", &DeleteParams::default()).await?;
    Ok(())
}

/// The same of a Deployment, whose pods have no names of their own.
pub(super) async fn deployment(bed: &Testbed) -> Result<()> {
    headless(bed, "alike").await?;
    let deployments: Api<Deployment> = Api::namespaced(bed.client(), "default");
    let three = workload("alike", json!({"strategy": {"type": "Recreate"}}));
    deployments.create(&PostParams::default(), &serde_json::from_value(three)?).await?;
    poll_until("three endpoints", LIMIT, || async { Ok((endpoints(bed, "alike").await?.len() == 3).then_some(())) })
        .await?;
    let alike = pods(bed).list(&ListParams::default().labels("app=alike")).await?;
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    let targets = endpoints(bed, "alike").await?;
    let known = |pod: &Pod| {
        targets.iter().any(|endpoint| endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()) == uid(pod))
    };
    ensure!(alike.iter().all(known), "{targets:#?}");
    deployments.delete("alike", &DeleteParams::default()).await?;
    Ok(())
}
