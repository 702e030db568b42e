//! Whether the controller in a peer's pod runs.
//!
//! A peer that does not answer counts as absent only by what is said here. Must never say that a container does not
//! run where nobody said so.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::Api;
use kube::api::ListParams;

use super::{Peer, PeerDirectory, PeersError, PodState, Relaxed};
use crate::domain::ids::PodUid;

/// The container of our manifests and of the reference's. In a pod without one of that name any container may be it.
const CONTAINER: &str = "kubernetes-vault";
/// Pods that are read at once: there are a handful of replicas.
const READS: usize = 4;

impl PeerDirectory {
    /// How the pods of `peers` are now. [`PodState::Unknown`] for all of them where we may not list pods in the
    /// service's namespace: no peer is ever absent then, and one warning says so.
    ///
    /// # Errors
    /// One of them could not be read.
    pub async fn pod_states(&self, peers: &[Peer]) -> Result<HashMap<PodUid, PodState>, PeersError> {
        let reads = peers.iter().map(|peer| async move {
            let state = self.pod_state(&peer.pod, &peer.uid).await?;
            Ok::<_, PeersError>((peer.uid.clone(), state))
        });
        // Each future is made before the stream borrows it: `buffered` alone would ask for a longer life of `peers`.
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(READS).try_collect().await
    }

    /// The same of one pod. Once it was deleted, and one of its name created, the first is [`PodState::Gone`].
    ///
    /// # Errors
    /// It could not be read.
    pub async fn pod_state(&self, name: &str, uid: &PodUid) -> Result<PodState, PeersError> {
        match self.pod_named(name).await {
            Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(uid.as_str()) => Ok(state(&pod)),
            Ok(_) => Ok(PodState::Gone),
            Err(error) if error.is_forbidden() => {
                self.warn_of_pods(&error);
                Ok(PodState::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// By `list`, because the reference's permissions have no `get`.
    pub(super) async fn pod_named(&self, name: &str) -> Result<Option<Pod>, PeersError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selected = ListParams::default().fields(&format!("metadata.name={name}"));
        let list = self.ask(|| format!("the pod {}/{name}", self.namespace), api.list(&selected)).await?;
        // A server that overlooks the selector must not have us take another pod for this one.
        Ok(list.items.into_iter().find(|pod| pod.metadata.name.as_deref() == Some(name)))
    }

    pub(super) fn warn_of_pods(&self, error: &PeersError) {
        if !self.shared.warned_pods.swap(true, Relaxed) {
            tracing::warn!(
                "{error}; a peer that does not answer is waited for until it is not listed any more, however long its \
                 container may have been down (grant list on pods in the namespace {})",
                self.namespace
            );
        }
    }
}

/// How the controller in `pod` is.
pub(super) fn state(pod: &Pod) -> PodState {
    let Some(status) = &pod.status else { return PodState::Unknown };
    let words = |first: &str, more: Option<&String>| {
        more.filter(|more| !more.is_empty()).map_or_else(|| first.to_owned(), |more| format!("{first}: {more}"))
    };
    let phase = status.phase.as_deref().unwrap_or_default();
    if matches!(phase, "Failed" | "Succeeded") {
        return PodState::NotRunning { reason: words(phase, status.reason.as_ref()) };
    }
    let all = status.container_statuses.as_deref().unwrap_or_default();
    let named: Vec<&ContainerStatus> = all.iter().filter(|status| status.name == CONTAINER).collect();
    let ours = if named.is_empty() { all.iter().collect() } else { named };
    let states: Vec<Option<&ContainerState>> = ours.iter().map(|status| status.state.as_ref()).collect();
    if states.iter().flatten().any(|state| state.running.is_some()) {
        return PodState::Running;
    }
    // The default state is "waiting": a status without one says just that.
    let Some(state) = states.first() else {
        return match phase {
            // No container was started on any node yet.
            "Pending" => PodState::NotRunning { reason: words("Pending", status.reason.as_ref()) },
            _ => PodState::Unknown,
        };
    };
    if phase == "Unknown" {
        return PodState::Unknown;
    }
    let reason = match state {
        Some(ContainerState { waiting: Some(waiting), .. }) => waiting.reason.clone(),
        Some(ContainerState { terminated: Some(end), .. }) => {
            let reason = end.reason.clone().unwrap_or_else(|| "Terminated".into());
            Some(format!("{reason}, exit code {}", end.exit_code))
        }
        _ => None,
    };
    PodState::NotRunning { reason: reason.unwrap_or_else(|| "Waiting".into()) }
}
