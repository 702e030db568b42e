//! An application's pod, made from the pods of `deploy/sample-app/token/deployment.yaml`.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::cluster::image;
use super::controller::documents;
use super::stage::Stage;

const SAMPLE: &str = include_str!("../../deploy/sample-app/token/deployment.yaml");
/// The init container's name in that manifest.
pub(crate) const INIT: &str = "install";
/// The application's.
pub(crate) const APP: &str = "sample-app";
const ROLE: &str = "pod.boostport.com/vault-approle";
const CONTAINER: &str = "pod.boostport.com/vault-init-container";

/// A pod that is, or will be, in the cluster.
pub(crate) struct Workload<'a> {
    stage: &'a Stage,
    pub(crate) namespace: String,
    pub(crate) name: String,
    role: String,
    container: String,
    role_id: String,
    init_env: Vec<(String, String)>,
}

impl<'a> Workload<'a> {
    pub(crate) fn new(stage: &'a Stage, name: &str) -> Self {
        Self {
            stage,
            namespace: stage.name.to_owned(),
            name: name.to_owned(),
            role: stage.name.to_owned(),
            container: INIT.to_owned(),
            role_id: stage.role_id.clone(),
            init_env: Vec::new(),
        }
    }

    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The annotation that names the AppRole.
    pub(crate) fn role(mut self, role: &str) -> Self {
        role.clone_into(&mut self.role);
        self
    }

    /// The annotation that names the init container.
    pub(crate) fn container(mut self, container: &str) -> Self {
        container.clone_into(&mut self.container);
        self
    }

    pub(crate) fn role_id(mut self, role_id: &str) -> Self {
        role_id.clone_into(&mut self.role_id);
        self
    }

    /// A variable of the init container.
    pub(crate) fn init_env(mut self, name: &str, value: &str) -> Self {
        self.init_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Creates it; it runs when its turn comes.
    pub(crate) async fn create(self) -> Result<Self> {
        let pod: Pod = serde_json::from_value(self.object()?).context("the sample's pod")?;
        let created = self.stage.cluster.pods(&self.namespace).create(&PostParams::default(), &pod).await;
        created.with_context(|| format!("cannot create {}/{}", self.namespace, self.name))?;
        Ok(self)
    }

    /// Waits until the application has read its secret. Returns what it printed.
    pub(crate) async fn served(&self) -> Result<String> {
        let cluster = &self.stage.cluster;
        let running = cluster.pod_when(&self.namespace, &self.name, "application that runs", |pod| {
            matches!(pod["status"]["phase"].as_str(), Some("Running" | "Succeeded"))
        });
        self.stage.blame(running.await).await?;
        let secret = format!("Read secret/data/{}/greeting:", self.stage.name);
        let found = super::cluster::eventually("secret in the application's log", super::cluster::LIMIT, || async {
            let log = cluster.logs(&self.namespace, &self.name, APP).await?;
            Ok(log.contains(&secret).then_some(log))
        });
        match found.await {
            Ok(log) => Ok(log),
            Err(error) => anyhow::bail!("{error:#}\n{}", cluster.describe(&self.namespace, &self.name).await),
        }
    }

    /// Waits until the init container has started once.
    pub(crate) async fn waiting(&self) -> Result<()> {
        let started = |pod: &Value| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object();
        self.stage.cluster.pod_when(&self.namespace, &self.name, "init container that runs", started).await.map(drop)
    }

    /// The note of an Event about it.
    pub(crate) async fn event(&self, reason: &str) -> Result<String> {
        self.event_saying(reason, "").await
    }

    /// The note of an Event that has these words in it.
    pub(crate) async fn event_saying(&self, reason: &str, words: &str) -> Result<String> {
        let found = self.stage.cluster.event(&self.namespace, &self.name, reason, words).await;
        self.stage.blame(found).await
    }

    /// Its init container's restarts.
    pub(crate) async fn restarted(&self, times: u64) -> Result<()> {
        let found = self.stage.cluster.pod_when(&self.namespace, &self.name, "restart", |pod| {
            pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(times)
        });
        self.stage.blame(found.await).await.map(drop)
    }

    /// That its init container started once, and took one push.
    pub(crate) async fn took_one_push(&self) -> Result<()> {
        let pod = self.stage.cluster.pods(&self.namespace).get(&self.name).await?;
        let pod = serde_json::to_value(pod)?;
        let status = &pod["status"]["initContainerStatuses"][0];
        ensure!(status["restartCount"] == 0, "{} was restarted: {status}", self.name);
        let end = &status["state"]["terminated"];
        ensure!(end["exitCode"] == 0, "{} did not succeed: {status}", self.name);
        let message = end["message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("attempt="), "{} does not name its attempt: {status}", self.name);
        Ok(())
    }

    /// The pod as it is asked for.
    pub(crate) fn object(&self) -> Result<Value> {
        let sample = documents(SAMPLE)?.into_iter().find(|object| object["kind"] == "Deployment");
        let mut spec = sample.context("no sample")?.pointer("/spec/template/spec").context("no pod")?.clone();
        spec["initContainers"][0]["image"] = json!(image("init"));
        spec["containers"][0]["image"] = json!(image("sample-app"));
        // Half a minute of grace would be half a minute for each case that deletes a pod.
        spec["terminationGracePeriodSeconds"] = json!(1);
        let variables = |list: &[(String, String)]| -> Vec<Value> {
            list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        let env = spec["initContainers"][0]["env"].as_array_mut().context("no environment")?;
        env.retain(|variable| variable["name"] != "VAULT_ROLE_ID");
        env.push(json!({"name": "VAULT_ROLE_ID", "value": self.role_id}));
        env.extend(variables(&self.init_env));
        spec["containers"][0]["env"] = json!([
            {"name": "SECRET_PATH", "value": format!("secret/data/{}/greeting", self.stage.name)},
            {"name": "APPROLE_MOUNT", "value": self.stage.mount},
        ]);
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "namespace": self.namespace,
                "annotations": {ROLE: self.role, CONTAINER: self.container},
            },
            "spec": spec,
        }))
    }
}

/// A line such as `  accessor:       abc` of the sample application's log.
pub(crate) fn field<'a>(log: &'a str, name: &str) -> Result<&'a str> {
    let line = log.lines().filter_map(|line| line.trim().split_once(':')).find(|(key, _)| *key == name);
    Ok(line.with_context(|| format!("the sample application printed no {name}:\n{log}"))?.1.trim())
}
