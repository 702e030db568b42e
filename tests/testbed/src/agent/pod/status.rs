//! Writing a pod's status.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::super::record::{Frame, pod_status};
use super::Worker;
use crate::network::PodNetwork;

/// How long one write of a status may take before it is tried again.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

impl Worker {
    fn frame(&self) -> Frame {
        let host_ip = IpAddr::V4(self.context.node_ip);
        Frame {
            host_ip,
            pod_ips: self.ips(),
            start_time: self.start_time.clone(),
            failure: self.failure.clone(),
            restart_policy: self.restart_policy.clone(),
        }
    }

    /// The pod's addresses once its network stands.
    pub(super) fn ips(&self) -> Vec<IpAddr> {
        if self.host_network() {
            return if self.prepared { vec![IpAddr::V4(self.context.node_ip)] } else { Vec::new() };
        }
        self.network.iter().flat_map(PodNetwork::ips).collect()
    }

    pub(super) fn host_network(&self) -> bool {
        self.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    pub(super) fn namespace(&self) -> String {
        self.pod.metadata.namespace.clone().unwrap_or_default()
    }

    /// Writes the status if it changed; false where that has to be tried again.
    pub(super) async fn publish(&mut self) -> bool {
        let now = Time(Timestamp::now());
        let status = pod_status(&self.pod, &self.frame(), &self.records, &now);
        if self.published.as_ref() == Some(&status) {
            return true;
        }
        if self.context.statuses_are_held() {
            return false;
        }
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.namespace());
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        let parameters = PatchParams::default();
        let patch = Patch::Merge(&patch);
        match timeout(WRITE_LIMIT, pods.patch_status(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                self.pod.status = Some(status.clone());
                self.published = Some(status);
                true
            }
            // Another pod has the name now, or none has: the watch will say so, too.
            Ok(Err(kube::Error::Api(answer))) if answer.code == 404 || answer.code == 409 => {
                self.gone = true;
                true
            }
            Ok(Err(error)) => {
                self.context.grumble(&format!("cannot write the status of {name}: {error}"));
                false
            }
            Err(_) => false,
        }
    }
}
