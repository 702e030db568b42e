//! Pods as people write them: jobs, sidecars, StatefulSets, pods in restricted namespaces and on their node's network.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Case, On};
use crate::cluster::{Cluster, LIMIT, eventually};
use crate::controller::NAME;
use crate::stage::{Plan, Stage};
use crate::trio::{Trio, stateful_set};
use crate::workload::{APP, field};

pub(crate) const ALL: [(&str, On, Case); 4] = [
    ("namespaces_that_enforce_restricted_take_all_of_our_pods", On::Kind, |cluster| restricted(cluster).boxed_local()),
    ("a_job_and_a_native_sidecar_get_a_token", On::Kind, |cluster| job_and_sidecar(cluster).boxed_local()),
    ("stateful_sets_of_one_name_in_two_namespaces_get_one_token_a_pod", On::Kind, |cluster| {
        sets(cluster).boxed_local()
    }),
    ("a_pod_on_its_nodes_network_is_served_and_warned", On::Kind, |cluster| host_network(cluster).boxed_local()),
];

/// The API server refuses what the profile forbids: a pod that exists was allowed.
async fn restricted(cluster: Arc<Cluster>) -> Result<()> {
    let name = "restricted";
    for namespace in [name.to_owned(), format!("{name}-system")] {
        cluster.namespace(&namespace).await?;
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(&labels)).await?;
    }
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![stateful_set()?]), ..Plan::new(name) }).await?;
    trio.settled(3).await?;
    let pod = trio.stage.pod("web").create().await?;
    pod.served().await?;
    pod.took_one_push().await?;
    trio.served_once(1).await
}

/// A job's pod ends; a native sidecar is an init container that stays, and starts after ours.
async fn job_and_sidecar(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("shapes")).await?;
    let mut template = stage.pod("template").object()?;
    template["spec"]["restartPolicy"] = json!("Never");
    env(&mut template["spec"]["containers"][0])?.push(json!({"name": "EXIT_AFTER_SHOW", "value": "true"}));
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "report", "namespace": stage.name},
        "spec": {
            "completions": 2, "backoffLimit": 0,
            "template": {"metadata": {"annotations": template["metadata"]["annotations"]}, "spec": template["spec"]},
        },
    });
    cluster.apply(&job).await?;

    let mut pod = stage.pod("sidecar").object()?;
    let mut sidecar = pod["spec"]["containers"][0].clone();
    sidecar["name"] = json!("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    pod["spec"]["initContainers"].as_array_mut().context("no init containers")?.push(sidecar);
    cluster.apply(&pod).await?;

    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(cluster.client.clone(), stage.name);
    let done = eventually("two completions of the job", LIMIT, || async {
        let status = jobs.get("report").await?.status.unwrap_or_default();
        ensure!(status.failed.unwrap_or_default() == 0, "a pod of the job failed");
        Ok((status.succeeded == Some(2)).then_some(()))
    });
    stage.blame(done.await).await?;
    let secret = format!("Read secret/data/{}/greeting:", stage.name);
    for container in ["sidecar", APP] {
        let what = format!("secret in the log of {container}");
        let read = eventually(&what, LIMIT, || async {
            let log = cluster.logs(stage.name, "sidecar", container).await?;
            Ok(log.contains(&secret).then_some(()))
        });
        stage.blame(read.await).await?;
    }
    let logins = stage.logins().await?.len();
    ensure!(logins == 3, "{logins} logins of two completions and a pod with a sidecar");
    ensure!(stage.secret_ids().await?.is_empty(), "secret_ids are left");
    Ok(())
}

/// Pods of one name in two namespaces, and again the same name when one is deleted.
async fn sets(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { watch: Some("~^sets(-too)?$".into()), ..Plan::new("sets") }).await?;
    cluster.namespace("sets-too").await?;
    for namespace in ["sets", "sets-too"] {
        let pod = stage.pod("db").namespace(namespace).object()?;
        let labels = json!({"app": "db"});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": namespace},
            "spec": {
                "replicas": 2, "serviceName": "db", "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"],
                },
            },
        });
        cluster.apply(&set).await?;
    }
    let mut accessors = Vec::new();
    for namespace in ["sets", "sets-too"] {
        for name in ["db-0", "db-1"] {
            let pod = stage.pod(name).namespace(namespace);
            accessors.push(field(&pod.served().await?, "accessor")?.to_owned());
            pod.took_one_push().await?;
        }
    }
    cluster.delete_pod_in_order("sets", "db-0").await?;
    let again = eventually("token of the new db-0", LIMIT, || async {
        let log = stage.pod("db-0").served().await?;
        let accessor = field(&log, "accessor")?.to_owned();
        Ok((!accessors.contains(&accessor)).then_some(accessor))
    });
    let again = stage.blame(again.await).await?;
    accessors.push(again);
    accessors.sort();
    let mut logins = stage.logins().await?;
    logins.sort();
    ensure!(accessors == logins, "tokens {accessors:?}, logins {logins:?}");
    Ok(())
}

/// Any process of its node can answer on its port: it is served, and its author is told.
async fn host_network(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("host")).await?;
    let mut pod = stage.pod("web").object()?;
    pod["spec"]["hostNetwork"] = json!(true);
    // Kubernetes wants it of such pods, and fills it in only for who asks by `create`.
    for container in pod["spec"]["initContainers"].as_array_mut().into_iter().flatten() {
        for port in container["ports"].as_array_mut().into_iter().flatten() {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
    cluster.apply(&pod).await?;
    let pod = stage.pod("web");
    pod.served().await?;
    pod.took_one_push().await?;
    pod.event("HostNetworkPod").await?;
    // The controller itself is where it was.
    ensure!(stage.controller.pod(&cluster).await?.starts_with(NAME), "no controller");
    Ok(())
}

fn env(container: &mut Value) -> Result<&mut Vec<Value>> {
    container["env"].as_array_mut().context("a container without variables")
}
