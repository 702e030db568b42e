//! How the controller is found, and who may connect to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::document::Document;
use super::parts::{labelled, labels, named, selector, words};
use super::settings::{NAME, Settings};

/// Above 1024, so that no privilege is needed to bind it.
pub(super) const METRICS_PORT: i32 = 9090;
/// Probes; not in the Service, since only the kubelet asks.
pub(super) const HEALTH_PORT: i32 = 8080;
/// Between replicas. The Go version's ports.
pub(super) const GOSSIP_PORT: i32 = 45678;
/// See there.
pub(super) const RAFT_PORT: i32 = 45679;
/// The label that the API server gives each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The headless service.
pub(super) fn service(namespace: &str) -> Document {
    let port = |name: &str, port| ServicePort { name: Some(name.to_owned()), port, ..ServicePort::default() };
    let service = Service {
        metadata: labelled(namespace, NAME),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels(NAME)),
            ports: Some(vec![port("metrics", METRICS_PORT), port("gossip", GOSSIP_PORT), port("raft", RAFT_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Document::new("service.yaml", &service)
        .head(
            "Headless: it names the controller's pods, for scrapers and for the controller itself. Nothing connects \
             through it to get a secret: the controller connects to pods.",
        )
        .note(
            "/spec/publishNotReadyAddresses",
            "Replicas have to find each other before any of them is ready: to form a cluster is what makes them ready.",
        )
        .note("/spec/ports/1", "Between replicas, with mutual TLS 1.3. Nothing listens there where there is one.")
}

/// Who may connect to the controller.
pub(super) fn policy(settings: &Settings) -> Document {
    let port = |port| NetworkPolicyPort { port: Some(IntOrString::Int(port)), ..NetworkPolicyPort::default() };
    let ours = NetworkPolicyPeer { pod_selector: Some(selector(labels(NAME))), ..NetworkPolicyPeer::default() };
    let name = BTreeMap::from([(NAMESPACE_NAME.to_owned(), settings.prometheus_namespace.clone())]);
    let prometheus = NetworkPolicyPeer { namespace_selector: Some(selector(name)), ..NetworkPolicyPeer::default() };
    let policy = NetworkPolicy {
        metadata: named(&settings.namespace, NAME),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(labels(NAME))),
            policy_types: words(&["Ingress"]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: Some(vec![ours]),
                    ports: Some(vec![port(GOSSIP_PORT), port(RAFT_PORT)]),
                },
                NetworkPolicyIngressRule { from: Some(vec![prometheus]), ports: Some(vec![port(METRICS_PORT)]) },
            ]),
            ..NetworkPolicySpec::default()
        }),
    };
    Document::new("network-policy.yaml", &policy)
        .head(
            "Who may connect to the controller. The ports between replicas ask for a certificate of the cluster anyway; \
             this keeps everybody else from even trying. It has an effect only where the network plugin enforces policies.\n\
             Once a pod is selected by a policy, whatever no policy allows is refused. Probes come from the node, and \
             are let through.",
        )
        .note(
            "/spec/policyTypes",
            "Not Egress: the API server and Vault have addresses that only you know, and pushes go to every pod that waits.",
        )
        .note("/spec/ingress/0", "Gossip and Raft: replicas only.")
        .note("/spec/ingress/1", "Metrics: from the namespace of this name; choose the one of your Prometheus.")
}
