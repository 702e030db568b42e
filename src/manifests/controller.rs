//! The controller's pods, and what keeps them running: a Deployment of one, or a StatefulSet of several.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec, Probe, SecretVolumeSource, TopologySpreadConstraint,
    Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::case::{Case, Image};
use super::document::Document;
use super::network::{GOSSIP_PORT, HEALTH_PORT, METRICS_PORT, RAFT_PORT};
use super::parts::{
    container_security, field_env, identity_env, labelled, labels, pod_security, pod_security_with_volumes, resources,
    secret_env, selector, words,
};
use super::settings::{NAME, Settings};

const CONFIG_PATH: &str = "/kubernetes-vault";
const RAFT_PATH: &str = "/var/lib/kubernetes-vault";
const TLS_PATH: &str = "/tls";
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// 0440. Files of a Secret are readable for everybody unless told otherwise.
const GROUP_READS: i32 = 0o440;

/// Where the pod stands in either of them.
const POD: &str = "/spec/template/spec";

/// What a case runs.
pub(super) fn workload(settings: &Settings) -> Document {
    if matches!(settings.case, Case::QuickStart | Case::OneNamespace) { single(settings) } else { several(settings) }
}

fn single(settings: &Settings) -> Document {
    let deployment = Deployment {
        metadata: labelled(&settings.namespace, NAME),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: selector(labels(NAME)),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), ..DeploymentStrategy::default() }),
            template: template(pod(settings)),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    let document = Document::new("deployment.yaml", &deployment).note(
        "/spec/strategy",
        "An update never waits for a replica that is to form a cluster with the one that it replaces.",
    );
    explained(document, settings)
}

fn several(settings: &Settings) -> Document {
    let set = StatefulSet {
        metadata: labelled(&settings.namespace, NAME),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(settings.replicas).ok(),
            service_name: Some(NAME.to_owned()),
            pod_management_policy: Some("Parallel".to_owned()),
            selector: selector(labels(NAME)),
            template: template(pod(settings)),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    let document = Document::new("statefulset.yaml", &set)
        .note(
            "/spec/replicas",
            "Three survive the loss of one. Two are no better than one: both are needed for a majority.",
        )
        .note("/spec/podManagementPolicy", "All at once: none becomes ready before they have found each other.");
    explained(spread_explained(document, settings), settings)
}

fn template(spec: PodSpec) -> PodTemplateSpec {
    let metadata = ObjectMeta { labels: Some(labels(NAME)), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn pod(settings: &Settings) -> PodSpec {
    let is_single = matches!(settings.case, Case::QuickStart | Case::OneNamespace);
    let is_secured = settings.case.is_secured();
    PodSpec {
        service_account_name: Some(NAME.to_owned()),
        security_context: Some(if is_single { pod_security() } else { pod_security_with_volumes() }),
        affinity: (!is_single).then(|| apart(is_secured)),
        topology_spread_constraints: is_secured.then(|| vec![over_zones()]),
        priority_class_name: is_secured.then(|| NAME.to_owned()),
        termination_grace_period_seconds: Some(30),
        containers: vec![container(settings, !is_single)],
        volumes: Some(volumes(settings)),
        ..PodSpec::default()
    }
}

fn container(settings: &Settings, has_peers: bool) -> Container {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("config", CONFIG_PATH, true), mount("raft", RAFT_PATH, false)];
    if settings.certificates().is_some() {
        mounts.push(mount("tls", TLS_PATH, true));
    }
    let port = |(name, port): (&str, i32)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    };
    let mut ports = vec![("metrics", METRICS_PORT), ("health", HEALTH_PORT)];
    if has_peers {
        ports.extend([("gossip", GOSSIP_PORT), ("raft", RAFT_PORT)]);
    }
    Container {
        name: NAME.to_owned(),
        image: Some(settings.image(Image::Controller)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: words(&["kubernetes-vault"]),
        args: Some(vec![format!("--config={CONFIG_PATH}/kubernetes-vault.yml")]),
        working_dir: Some(CONFIG_PATH.to_owned()),
        env: Some(environment(settings)),
        ports: Some(ports.into_iter().map(port).collect()),
        startup_probe: Some(probe("/startupz", 1, Some(300))),
        liveness_probe: Some(probe("/livez", 10, None)),
        readiness_probe: Some(probe("/readyz", 5, None)),
        security_context: Some(container_security()),
        resources: Some(resources("50m", "64Mi", "256Mi")),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn environment(settings: &Settings) -> Vec<EnvVar> {
    let mut env = Vec::new();
    if settings.vault_addr.is_none() {
        env.push(secret_env("VAULT_ADDR", &settings.secret, "addr"));
    }
    env.push(secret_env("VAULT_TOKEN", &settings.secret, "token"));
    env.extend(identity_env());
    if settings.case == Case::Production {
        env.push(field_env("POD_IP", "status.podIP"));
    }
    env
}

fn probe(path: &str, period: i32, failures: Option<i32>) -> Probe {
    let get =
        HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(HEALTH_PORT), ..HTTPGetAction::default() };
    Probe { http_get: Some(get), period_seconds: Some(period), failure_threshold: failures, ..Probe::default() }
}

fn volumes(settings: &Settings) -> Vec<Volume> {
    let config = ConfigMapVolumeSource { name: NAME.to_owned(), ..ConfigMapVolumeSource::default() };
    let mut volumes = vec![
        Volume { name: "config".to_owned(), config_map: Some(config), ..Volume::default() },
        Volume { name: "raft".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() },
    ];
    volumes.extend(settings.certificates().map(|secret| Volume {
        name: "tls".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(GROUP_READS),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }));
    volumes
}

/// On nodes of their own: all of them, or as many as there are.
fn apart(strictly: bool) -> Affinity {
    let term = PodAffinityTerm {
        topology_key: HOST.to_owned(),
        label_selector: Some(selector(labels(NAME))),
        ..PodAffinityTerm::default()
    };
    let anti = if strictly {
        PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }
    } else {
        PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }
    };
    Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() }
}

