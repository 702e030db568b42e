//! The Node object and its heartbeat.
//!
//! Owns: one Node and its Lease. Without the heartbeat the node controller would evict the pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// A kubelet's own period.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A kubelet's own lease.
const LEASE_SECONDS: i32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// More than any case runs at once.
const MAX_PODS: &str = "2000";
/// Field manager of what the agent applies.
const MANAGER: &str = "testbed-node";

/// Registers a node that is ready, or makes an existing one so.
pub(crate) async fn register(client: &Client, name: &str, ip: IpAddr) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        }},
    }))?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        answer => drop(answer.with_context(|| format!("cannot register node {name}"))?),
    }
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Testbed", "lastHeartbeatTime": now, "lastTransitionTime": now});
    let resources = json!({"cpu": "256", "memory": "1024Gi", "ephemeral-storage": "1024Gi", "pods": MAX_PODS});
    let status = json!({"status": {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": ip.to_string()}, {"type": "Hostname", "address": name}],
        "conditions": [
            condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "bootID": name, "containerRuntimeVersion": "containerd://testbed",
            "kernelVersion": "testbed", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3-testbed",
            "machineID": name, "operatingSystem": "linux", "osImage": "testbed", "systemUUID": name,
        },
    }});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(|| format!("cannot report node {name} as ready"))?;
    // A new node is tainted until the node controller has seen it ready, which takes seconds.
    let untainted = json!({"spec": {"taints": null}});
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(&untainted)).await?;
    Ok(())
}

/// Renews the Lease until the task is aborted.
pub(crate) async fn heartbeat(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        let lease = Lease {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        // A case may have stopped the API server; the next beat comes in time.
        let _ = leases.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&lease)).await;
    }
}
