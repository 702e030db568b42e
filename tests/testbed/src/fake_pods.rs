//! Simulated pods: objects and statuses without processes, for benchmarks and component tests.
//!
//! Owns: nothing that runs. No agent runs their node, so nobody touches them. Their
//! receivers may listen at any address of [`crate::network::SIMULATED`] from one process.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// The node of simulated pods. Nothing runs there. Without a Node of that name Kubernetes collects the pods after
/// about a minute: whoever needs them longer calls [`crate::fake_node::register`].
pub const NODE: &str = "simulated";
/// Requests in flight of one batch: enough to keep the API server busy.
const PARALLEL: usize = 32;

/// One simulated pod.
#[derive(Clone, Debug)]
pub struct FakePod {
    /// Its namespace, which must exist.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The name of its one init container.
    pub init_container: String,
    /// The image of that container.
    pub image: String,
}

impl FakePod {
    /// A pod whose init container `init` asks for an AppRole, as users of the controller annotate it.
    #[must_use]
    pub fn asking_for(namespace: &str, name: &str, role: &str) -> Self {
        let annotations =
            [("pod.boostport.com/vault-approle", role), ("pod.boostport.com/vault-init-container", "init")];
        Self {
            annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Self::plain(namespace, name)
        }
    }

    /// A pod without annotations.
    #[must_use]
    pub fn plain(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            annotations: BTreeMap::new(),
            init_container: "init".to_owned(),
            image: "simulated".to_owned(),
        }
    }

    fn object(&self) -> Result<Pod> {
        let container = |name: &str| json!({"name": name, "image": self.image});
        serde_json::from_value(json!({
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": self.annotations},
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "initContainers": [container(&self.init_container)],
                "containers": [container("app")],
            },
        }))
        .context("a simulated pod cannot be encoded")
    }

    fn init_status(&self, id: &str, restarts: u32, state: &Value) -> Value {
        json!({
            "name": self.init_container, "image": self.image, "imageID": "", "ready": false, "started": false,
            "restartCount": restarts, "containerID": id, "lastState": {}, "state": state,
        })
    }

    fn app_status(&self, state: &Value) -> Value {
        json!({
            "name": "app", "image": self.image, "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "lastState": {}, "state": state,
        })
    }
}

/// Makes a namespace; that it exists is no error.
pub async fn create_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        answer => answer.map(drop).with_context(|| format!("cannot create namespace {name}")),
    }
}

/// Creates a pod that is bound to [`NODE`] and pending. Returns the object, UID included.
pub async fn create_pending(client: &Client, pod: &FakePod) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let created = pods.create(&PostParams::default(), &pod.object()?).await;
    created.with_context(|| format!("cannot create {}/{}", pod.namespace, pod.name))
}

/// Patches the status: the init container runs, with this containerID, at this address.
pub async fn set_init_running(client: &Client, pod: &FakePod, ip: IpAddr, id: &str, restarts: u32) -> Result<()> {
    let running = json!({"running": {"startedAt": now()}});
    let status = json!({
        "phase": "Pending", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now(),
        "initContainerStatuses": [pod.init_status(id, restarts, &running)],
        "containerStatuses": [pod.app_status(&waiting())],
    });
    patch(client, pod, &status).await
}

/// Patches the status: the init container has ended.
pub async fn set_init_terminated(
    client: &Client,
    pod: &FakePod,
    id: &str,
    exit_code: i32,
    message: &str,
) -> Result<()> {
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    let terminated = json!({"terminated": {
        "exitCode": exit_code, "reason": reason, "message": message, "containerID": id,
        "startedAt": now(), "finishedAt": now(),
    }});
    let status = json!({
        "phase": "Pending",
        "initContainerStatuses": [pod.init_status(id, 0, &terminated)],
        "containerStatuses": [pod.app_status(&waiting())],
    });
    patch(client, pod, &status).await
}

/// Patches the status: the init container is done, the main container runs.
pub async fn set_running(client: &Client, pod: &FakePod, ip: IpAddr, id: &str) -> Result<()> {
    let terminated = json!({"terminated": {"exitCode": 0, "reason": "Completed", "containerID": id}});
    let running = json!({"running": {"startedAt": now()}});
    let status = json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "initContainerStatuses": [pod.init_status(id, 0, &terminated)],
        "containerStatuses": [pod.app_status(&running)],
    });
    patch(client, pod, &status).await
}

/// Deletes a pod at once.
pub async fn delete(client: &Client, pod: &FakePod) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    match pods.delete(&pod.name, &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        answer => answer.map(drop).with_context(|| format!("cannot delete {}/{}", pod.namespace, pod.name)),
    }
}

/// Does one thing for many pods, some at a time; stops at the first error. Results are in the pods' order.
pub async fn for_all<'a, T, F, Fut>(pods: &'a [FakePod], action: F) -> Result<Vec<T>>
where
    F: Fn(usize, &'a FakePod) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let actions = pods.iter().enumerate().map(|(index, pod)| action(index, pod));
    stream::iter(actions).buffered(PARALLEL).try_collect().await
}

/// The `index`-th address of [`crate::network::SIMULATED`].
#[must_use]
pub fn simulated_ip(index: u16) -> IpAddr {
    let [high, low] = index.to_be_bytes();
    IpAddr::from([10, 99, high, low])
}

fn waiting() -> Value {
    json!({"waiting": {"reason": "PodInitializing"}})
}

fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

async fn patch(client: &Client, pod: &FakePod, status: &Value) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let patch = json!({"status": status});
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
        .with_context(|| format!("cannot patch the status of {}/{}", pod.namespace, pod.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_addresses_are_in_their_range() {
        assert_eq!(simulated_ip(0).to_string(), "10.99.0.0");
        assert_eq!(simulated_ip(258).to_string(), "10.99.1.2");
    }

    #[test]
    fn times_have_whole_seconds() {
        assert!(!now().contains('.'), "{}", now());
    }
}
