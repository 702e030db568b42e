//! An application that is given its secret by the init container: what a pod of yours needs is all in here.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, PodSpec, PodTemplateSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::case::{Image, Mode};
use super::document::Document;
use super::parts::{
    container_security, identity_env, labelled, labels, plain_env, pod_security, resources, secret_env, selector,
};
use super::settings::Settings;

/// Of the application, and of its AppRole.
const NAME: &str = "sample-app";
/// Of the init container.
const INIT: &str = "install";
const CREDENTIALS: &str = "/var/run/secrets/boostport.com";
/// Where the init container waits.
const PUSH_PORT: i32 = 50000;
const POD: &str = "/spec/template/spec";

pub(super) fn documents(settings: &Settings) -> Vec<Document> {
    let name = name(settings.mode);
    let deployment = Deployment {
        metadata: labelled(&settings.namespace, &name),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: selector(labels(&name)),
            template: template(settings, &name),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    let means = match settings.mode {
        Mode::Token => {
            "An application that gets a Vault token from the init container and reads a secret with it: see its log."
        }
        Mode::SecretId => {
            "An application that gets its secret_id from the init container, logs in with it, and reads a secret: see its log."
        }
        Mode::WrappedSecretId => {
            "An application that gets a wrapping token from the init container, unwraps its secret_id, logs in with it, and \
             reads a secret: see its log. If somebody else has unwrapped it, its own login fails, and so it is noticed."
        }
    };
    vec![explained(Document::new("deployment.yaml", &deployment).head(means), settings)]
}

fn name(mode: Mode) -> String {
    match mode {
        Mode::Token => NAME.to_owned(),
        mode => format!("{NAME}-{}", mode.name()),
    }
}

fn template(settings: &Settings, name: &str) -> PodTemplateSpec {
    let annotation = |key: &str, value: &str| (format!("pod.boostport.com/{key}"), value.to_owned());
    let metadata = ObjectMeta {
        labels: Some(labels(name)),
        annotations: Some(BTreeMap::from([
            annotation("vault-approle", NAME),
            annotation("vault-init-container", INIT),
        ])),
        ..ObjectMeta::default()
    };
    let credentials =
        EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: Some(Quantity("2Mi".to_owned())) };
    let spec = PodSpec {
        automount_service_account_token: Some(false),
        security_context: Some(pod_security()),
        init_containers: Some(vec![init(settings)]),
        containers: vec![application(settings)],
        volumes: Some(vec![Volume {
            name: "credentials".to_owned(),
            empty_dir: Some(credentials),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn init(settings: &Settings) -> Container {
    let mut env = vec![secret_env("VAULT_ROLE_ID", &settings.secret, "role-id")];
    env.extend(identity_env());
    env.extend(settings.vault_addr.as_deref().map(|addr| plain_env("VAULT_ADDR", addr)));
    let left_out: &[&str] = match settings.mode {
        Mode::Token => &[],
        Mode::SecretId => &["RETRIEVE_TOKEN"],
        Mode::WrappedSecretId => &["RETRIEVE_TOKEN", "UNWRAP_SECRET"],
    };
    env.extend(left_out.iter().map(|name| plain_env(name, "false")));
    let port = ContainerPort { container_port: PUSH_PORT, ..ContainerPort::default() };
    Container {
        name: INIT.to_owned(),
        image: Some(settings.image(Image::Init)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(env),
        ports: Some(vec![port]),
        security_context: Some(container_security()),
        resources: Some(resources("10m", "8Mi", "32Mi")),
        volume_mounts: Some(vec![mount(false)]),
        ..Container::default()
    }
}

fn application(settings: &Settings) -> Container {
    Container {
        name: NAME.to_owned(),
        image: Some(settings.image(Image::SampleApp)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        security_context: Some(container_security()),
        resources: Some(resources("10m", "16Mi", "64Mi")),
        volume_mounts: Some(vec![mount(true)]),
        ..Container::default()
    }
}

fn mount(read_only: bool) -> VolumeMount {
    VolumeMount {
        name: "credentials".to_owned(),
        mount_path: CREDENTIALS.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn explained(document: Document, settings: &Settings) -> Document {
    let init = format!("{POD}/initContainers/0");
    let document = document
        .note(
            "/spec/template/metadata/annotations",
            "Which AppRole, and which of the init containers below waits for its secret_id.",
        )
        .note(format!("{POD}/automountServiceAccountToken"), "Neither container talks to the Kubernetes API.")
        .note(format!("{POD}/volumes/0"), "In memory: what is in it never reaches a disk.")
        .notes(
            &init,
            &[
                ("/env/0", "The other half of the login: without a secret_id it opens nothing."),
                ("/env/1", "With these three a push that was meant for another pod is refused."),
                ("/ports/0", "The controller connects to this port of the pod. Let nobody else through to it."),
            ],
        );
    // After the role_id and what names the pod.
    let next = 1 + identity_env().len();
    let document = if settings.vault_addr.is_some() {
        document.note(
            format!("{init}/env/{next}"),
            "Vault is here, whatever a push says: who reaches the port above cannot lead this pod to another one.",
        )
    } else {
        document
    };
    let next = next + usize::from(settings.vault_addr.is_some());
    match settings.mode {
        Mode::Token => document,
        Mode::SecretId => document.note(format!("{init}/env/{next}"), "The application logs in by itself."),
        Mode::WrappedSecretId => document
            .note(format!("{init}/env/{next}"), "The application logs in by itself, and unwraps what it logs in with."),
    }
}
