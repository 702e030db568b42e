//! The controller in the cluster: the manifests of `deploy/`, RBAC included, with a case's names and configuration.

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::cluster::{Cluster, LIMIT, eventually, image};

/// The account, and its rights in its own namespace.
pub(crate) const BASE: &str = include_str!("../../deploy/base/rbac.yaml");
/// Its rights on pods.
pub(crate) const RBAC: &str = include_str!("../../deploy/quick-start/rbac.yaml");
const RBAC_ONE_NAMESPACE: &str = include_str!("../../deploy/one-namespace/rbac.yaml");
const DEPLOYMENT: &str = include_str!("../../deploy/quick-start/deployment.yaml");
pub(crate) const SERVICE: &str = include_str!("../../deploy/base/service.yaml");
pub(crate) const NAME: &str = "kubernetes-vault";

/// What the controller may do in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rbac {
    /// The ClusterRole of the quick start.
    Cluster,
    /// The same without Events: what an installation of the Go version has.
    NoEvents,
    /// The Role of `deploy/one-namespace`.
    OneNamespace,
}

/// What a controller is started with.
pub(crate) struct Settings<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) rbac: Rbac,
    /// The configuration file; JSON is YAML.
    pub(crate) config: Value,
    /// The environment variable `VAULT_TOKEN`.
    pub(crate) token: &'a str,
    /// Further volumes of the pod.
    pub(crate) volumes: Vec<Value>,
    /// Where they are mounted.
    pub(crate) mounts: Vec<Value>,
    pub(crate) init_containers: Vec<Value>,
    /// What runs instead of the quick start's Deployment.
    pub(crate) replicas: Option<Vec<Value>>,
}

/// A controller that was applied.
pub(crate) struct Controller {
    pub(crate) namespace: String,
    client: Client,
}

impl Controller {
    /// Applies all that it is made of. Pods wait for it anyway, so nobody else has to.
    pub(crate) async fn apply(cluster: &Cluster, settings: &Settings<'_>) -> Result<Self> {
        let namespace = settings.namespace;
        let rbac = if settings.rbac == Rbac::OneNamespace { RBAC_ONE_NAMESPACE } else { RBAC };
        let around = [documents(BASE)?, documents(rbac)?, documents(SERVICE)?].concat();
        // Replicas that bring a service of their own bring all that they need.
        let complete = settings.replicas.iter().flatten().any(|object| object["kind"] == "Service");
        for mut object in around.into_iter().filter(|_| !complete) {
            rename(&mut object, namespace, settings.rbac);
            cluster.apply(&object).await?;
        }
        let data = json!({"kubernetes-vault.yml": settings.config.to_string(), "ca.crt": cluster.vault.ca.as_deref().unwrap_or_default()});
        let meta = json!({"name": NAME, "namespace": namespace});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data});
        cluster.apply(&map).await?;
        let data = json!({"addr": cluster.vault.for_pods, "token": settings.token});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data});
        cluster.apply(&secret).await?;
        for mut object in settings.replicas.clone().map_or_else(|| Ok(vec![deployment(settings)?]), Ok::<_, Error>)? {
            rename(&mut object, namespace, settings.rbac);
            if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
                container["image"] = json!(image("controller"));
            }
            cluster.apply(&object).await?;
        }
        Ok(Self { namespace: namespace.to_owned(), client: cluster.client.clone() })
    }

    /// The name of its pod; one of several.
    pub(crate) async fn pod(&self, cluster: &Cluster) -> Result<String> {
        eventually("pod of the controller", LIMIT, || async {
            Ok(self.pods(cluster).await?.into_iter().find_map(|pod| pod.metadata.name))
        })
        .await
    }

    /// Its pods, by name.
    pub(crate) async fn pods(&self, cluster: &Cluster) -> Result<Vec<Pod>> {
        let all = cluster.pods(&self.namespace).list(&ListParams::default()).await?.items;
        let is_ours = |pod: &Pod| pod.spec.iter().flat_map(|spec| &spec.containers).any(|one| one.name == NAME);
        Ok(all.into_iter().filter(is_ours).collect())
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self, cluster: &Cluster) -> Result<()> {
        let pod = self.pod(cluster).await?;
        let found = eventually("ready controller", LIMIT, || async {
            Ok(self.page(cluster, &pod, 8080, "readyz").await.ok().map(drop))
        });
        match found.await {
            Ok(()) => Ok(()),
            Err(error) => anyhow::bail!("{error:#}\n{}", cluster.describe(&self.namespace, &pod).await),
        }
    }

    pub(crate) async fn metrics(&self, cluster: &Cluster) -> Result<String> {
        self.metrics_of(cluster, &self.pod(cluster).await?).await
    }

    /// Those of one of several.
    pub(crate) async fn metrics_of(&self, cluster: &Cluster, pod: &str) -> Result<String> {
        self.page(cluster, pod, 9090, "metrics").await
    }

    /// What was printed since the last start; by several replicas, one after another.
    pub(crate) async fn logs(&self, cluster: &Cluster) -> Result<String> {
        let mut pods = self.pods(cluster).await?.into_iter().filter_map(|pod| pod.metadata.name).peekable();
        ensure!(pods.peek().is_some(), "the controller has no pod");
        let mut logs = String::new();
        for pod in pods {
            logs += &cluster.logs(&self.namespace, &pod, NAME).await?;
        }
        Ok(logs)
    }

    /// Kills its process with SIGKILL.
    pub(crate) async fn kill(&self, cluster: &Cluster) -> Result<()> {
        cluster.kill(&self.namespace, &self.pod(cluster).await?, NAME).await
    }

    /// By way of the API server, as from outside of a cluster.
    async fn page(&self, cluster: &Cluster, pod: &str, port: u16, page: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/{page}", self.namespace);
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(cluster.client.request_text(request).await?)
    }
}

