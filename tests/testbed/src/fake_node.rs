//! The Node of the simulated pods, kept alive by its Lease.
//!
//! Without it Kubernetes' own garbage collector deletes pods of an unknown node after a minute, and after five
//! minutes those of a node that is silent: in the middle of a run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::fake_pods::NODE;

/// As a kubelet does.
const RENEWAL: Duration = Duration::from_secs(10);
const LEASES: &str = "kube-node-lease";

/// Registers [`NODE`], and renews its Lease until the process ends.
///
/// # Errors
/// What the API server refuses.
pub async fn register(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE}}))?;
    nodes.create(&PostParams::default(), &node).await.context("cannot register the node")?;
    let ready = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "Simulated", "message": "",
        "lastHeartbeatTime": Timestamp::now().to_string(), "lastTransitionTime": Timestamp::now().to_string(),
    }]}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(&ready)).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let lease: Lease = serde_json::from_value(lease())?;
    leases.create(&PostParams::default(), &lease).await.context("cannot create the node's Lease")?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // The next renewal makes up for one that failed.
            let _ = leases.patch(NODE, &PatchParams::default(), &Patch::Merge(&self::lease())).await;
        }
    });
    Ok(())
}

fn lease() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": NODE, "namespace": LEASES},
        "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": format!("{:.6}", Timestamp::now())},
    })
}
