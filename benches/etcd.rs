//! Running pods by the thousand, written where the API server reads them.
//!
//! Through the API they would take minutes on two cores, all of them spent in admission and validation. What is
//! measured with them is a list that the API server answers, and it answers these like any others.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::fake_pods::NODE;

use crate::rig::Rig;

/// etcd takes so many writes in one transaction.
const AT_ONCE: u32 = 128;

/// Creates running pods without annotations in `namespace`, and makes sure that the API server has them.
pub(crate) async fn create_running_pods(rig: &Rig, namespace: &str, count: u32) -> Result<()> {
    let [.., last] = rig.bed.control_plane().ip().octets();
    let url = format!("http://127.0.0.{last}:2379/v3/kv/txn");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only(Vec::new()).build()?;
    let numbers: Vec<u32> = (0..count).collect();
    for some in numbers.chunks(AT_ONCE as usize) {
        let writes: Vec<Value> = some.iter().map(|number| write(namespace, *number)).collect();
        let answer = http.post(&url).json(&json!({"success": writes})).send().await?;
        ensure!(answer.status().is_success(), "etcd: {}", answer.text().await?);
    }
    let pods: Api<Pod> = Api::namespaced(rig.client.clone(), namespace);
    let running = ListParams::default().fields("status.phase=Running").limit(1);
    let list = pods.list_metadata(&running).await?;
    let seen = list.items.len() as i64 + list.metadata.remaining_item_count.unwrap_or_default();
    // With a field selector the API server does not count: then a plain list of this namespace has to do.
    if seen < i64::from(count) {
        let all = pods.list(&ListParams::default().fields("status.phase=Running")).await?;
        ensure!(all.items.len() == count as usize, "the API server has {} of {count} pods", all.items.len());
    }
    Ok(())
}

fn write(namespace: &str, number: u32) -> Value {
    let name = format!("running-{number:05}");
    let base64 = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    json!({"requestPut": {
        "key": base64(&format!("/registry/pods/{namespace}/{name}")),
        "value": base64(&pod(namespace, &name, number).to_string()),
    }})
}

fn pod(namespace: &str, name: &str, number: u32) -> Value {
    let container = json!({
        "name": "app", "image": "simulated", "imagePullPolicy": "Always", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    let now = k8s_openapi::jiff::Timestamp::now();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{number:012}"),
            "creationTimestamp": format!("{now:.0}"), "labels": {"app": "simulated"},
        },
        "spec": {
            "nodeName": NODE, "containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler", "serviceAccountName": "default", "securityContext": {},
            "terminationGracePeriodSeconds": 0, "enableServiceLinks": true, "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority", "tolerations": [{"operator": "Exists"}],
        },
        "status": {
            "phase": "Running", "qosClass": "BestEffort", "startTime": format!("{now:.0}"),
            "containerStatuses": [{
                "name": "app", "image": "simulated", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{number:064}"), "lastState": {},
                "state": {"running": {"startedAt": format!("{now:.0}")}},
            }],
        },
    })
}

/// A description of what was made, for the notes.
pub(crate) async fn describe(rig: &Rig) -> Result<String> {
    let nothing = Api::<Pod>::all(rig.client.clone());
    let list = nothing.list_metadata(&ListParams::default().limit(1)).await.context("cannot count the pods")?;
    let count = list.items.len() as i64 + list.metadata.remaining_item_count.unwrap_or_default();
    Ok(format!("{count} pods in the cluster"))
}
