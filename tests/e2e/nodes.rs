//! The nodes of a kind cluster: containers of a Docker engine, each with a systemd, a kubelet and a containerd.
//!
//! Owns: what a case does to a node and to what runs on it, by the engine's and the node's own command-line tools.
//!
//! Must never happen: a hand on a cluster that `kind/up` did not make.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use kube::config::Kubeconfig;
use tokio::process::Command;
use tokio::time::timeout;

/// What kind puts before a cluster's name, and kind/lib.sh's prefix.
const OURS: &str = "kind-kubernetes-vault";
/// For a command on a node. Stopping a sandbox waits for its containers.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: &str = "45s";

/// See the module.
pub(crate) struct Nodes(());

impl Nodes {
    /// Those of the cluster that `KUBECONFIG` names, if it is one of ours.
    pub(crate) fn of_ours() -> Result<Self> {
        let file = std::env::var("KUBECONFIG").context("KUBECONFIG is not set: kind/up prints it")?;
        let config = Kubeconfig::read_from(&file).with_context(|| format!("cannot read {file}"))?;
        let context = config.current_context.unwrap_or_default();
        ensure!(
            context == OURS || context.starts_with(&format!("{OURS}-")),
            "KUBECONFIG names the cluster {context:?}, which kind/up did not make: nothing is touched there. \
             KV_E2E=attach runs on any cluster"
        );
        Ok(Self(()))
    }

    /// Runs a command on a node.
    pub(crate) async fn run(&self, node: &str, command: &[&str]) -> Result<String> {
        let output = docker(&[&["exec", node], command].concat()).await?;
        ensure!(
            output.status.success(),
            "{command:?} on {node} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command in a container, as `kubectl exec` does.
    pub(crate) async fn exec_in(&self, pod: &Pod, container: &str, command: &[&str]) -> Result<Output> {
        let id = container_id(pod, container)?;
        docker(&[&["exec", node_of(pod)?, "crictl", "exec", &id], command].concat()).await
    }

    /// Kills a container's first process. The kubelet starts the container again.
    pub(crate) async fn kill(&self, pod: &Pod, container: &str) -> Result<()> {
        let id = container_id(pod, container)?;
        let node = node_of(pod)?;
        let template = ["crictl", "inspect", "--output", "go-template", "--template", "{{.info.pid}}", &id];
        let pid = self.run(node, &template).await?;
        self.run(node, &["kill", "-KILL", pid.trim()]).await.map(drop)
    }

    /// Stops a pod's sandbox behind the kubelet's back.
    pub(crate) async fn stop_sandbox(&self, pod: &Pod) -> Result<()> {
        let node = node_of(pod)?;
        let uid = pod.uid().context("a pod without a UID")?;
        let label = format!("io.kubernetes.pod.uid={uid}");
        let listed =
            self.run(node, &["crictl", "pods", "--quiet", "--no-trunc", "--state", "ready", "--label", &label]).await?;
        let Some(id) = listed.lines().next() else { bail!("{} has no sandbox on {node}", pod.name_any()) };
        // Its own limit is two seconds: containers take longer to end where they are asked to.
        self.run(node, &["crictl", "--timeout", STOP_LIMIT, "stopp", id]).await.map(drop)
    }

    /// Takes a node's power away: no process of it lives on, none is asked to end.
    pub(crate) async fn power_off(&self, node: &str) -> Result<()> {
        let output = docker(&["kill", node]).await?;
        ensure!(output.status.success(), "cannot stop {node}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    pub(crate) async fn power_on(&self, node: &str) -> Result<()> {
        let output = docker(&["start", node]).await?;
        ensure!(output.status.success(), "cannot start {node}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The node that a pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Result<&str> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.with_context(|| format!("{} has no node yet", pod.name_any()))
}

/// The id of a pod's container, as containerd knows it.
pub(crate) fn container_id(pod: &Pod, container: &str) -> Result<String> {
    let status = pod.status.as_ref().context("a pod without a status")?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let found = all.into_iter().find(|one: &&ContainerStatus| one.name == container);
    let id = found.and_then(|one| one.container_id.as_deref());
    let id = id.with_context(|| format!("{} has no container {container} yet", pod.name_any()))?;
    Ok(id.trim_start_matches("containerd://").to_owned())
}

async fn docker(arguments: &[&str]) -> Result<Output> {
    let child = Command::new("docker").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(COMMAND_LIMIT, child).await;
    let output = output.with_context(|| format!("docker {arguments:?}: no end after {COMMAND_LIMIT:?}"))?;
    output.context("cannot start docker: `kind/engine up` installs it")
}
