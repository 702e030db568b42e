//! A cluster and a Vault, wherever they are: all that most cases know of either.
//!
//! Owns: how a case waits (for a condition, with a deadline), and the few things that the testbed does in its own way.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::{Image, Signal, Testbed, VaultOptions, static_program};

use super::nodes::Nodes;
use super::vault::Vault;
use super::workload::APP;

/// For one step of a case. Two busy cores may be slow; nothing waits for this where all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at what a case waits for.
const LOOK: Duration = Duration::from_millis(100);
/// Instead of the kubelet's ten seconds, so that crash loops are short.
const RESTART_BASE: Duration = Duration::from_millis(300);
/// Kinds without a namespace, of those in our manifests.
const CLUSTER_WIDE: [&str; 3] = ["Namespace", "ClusterRole", "ClusterRoleBinding"];

/// Where the cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On testbeds that they start.
    Testbed,
    /// On a cluster of `kind/up`, whose nodes can be reached.
    Kind,
    /// On a cluster that somebody names on purpose.
    Attached,
}

impl Place {
    /// `KV_E2E`: unset, `kind` or `attach`.
    pub(crate) fn chosen() -> Result<Self> {
        match std::env::var("KV_E2E").as_deref() {
            Err(_) | Ok("") => Ok(Self::Testbed),
            Ok("kind") => Ok(Self::Kind),
            Ok("attach") => Ok(Self::Attached),
            Ok(other) => bail!("KV_E2E={other} is no place to run at; those are kind and attach"),
        }
    }
}

/// The full name of one of our images.
pub(crate) fn image(name: &str) -> String {
    format!("kubernetes-vault/{name}:{}", env!("CARGO_PKG_VERSION"))
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) vault: Vault,
    bed: Option<Testbed>,
    nodes: Option<Nodes>,
}

impl Cluster {
    /// Starts a testbed.
    pub(crate) async fn start(tls: bool) -> Result<Self> {
        let controller =
            Image::new(env!("CARGO_BIN_EXE_kubernetes-vault")).at("/app/kubernetes-vault").env("PATH", "/app");
        let bed = Testbed::builder()
            .image("kubernetes-vault/controller", controller)
            .image("kubernetes-vault/init", Image::new(static_program("KV_INIT_BIN", "kubernetes-vault-init")))
            .image("kubernetes-vault/sample-app", Image::new(static_program("KV_SAMPLE_BIN", "sample-app")))
            .image("shell", Image::new("/bin/sh"))
            .vault(VaultOptions { tls, ..VaultOptions::default() })
            .restart_base(RESTART_BASE)
            .start()
            .await
            .context("`make static` builds what the testbed runs as images")?;
        let vault = bed.vault()?;
        let admin = Vault::new(vault.address(), vault.address(), testbed::ROOT_TOKEN, vault.ca())?;
        let cluster = Self { client: bed.client(), vault: admin, bed: Some(bed), nodes: None };
        cluster.vault.prepare().await?;
        Ok(cluster)
    }

    /// The cluster of `KUBECONFIG`, the Vault of `VAULT_ADDR`. `POD_VAULT_ADDR` says how pods reach it.
    /// One of kind is ours, or nothing is touched.
    pub(crate) async fn attach(place: Place) -> Result<Self> {
        // Failing means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nodes = if place == Place::Kind { Some(Nodes::of_ours()?) } else { None };
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let address = variable("VAULT_ADDR")?;
        let ca = std::env::var("VAULT_CACERT").ok().map(std::fs::read_to_string).transpose()?;
        let for_pods = std::env::var("POD_VAULT_ADDR").unwrap_or_else(|_| address.clone());
        let vault = Vault::new(&address, &for_pods, &variable("VAULT_TOKEN")?, ca)?;
        vault.prepare().await?;
        Ok(Self { client: Client::try_default().await?, vault, bed: None, nodes })
    }

    /// The testbed, for cases that are marked so.
    pub(crate) fn bed(&self) -> Result<&Testbed> {
        self.bed.as_ref().context("this case needs the testbed")
    }

    /// The nodes of a kind cluster, for cases that are marked so.
    pub(crate) fn nodes(&self) -> Result<&Nodes> {
        self.nodes.as_ref().context("this case needs a kind cluster")
    }

    /// Whether the logs of all containers that there ever were can be read.
    pub(crate) fn has_log_files(&self) -> bool {
        self.bed.is_some()
    }

    pub(crate) async fn stop(&self) {
        if let Some(bed) = &self.bed {
            bed.stop().await;
        }
    }

