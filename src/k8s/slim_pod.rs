//! The few fields of a pod that are read at all, and their way into [`Pod`].
//!
//! Owns what is decoded from the API. Everything else of a pod (managed fields, labels, volumes, environments) is
//! skipped while it is parsed and never allocated, so that a pod of 10 kB costs a few hundred bytes. Must never be
//! stricter than it needs to be: what is absent, `null` or unknown is not an error unless a pod without it has no
//! identity.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::cut;
use crate::domain::ids::{ContainerId, PodRef, PodUid, Timestamp};
use crate::domain::pod::{
    ContainerState, ContainerStatus, MAX_TERMINATION_MESSAGE_BYTES, Phase, Pod, Target, Termination, Wish,
};

/// A pod as the API server writes it, less what we do not read.
#[derive(Debug, Deserialize)]
pub(super) struct SlimPod {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<String>,
    annotations: Option<Annotations>,
}

/// Only ours: the others are skipped, however large. The names are those of `domain::pod` (a test compares them).
#[derive(Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "pod.boostport.com/vault-approle")]
    role: Option<Arc<str>>,
    #[serde(rename = "pod.boostport.com/vault-init-container")]
    container: Option<Arc<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Arc<str>>,
    service_account_name: Option<Arc<str>>,
    host_network: Option<bool>,
    restart_policy: Option<String>,
    init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
    init_container_statuses: Option<Vec<SlimContainerStatus>>,
}

#[derive(Debug, Deserialize)]
struct Address {
    ip: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    restart_count: Option<i64>,
    state: Option<State>,
    last_state: Option<State>,
}

#[derive(Debug, Deserialize)]
struct State {
    running: Option<Running>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    exit_code: Option<i32>,
    finished_at: Option<String>,
    message: Option<String>,
}

/// A pod without a namespace, a name or a uid cannot be told from another.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod has no metadata.{0}")]
pub(super) struct NoIdentity(&'static str);

impl SlimPod {
    /// `metadata.resourceVersion`.
    pub(super) fn take_version(&mut self) -> Option<String> {
        self.metadata.resource_version.take()
    }

    /// Boils it down.
    ///
    /// # Errors
    /// When it lacks its identity.
    pub(super) fn into_pod(self) -> Result<Pod, NoIdentity> {
        let Self { metadata, spec, status } = self;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let reference = PodRef {
            namespace: given(metadata.namespace).ok_or(NoIdentity("namespace"))?.into(),
            name: given(metadata.name).ok_or(NoIdentity("name"))?.into(),
            uid: PodUid::from(given(metadata.uid).ok_or(NoIdentity("uid"))?.as_str()),
        };
        Ok(Pod {
            reference,
            node: spec.node_name.clone().unwrap_or_default(),
            service_account: spec.service_account_name.clone().unwrap_or_default(),
            host_network: spec.host_network.unwrap_or(false),
            deleting: given(metadata.deletion_timestamp).is_some(),
            phase: phase(status.phase.as_deref()),
            ips: addresses(&status),
            wish: metadata.annotations.and_then(|annotations| wish(annotations, &spec, &status)),
        })
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The API server sets `Pending` on a new pod; a phase that it invents later means nothing to us.
fn phase(text: Option<&str>) -> Phase {
    match text {
        None | Some("" | "Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some(_) => Phase::Unknown,
    }
}

fn addresses(status: &Status) -> Vec<IpAddr> {
    let several = status.pod_ips.iter().flatten().filter_map(|address| address.ip.as_deref());
    let mut ips: Vec<IpAddr> = several.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    ips
}

fn wish(annotations: Annotations, spec: &Spec, status: &Status) -> Option<Wish> {
    let Annotations { role, container } = annotations;
    if role.is_none() && container.is_none() {
        return None;
    }
    let target = container.as_deref().map_or(Target::Missing, |name| target(name, spec, status));
    Some(Wish { role, container, target })
}

fn target(name: &str, spec: &Spec, status: &Status) -> Target {
    let named = |containers: &Option<Vec<Container>>| {
        containers.iter().flatten().find(|container| container.name == name).map(|container| {
            // Only an init container may have one of its own, and only this value makes it a sidecar.
            container.restart_policy.as_deref() == Some("Always")
        })
    };
    let Some(sidecar) = named(&spec.init_containers) else {
        return if named(&spec.containers).is_some() { Target::Ordinary } else { Target::Missing };
    };
    let of_it = status.init_container_statuses.iter().flatten().find(|status| status.name == name);
    Target::Init {
        sidecar,
        never_restarts: spec.restart_policy.as_deref() == Some("Never"),
        restarts: of_it.and_then(|status| status.restart_count).map_or(0, |n| u32::try_from(n).unwrap_or(0)),
        status: of_it.map(container_status).unwrap_or_default(),
    }
}

fn container_status(status: &SlimContainerStatus) -> ContainerStatus {
    let own_id = || id(status.container_id.as_deref());
    let state = match &status.state {
        Some(State { running: Some(running), .. }) => {
            ContainerState::Running { id: own_id(), since: running.started_at.as_deref().and_then(timestamp) }
        }
        Some(State { terminated: Some(end), .. }) => {
            let mut end = termination(end);
            // The id beside the present state is that of the present start.
            end.id = end.id.or_else(own_id);
            ContainerState::Terminated(end)
        }
        _ => ContainerState::Waiting,
    };
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()).map(termination);
    ContainerStatus { state, last }
}

fn termination(end: &Terminated) -> Termination {
    let message = end.message.as_deref().map(|text| cut(text, MAX_TERMINATION_MESSAGE_BYTES));
    Termination {
        id: id(end.container_id.as_deref()),
        // An end that does not say how it was is no success.
        exit_code: end.exit_code.unwrap_or(-1),
        at: end.finished_at.as_deref().and_then(timestamp),
        message: message.filter(|text| !text.is_empty()).map(Into::into),
    }
}

fn id(text: Option<&str>) -> Option<ContainerId> {
    text.filter(|text| !text.is_empty()).map(ContainerId::from)
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests;