fn over_zones() -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: ZONE.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(labels(NAME))),
        ..TopologySpreadConstraint::default()
    }
}

fn explained(document: Document, settings: &Settings) -> Document {
    let is_single = matches!(settings.case, Case::QuickStart | Case::OneNamespace);
    let is_secured = settings.case.is_secured();
    let first = "/containers/0/env/0";
    let from_secret = if settings.vault_addr.is_some() {
        "From a Secret that you make. The controller may not read Secrets: the kubelet passes this one."
    } else {
        "Both from the Secret that you make. The controller may not read Secrets: the kubelet passes these two."
    };
    let which = if settings.vault_addr.is_some() { "/containers/0/env/1" } else { "/containers/0/env/2" };
    let storage = if is_single {
        "raftDir: the record of deliveries survives a restart of the container."
    } else {
        "It goes with its pod; the others have what was in it, and a cluster that lost all of its storage begins with an \
         empty ledger, which costs no secret. Where you prefer volumes that last, use volumeClaimTemplates."
    };
    let memory = if is_secured {
        "A replica takes about 30 MiB, and 4 KiB more for each pod that is starting: docs/benchmarks.md. No limit of CPU \
         time, since to wait for it delays heartbeats, and costs elections."
    } else {
        "A starting point, not a measurement of your cluster."
    };
    let document = document.notes(
        POD,
        &[
            (
                "/terminationGracePeriodSeconds",
                "Pushes that are under way may end (10 s), and a replica leaves its cluster in order.",
            ),
            (first, from_secret),
            (which, "Which of the service's pods this is."),
            (
                "/containers/0/workingDir",
                "For `kubectl exec POD -- kubernetes-vault status`: the configuration is looked for here.",
            ),
            (
                "/containers/0/startupProbe/failureThreshold",
                "A first start may have to wait for the API server, and for Vault to issue a certificate.",
            ),
            ("/containers/0/resources", memory),
            ("/containers/0/securityContext", "It needs no privilege of any kind, and writes to raftDir alone."),
            ("/volumes/1", storage),
        ],
    );
    if !is_secured {
        return document;
    }
    let tls = if settings.case == Case::Production {
        "vault-ca.crt: the CA that signed Vault's certificate."
    } else {
        "vault-ca.crt: the CA that signed Vault's certificate. metrics.crt, metrics.key, peer.crt and peer.key, and ca.crt, \
         the CA of these and of Prometheus."
    };
    let document = document
        .note(format!("{POD}/volumes/2"), tls)
        .note(format!("{POD}/volumes/2/secret/defaultMode"), "0440: for the group of the pod, and for nobody else.");
    if settings.case == Case::Production {
        let last = environment(settings).len() - 1;
        return document.note(format!("{POD}/containers/0/env/{last}"), "The address in its certificate for metrics.");
    }
    document
}

fn spread_explained(document: Document, settings: &Settings) -> Document {
    let document = document.note(
        format!("{POD}/securityContext/fsGroup"),
        "Volumes of the kind that you may put in place of the emptyDir below belong to root otherwise; and files of \
             a Secret.",
    );
    if !settings.case.is_secured() {
        let path = format!("{POD}/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0");
        return document.note(path, "On as many nodes as there are: a node that is lost takes one replica with it.");
    }
    document.notes(
        POD,
        &[
            (
                "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0",
                "Never two on one node: a node that is lost takes one replica with it, and two are a majority. It takes as \
                 many nodes as replicas; one that finds none waits.",
            ),
            (
                "/topologySpreadConstraints/0",
                "Over the zones there are, for the same reason; where there is one, or nodes have no label, it asks nothing.",
            ),
            (
                "/priorityClassName",
                "While no controller runs, no pod that waits for a secret starts: it goes before those.",
            ),
        ],
    )
}