    /// Makes a namespace in which pods can be created.
    pub(crate) async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        eventually("default service account", LIMIT, || async { Ok(accounts.get_opt("default").await?.map(drop)) })
            .await
    }

    /// Applies one object of a manifest.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        let text = |key: &str| object[key].as_str().with_context(|| format!("a manifest without {key}"));
        let (version, kind) = (text("apiVersion")?, text("kind")?);
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = if CLUSTER_WIDE.contains(&kind) {
            Api::all_with(self.client.clone(), &resource)
        } else {
            let namespace = object["metadata"]["namespace"].as_str().context("a manifest without a namespace")?;
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        };
        let name = object["metadata"]["name"].as_str().context("a manifest without a name")?;
        let applied = api.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(object)).await;
        applied.map(drop).with_context(|| format!("cannot apply {kind} {name}"))
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A pod as JSON, once the condition holds.
    pub(crate) async fn pod_when(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let pods = self.pods(namespace);
        let what = format!("{namespace}/{name}: {what}");
        let found = eventually(&what, LIMIT, || async {
            let pod = serde_json::to_value(pods.get(name).await?)?;
            Ok(holds(&pod).then_some(pod))
        });
        match found.await {
            Ok(pod) => Ok(pod),
            Err(error) => bail!("{error:#}\n{}", self.describe(namespace, name).await),
        }
    }

    /// Deletes a pod at once, and waits until it is gone.
    pub(crate) async fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(namespace, name, &DeleteParams::default().grace_period(0)).await
    }

    /// Asks a pod to end, and waits until it is gone.
    pub(crate) async fn delete_pod_in_order(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(namespace, name, &DeleteParams::default()).await
    }

    async fn delete(&self, namespace: &str, name: &str, parameters: &DeleteParams) -> Result<()> {
        let pods = self.pods(namespace);
        let uid = pods.get(name).await?.metadata.uid;
        pods.delete(name, parameters).await?;
        eventually(&format!("end of {namespace}/{name}"), LIMIT, || async {
            let left = pods.get_opt(name).await?;
            Ok(left.is_none_or(|pod| pod.metadata.uid != uid).then_some(()))
        })
        .await
    }

    /// What a container printed since its last start.
    pub(crate) async fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        if let Some(bed) = &self.bed {
            return bed.logs(namespace, pod, container);
        }
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(self.pods(namespace).logs(pod, &parameters).await?)
    }

    /// How often a container was started, also after its pod is gone. For cases on the testbed.
    pub(crate) fn starts(&self, namespace: &str, pod: &str, container: &str) -> Result<usize> {
        Ok(self.bed()?.node_of(namespace, pod)?.log_files(namespace, pod, container)?.len())
    }

    /// Kills a container's process; where nobody can do that, its pod.
    pub(crate) async fn kill(&self, namespace: &str, pod: &str, container: &str) -> Result<()> {
        if let Some(bed) = &self.bed {
            return bed.node_of(namespace, pod)?.signal(namespace, pod, container, Signal::KILL);
        }
        if let Some(nodes) = &self.nodes {
            return nodes.kill(&self.pods(namespace).get(pod).await?, container).await;
        }
        self.pods(namespace).delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Runs a command in a container. For cases that reach nodes.
    pub(crate) async fn exec(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Result<Output> {
        if let Some(bed) = &self.bed {
            return bed.node_of(namespace, pod)?.exec(namespace, pod, container, command).await;
        }
        self.nodes()?.exec_in(&self.pods(namespace).get(pod).await?, container, command).await
    }

    /// Ends a pod's sandbox, as a restart of its node does: its init containers run again, under a new address. For
    /// cases that reach nodes.
    pub(crate) async fn restart_sandbox(&self, namespace: &str, pod: &str) -> Result<()> {
        if let Some(bed) = &self.bed {
            return bed.node_of(namespace, pod)?.restart_sandbox(namespace, pod, None).await;
        }
        self.nodes()?.stop_sandbox(&self.pods(namespace).get(pod).await?).await
    }

    /// Runs a shell script in a container. For cases on the testbed.
    pub(crate) async fn shell(&self, namespace: &str, pod: &str, container: &str, script: &str) -> Result<String> {
        let node = self.bed()?.node_of(namespace, pod)?;
        // An image's own PATH may have nothing but its program.
        let script = format!("PATH=$PATH:/usr/bin:/bin; {script}");
        let output = node.exec(namespace, pod, container, &["/bin/sh", "-c", &script]).await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "a script in {namespace}/{pod} failed: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A file that the init container left for the application. For cases on the testbed.
    pub(crate) async fn shell_file(&self, namespace: &str, pod: &str, file: &str) -> Result<String> {
        self.shell(namespace, pod, APP, &format!("cat /var/run/secrets/boostport.com/{file}")).await
    }

    /// The Events about a pod.
    pub(crate) async fn events(&self, namespace: &str, pod: &str) -> Result<Vec<Event>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let all = events.list(&ListParams::default()).await?;
        let ours = |event: &Event| {
            event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(pod))
                && event.reporting_controller.as_deref() == Some("kubernetes-vault")
        };
        Ok(all.items.into_iter().filter(ours).collect())
    }

    /// The note of the pod's Event with this reason, and these words in it.
    pub(crate) async fn event(&self, namespace: &str, pod: &str, reason: &str, words: &str) -> Result<String> {
        let what = format!("Event {reason} {words}");
        let found = eventually(&what, LIMIT, || async {
            let events = self.events(namespace, pod).await?;
            let of_reason = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
            Ok(of_reason.filter_map(|event| event.note).find(|note| note.contains(words)))
        });
        match found.await {
            Ok(note) => Ok(note),
            Err(error) => bail!("{error:#}\n{}", self.describe(namespace, pod).await),
        }
    }

    /// What a person would look at: status, Events and logs of a pod.
    pub(crate) async fn describe(&self, namespace: &str, name: &str) -> String {
        let mut text = String::new();
        if let Ok(pod) = self.pods(namespace).get(name).await {
            let status = serde_json::to_value(&pod.status).unwrap_or_default();
            for kind in ["phase", "initContainerStatuses", "containerStatuses"] {
                text += &format!("{kind}: {}\n", status[kind]);
            }
            for container in
                pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
            {
                let log = self.logs(namespace, name, &container.name).await.unwrap_or_else(|error| error.to_string());
                text += &format!("--- log of {}\n{}\n", container.name, tail(&log));
            }
        }
        for event in self.events(namespace, name).await.unwrap_or_default() {
            text += &format!("--- Event {}: {}\n", event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        }
        text
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Waits until `check` gives something. Errors count as "not yet": servers may be down for a while.
pub(crate) async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match check().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let message = format!("no {what} within {} s", limit.as_secs());
            return Err(match last {
                Some(error) => error.context(message),
                None => anyhow!(message),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}
