//! Small pieces that many objects are made of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, EnvVar, EnvVarSource, ObjectFieldSelector, PodSecurityContext, ResourceRequirements, SeccompProfile,
    SecretKeySelector, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The label that objects are found by.
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The user of our images; any other would do as well.
const USER: i64 = 65532;

pub(super) fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())])
}

/// The name of an object without a namespace.
pub(super) fn cluster_wide(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

pub(super) fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), ..cluster_wide(name) }
}

/// The same with the label that it is found by.
pub(super) fn labelled(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { labels: Some(labels(name)), ..named(namespace, name) }
}

pub(super) fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

pub(super) fn words(all: &[&str]) -> Option<Vec<String>> {
    Some(all.iter().map(|&word| word.to_owned()).collect())
}

/// A variable with a value that stands here.
pub(super) fn plain_env(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

/// A variable from a Secret.
pub(super) fn secret_env(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { key: key.to_owned(), name: secret.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

/// A variable from the pod itself.
pub(super) fn field_env(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

/// Which pod this is.
pub(super) fn identity_env() -> [EnvVar; 3] {
    [
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        field_env("POD_UID", "metadata.uid"),
    ]
}

/// What Pod Security `restricted` asks of a pod.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

/// The same with volumes that belong to the pod's own group.
pub(super) fn pod_security_with_volumes() -> PodSecurityContext {
    PodSecurityContext { fs_group: Some(USER), ..pod_security() }
}

/// What it asks of a container, and a root file system that nobody writes to.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: words(&["ALL"]), add: None }),
        ..SecurityContext::default()
    }
}

/// Without a limit of CPU time: it would be waited for in the middle of a push, or of an election.
pub(super) fn resources(cpu: &str, memory: &str, most_memory: &str) -> ResourceRequirements {
    let list = |all: &[(&str, &str)]| -> Option<BTreeMap<String, Quantity>> {
        Some(all.iter().map(|&(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).collect())
    };
    ResourceRequirements {
        requests: list(&[("cpu", cpu), ("memory", memory)]),
        limits: list(&[("memory", most_memory)]),
        ..ResourceRequirements::default()
    }
}