/// A case that is over leaves no replica behind: dozens of them would slow the cases that come after it.
impl Drop for Controller {
    fn drop(&mut self) {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        tokio::spawn(async move {
            let (how, all) = (DeleteParams::background(), ListParams::default());
            let (deployments, sets) =
                tokio::join!(deployments.delete_collection(&how, &all), sets.delete_collection(&how, &all));
            for error in deployments.err().into_iter().chain(sets.err()) {
                eprintln!("a controller is left behind: {error}");
            }
        });
    }
}

/// The objects of a manifest.
pub(crate) fn documents(manifest: &str) -> Result<Vec<Value>> {
    serde_yaml::Deserializer::from_str(manifest)
        .map(|document| Value::deserialize(document).context("a manifest is not YAML"))
        .collect()
}

/// What `kustomize` would do with `namespace:` and `nameSuffix:`.
pub(crate) fn rename(object: &mut Value, namespace: &str, rbac: Rbac) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind.starts_with("ClusterRole") {
        object["metadata"]["name"] = json!(format!("{NAME}-{namespace}"));
    } else {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if kind == "ClusterRoleBinding" {
        object["roleRef"]["name"] = json!(format!("{NAME}-{namespace}"));
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        subject["namespace"] = json!(namespace);
    }
    if rbac == Rbac::NoEvents
        && let Some(rules) = object.get_mut("rules").and_then(Value::as_array_mut)
    {
        rules.retain(|rule| rule["resources"] != json!(["events"]));
    }
}

fn deployment(settings: &Settings<'_>) -> Result<Value> {
    let mut object = documents(DEPLOYMENT)?.pop().context("no deployment")?;
    let spec = object.pointer_mut("/spec/template/spec").context("a deployment without pods")?;
    if !settings.init_containers.is_empty() {
        spec["initContainers"] = json!(settings.init_containers);
    }
    let append = |list: &mut Value, items: &[Value]| {
        list.as_array_mut().map(|list| list.extend_from_slice(items)).context("a manifest without a list")
    };
    append(&mut spec["volumes"], &settings.volumes)?;
    append(&mut spec["containers"][0]["volumeMounts"], &settings.mounts)?;
    Ok(object)
}

/// The value of a series, its labels included, on a page of metrics.
pub(crate) fn sample<N: FromStr>(metrics: &str, series: &str) -> Option<N> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}
