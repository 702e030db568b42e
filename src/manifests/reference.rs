//! The quick start of the Go version, with today's API versions: what its users have, and what has to go on working.
//!
//! Must never happen: an improvement. Three replicas, no volume, no security context, no probes, its own rights, its own
//! names; what it lacks is in the other cases.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, PodSpec, PodTemplateSpec, Service, ServiceAccount, ServiceSpec, Volume,
    VolumeMount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::case::Image;
use super::configuration;
use super::document::Document;
use super::parts::{cluster_wide, field_env, named, secret_env, selector, words};
use super::settings::{NAME, Settings};

/// It named none, and so went to kubectl's own.
pub(super) const NAMESPACE: &str = "default";

pub(super) fn documents(settings: &Settings) -> Vec<Document> {
    let [account, role, binding] = access(settings);
    vec![account, role, binding, service(settings), configuration::of_the_go_version(settings), deployment(settings)]
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("run".to_owned(), NAME.to_owned())])
}

fn access(settings: &Settings) -> [Document; 3] {
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: words(&[""]),
        resources: words(&[resource]),
        verbs: words(verbs).unwrap_or_default(),
        ..PolicyRule::default()
    };
    let account = ServiceAccount { metadata: named(&settings.namespace, NAME), ..ServiceAccount::default() };
    let role = ClusterRole {
        metadata: cluster_wide(NAME),
        rules: Some(vec![rule("pods", &["list", "watch"]), rule("endpoints", &["get"])]),
        ..ClusterRole::default()
    };
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: NAME.to_owned(),
        namespace: Some(settings.namespace.clone()),
        ..Subject::default()
    };
    let binding = ClusterRoleBinding {
        metadata: cluster_wide(NAME),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: NAME.to_owned(),
        },
        subjects: Some(vec![subject]),
    };
    let file = "rbac.yaml";
    [
        Document::new(file, &account).head(
            "The quick start of the Go version, for those who have it: nothing is new but API versions and where the token \
             is. It has no security context, so that Pod Security `restricted` refuses it.",
        ),
        Document::new(file, &role).head(
            "The Go version's rights. Without Events and EndpointSlices the controller says so in its log, and asks for \
             Endpoints again and again.",
        ),
        Document::new(file, &binding),
    ]
}

fn service(settings: &Settings) -> Document {
    let service = Service {
        metadata: named(&settings.namespace, NAME),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(labels()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Document::new("service.yaml", &service)
}

fn deployment(settings: &Settings) -> Document {
    let container = Container {
        name: NAME.to_owned(),
        image: Some(settings.image(Image::Controller)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(vec![
            field_env("KUBERNETES_NAMESPACE", "metadata.namespace"),
            secret_env("VAULT_TOKEN", &settings.secret, "token"),
        ]),
        volume_mounts: Some(vec![VolumeMount {
            name: "config".to_owned(),
            mount_path: "/kubernetes-vault".to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    let config = ConfigMapVolumeSource { name: NAME.to_owned(), ..ConfigMapVolumeSource::default() };
    let pod = PodSpec {
        service_account_name: Some(NAME.to_owned()),
        containers: vec![container],
        volumes: Some(vec![Volume { name: "config".to_owned(), config_map: Some(config), ..Volume::default() }]),
        ..PodSpec::default()
    };
    let metadata = ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() };
    let deployment = Deployment {
        metadata: named(&settings.namespace, NAME),
        spec: Some(DeploymentSpec {
            replicas: i32::try_from(settings.replicas).ok(),
            selector: selector(labels()),
            template: PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    Document::new("deployment.yaml", &deployment).note(
        "/spec/template/spec/containers/0",
        "Neither command nor arguments: the image's entry point reads /kubernetes-vault/kubernetes-vault.yml.",
    )
}
