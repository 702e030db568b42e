//! Three replicas by the manifests of `deploy/`, and by those of an installation of the Go version: that they run, find
//! each other, and have the storage that each of the manifests gives them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kubernetes_vault::domain::ids::PodUid;
use kubernetes_vault::domain::storage::{Storage, StorageKind, locate};
use kubernetes_vault::k8s::peers::PeerDirectory;
use serde_json::{Value, json};

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually, image};
use super::controller::{BASE, NAME, RBAC, Rbac, SERVICE, documents, rename};
use super::stage::{Plan, Stage};

const STATEFUL_SET: &str = include_str!("../../deploy/replicated/statefulset.yaml");
const BUDGET: &str = include_str!("../../deploy/replicated/disruption-budget.yaml");
const POLICY: &str = include_str!("../../deploy/production/network-policy.yaml");
const GO_VERSION: &str = include_str!("../fixtures/reference/kubernetes-vault.yaml");
const RAFT_DIR: &str = "/var/lib/kubernetes-vault/";

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("three_replicas_of_our_manifests_run_and_their_storage_goes_with_the_pod", On::Testbed, |cluster| {
        ours(cluster).boxed_local()
    }),
    ("three_replicas_on_volumes_that_last_run_and_their_storage_outlives_the_pod", On::Testbed, |cluster| {
        lasting(cluster).boxed_local()
    }),
    ("an_installation_of_the_go_version_runs_and_its_storage_goes_with_the_container", On::Testbed, |cluster| {
        go_version(cluster).boxed_local()
    }),
];

async fn ours(cluster: Arc<Cluster>) -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/replicated");
    let whole = cluster.bed()?.kubectl(&["kustomize", folder]).await?;
    let of_ours = |kind: &str| {
        whole
            .matches(&format!("kind: {kind}\nmetadata:\n  labels:\n    app.kubernetes.io/name: kubernetes-vault\n"))
            .count()
    };
    ensure!(of_ours("StatefulSet") == 1 && of_ours("Deployment") == 0, "{folder}:\n{whole}");
    let objects = [BASE, RBAC, SERVICE, STATEFUL_SET, BUDGET, POLICY].map(documents);
    let objects: Vec<Value> = objects.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let replicas = Replicas::up(&cluster, "trio", objects).await?;
    replicas.have(StorageKind::EmptyDir).await
}

async fn lasting(cluster: Arc<Cluster>) -> Result<()> {
    let mut objects = [documents(BASE)?, documents(RBAC)?, documents(SERVICE)?, documents(STATEFUL_SET)?].concat();
    let set = objects.last_mut().and_then(|set| set.pointer_mut("/spec/template/spec")).context("no StatefulSet")?;
    let of_raft =
        |list: &mut Value| -> Option<usize> { list.as_array()?.iter().position(|item| item["name"] == "raft") };
    let volume = of_raft(&mut set["volumes"]).context("no volume `raft`")?;
    let mount = of_raft(&mut set["containers"][0]["volumeMounts"]).context("no mount of `raft`")?;
    set["volumes"][volume] =
        json!({"name": "raft", "hostPath": {"path": "/var/lib/trio-lasting", "type": "DirectoryOrCreate"}});
    set["containers"][0]["volumeMounts"][mount]["subPathExpr"] = json!("$(POD_NAME)");
    let replicas = Replicas::up(&cluster, "trio-lasting", objects).await?;
    replicas.have(StorageKind::Outlives).await
}

async fn go_version(cluster: Arc<Cluster>) -> Result<()> {
    let objects = documents(&GO_VERSION.replace("default", "trio-go"))?;
    let replicas = Replicas::up(&cluster, "trio-go", objects).await?;
    replicas.have(StorageKind::ContainerLayer).await
}

struct Replicas<'a> {
    cluster: &'a Cluster,
    namespace: &'static str,
    pods: Vec<(String, PodUid)>,
}

impl<'a> Replicas<'a> {
    /// Applies `objects` in `namespace`, with what they need beside, and waits until three pods are ready.
    async fn up(cluster: &'a Arc<Cluster>, namespace: &'static str, objects: Vec<Value>) -> Result<Self> {
        // For Vault's side of it; its own controller serves nobody.
        let plan = Plan { watch: Some("~^nobody$".into()), ..Plan::new(namespace) };
        let stage = Stage::up(cluster, plan).await?;
        let meta = json!({"name": NAME, "namespace": namespace});
        let config = json!({
            "vault": {"addr": "$VAULT_ADDR", "token": "$VAULT_TOKEN"},
            "kubernetes": {"watchNamespace": namespace, "serviceNamespace": namespace, "service": NAME},
            "prometheus": {"address": ":9090"},
        });
        let data = json!({"kubernetes-vault.yml": config.to_string()});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})).await?;
        let data = json!({"addr": cluster.vault.for_pods, "token": stage.token});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})).await?;
        for mut object in objects {
            rename(&mut object, namespace, Rbac::Cluster);
            if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
                container["image"] = json!(image("controller"));
            }
            cluster.apply(&object).await?;
        }
        let pods = cluster.pods(namespace);
        let ready = eventually("three pods that are ready", LIMIT, || async {
            let all = pods.list(&ListParams::default()).await?.items;
            let is_ready = |pod: &&k8s_openapi::api::core::v1::Pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            let ready: Vec<(String, PodUid)> = all
                .iter()
                .filter(is_ready)
                .map(|pod| (pod.name_any(), PodUid::from(pod.uid().unwrap_or_default().as_str())))
                .collect();
            Ok((ready.len() == 3).then_some(ready))
        });
        match ready.await {
            Ok(pods) => Ok(Self { cluster, namespace, pods }),
            Err(error) => {
                let mut told = format!("{error:#}");
                for pod in pods.list(&ListParams::default()).await?.items {
                    told = format!("{told}\n{}", cluster.describe(namespace, &pod.name_any()).await);
                }
                anyhow::bail!(told)
            }
        }
    }

    /// Checks that they are the service's peers, and where they keep what they write.
    async fn have(&self, kind: StorageKind) -> Result<()> {
        let (directory, _) = PeerDirectory::new(self.cluster.client.clone(), self.namespace, NAME);
        eventually("three peers", LIMIT, || async {
            let peers = directory.list().await?;
            let all = self.pods.iter().all(|(name, uid)| peers.iter().any(|p| *p.pod == **name && p.uid == *uid));
            Ok((all && peers.len() == 3).then_some(()))
        })
        .await?;
        for (pod, uid) in &self.pods {
            let script = format!("mkdir -p {RAFT_DIR} && echo x > {RAFT_DIR}written && cat /proc/self/mountinfo");
            let mountinfo = self.cluster.shell(self.namespace, pod, NAME, &script).await?;
            let found = locate(&mountinfo, RAFT_DIR);
            let expected = Storage { pod_uid: Some(uid.clone()), kind };
            ensure!(found == expected, "{pod}: {found:?} instead of {expected:?}\n{mountinfo}");
        }
        Ok(())
    }
}
