//! The cluster that the cases share, and small helpers on it.

use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{ControlPlaneOptions, Image, Testbed, poll_until};
use tokio::runtime::Runtime;

/// A case: what it checks on the shared cluster.
pub(crate) type Case = for<'a> fn(&'a Testbed) -> LocalBoxFuture<'a, Result<()>>;

/// Long enough for two busy cores; a case waits for an event, never for this.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The shared cluster.
#[derive(Default)]
pub(crate) struct Bed {
    started: OnceLock<Result<(Runtime, Testbed), String>>,
    disturbance: RwLock<()>,
}

impl Bed {
    /// Runs a case beside others, or alone where it disturbs them.
    pub(crate) fn run(&self, case: Case, alone: bool) -> Result<()> {
        let started = self.started.get_or_init(|| start().map_err(|error| format!("{error:#}")));
        let (runtime, bed) = started.as_ref().map_err(|error| anyhow!("the cluster did not start: {error}"))?;
        // A case that failed has not harmed the cluster: poison means nothing here.
        let (_shared, _sole);
        if alone {
            _sole = self.disturbance.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _shared = self.disturbance.read().unwrap_or_else(PoisonError::into_inner);
        }
        runtime.block_on(case(bed))
    }

    pub(crate) fn stop(&self) {
        if let Some(Ok((runtime, bed))) = self.started.get() {
            runtime.block_on(bed.stop());
        }
    }
}

fn start() -> Result<(Runtime, Testbed)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let builder = Testbed::builder()
        .image("shell", Image::new("/bin/sh"))
        .ipv6()
        .volume_refresh(Duration::from_millis(500))
        .restart_base(Duration::from_millis(200))
        .control_plane(ControlPlaneOptions { audit: true, ..ControlPlaneOptions::default() });
    let bed = runtime.block_on(builder.start())?;
    Ok((runtime, bed))
}

/// A container that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "shell:1", "command": ["/bin/sh", "-c", script]})
}

/// Creates a pod in `default`.
pub(crate) async fn create(bed: &Testbed, name: &str, spec: Value) -> Result<Pod> {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}))?;
    pods(bed).create(&PostParams::default(), &pod).await.with_context(|| format!("cannot create {name}"))
}

pub(crate) fn pods(bed: &Testbed) -> Api<Pod> {
    Api::namespaced(bed.client(), "default")
}

/// Waits until a pod's JSON satisfies the condition.
pub(crate) async fn wait_for(
    bed: &Testbed,
    name: &str,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let last = std::cell::RefCell::new(Value::Null);
    let what = format!("{name}: {what}");
    let found = poll_until(&what, LIMIT, || async {
        let pod = serde_json::to_value(pods(bed).get(name).await?)?;
        last.replace(pod.clone());
        Ok(condition(&pod).then_some(pod))
    });
    found.await.with_context(|| format!("status: {}", last.borrow()["status"]))
}

pub(crate) async fn wait_for_phase(bed: &Testbed, name: &str, phase: &str) -> Result<Value> {
    wait_for(bed, name, phase, |pod| pod["status"]["phase"] == phase).await
}
