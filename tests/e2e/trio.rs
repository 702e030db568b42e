//! Replicas that serve a case's pods: who leads, who votes, what befalls them, and what they say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testbed::{Direction, Signal};

use super::cluster::{Cluster, LIMIT, eventually, image, tail};
use super::controller::{NAME, documents};
use super::stage::{Plan, Stage};

const STATEFUL_SET: &str = include_str!("../../deploy/replicated/statefulset.yaml");

/// The StatefulSet of `deploy/replicated`. Its readiness is asked for each second, as a case waits for it often.
pub(crate) fn stateful_set() -> Result<Value> {
    let mut set = documents(STATEFUL_SET)?.pop().context("no StatefulSet")?;
    set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] = json!(1);
    Ok(set)
}

/// The same pods as a Deployment that starts a new one before it stops an old one.
pub(crate) fn deployment() -> Result<Value> {
    let mut object = stateful_set()?;
    object["kind"] = json!("Deployment");
    let spec = object["spec"].as_object_mut().context("no spec")?;
    spec.remove("serviceName");
    spec.remove("podManagementPolicy");
    spec.insert("strategy".into(), json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}));
    Ok(object)
}

/// The StatefulSet with a volume that outlives its pods, one for each.
pub(crate) fn lasting_set(path: &str) -> Result<Value> {
    let mut set = stateful_set()?;
    let spec = &mut set["spec"]["template"]["spec"];
    let of_raft =
        |list: &mut Value| -> Option<usize> { list.as_array()?.iter().position(|item| item["name"] == "raft") };
    let volume = of_raft(&mut spec["volumes"]).context("no volume `raft`")?;
    let mount = of_raft(&mut spec["containers"][0]["volumeMounts"]).context("no mount of `raft`")?;
    spec["volumes"][volume] = json!({"name": "raft", "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    spec["containers"][0]["volumeMounts"][mount]["subPathExpr"] = json!("$(POD_NAME)");
    Ok(set)
}

/// A pod of the StatefulSet's kind that stands behind the same service, and belongs to no set.
pub(crate) fn lone_pod(namespace: &str, name: &str) -> Result<Value> {
    let template = stateful_set()?["spec"]["template"].take();
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod["spec"]["containers"][0]["image"] = json!(image("controller"));
    Ok(pod)
}

/// What one replica says of itself.
pub(crate) struct Seen {
    pub(crate) pod: String,
    /// As `kubernetes-vault status --output json` prints it.
    pub(crate) status: Value,
}

impl Seen {
    fn leads(&self) -> bool {
        self.status["role"] == "leader"
    }

    fn voters(&self) -> BTreeSet<&str> {
        let members = self.status["members"].as_array().into_iter().flatten();
        members.filter(|member| member["kind"] == "voter").filter_map(|member| member["node"].as_str()).collect()
    }
}

/// A line that says `delivered`.
pub(crate) struct Delivery {
    pub(crate) at: Timestamp,
    pub(crate) uid: String,
    /// The log that it stands in.
    pub(crate) file: std::path::PathBuf,
}

/// See the module.
pub(crate) struct Trio {
    pub(crate) stage: Stage,
    /// Prints the status, as people type it in the pod.
    command: Vec<&'static str>,
}

impl Trio {
    /// Applies the plan; the replicas are the StatefulSet's unless it says otherwise.
    pub(crate) async fn up(cluster: &Arc<Cluster>, mut plan: Plan) -> Result<Self> {
        let mut command = vec!["kubernetes-vault", "status", "--output", "json"];
        let replicas = plan.replicas.get_or_insert(vec![stateful_set()?]);
        if !replicas.iter().any(|object| object.pointer("/spec/template/spec/containers/0/workingDir").is_some()) {
            command.push("--config=/kubernetes-vault/kubernetes-vault.yml");
        }
        // Used ones stay in Vault's list, so that each that was ever made can be counted.
        plan.secret_id_uses = 0;
        Ok(Self { stage: Stage::up(cluster, plan).await?, command })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.stage.controller.namespace
    }

    fn cluster(&self) -> &Cluster {
        &self.stage.cluster
    }

    /// The names of the pods there are, but for those that are about to go.
    pub(crate) async fn pods(&self) -> Result<Vec<String>> {
        let pods = self.stage.controller.pods(self.cluster()).await?;
        let stay = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(stay.map(ResourceExt::name_any).collect())
    }

    /// The UIDs of the pods there are, also of those that are about to go.
    pub(crate) async fn uids(&self) -> Result<BTreeSet<String>> {
        let pods = self.stage.controller.pods(self.cluster()).await?;
        Ok(pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect())
    }

    /// What one of them says of itself, through its control socket.
    pub(crate) async fn status(&self, pod: &str) -> Result<Value> {
        let output = self.cluster().exec(self.namespace(), pod, NAME, &self.command).await?;
        let printed = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&printed)
            .with_context(|| format!("{pod}: {printed}{}", String::from_utf8_lossy(&output.stderr)))
    }

    pub(crate) async fn statuses(&self) -> Result<Vec<Seen>> {
        self.statuses_without(&[]).await
    }

    /// Of all but those that stand `apart`.
    async fn statuses_without(&self, apart: &[&str]) -> Result<Vec<Seen>> {
        let pods = self.pods().await?.into_iter().filter(|pod| !apart.contains(&pod.as_str()));
        let asked = pods.map(|pod| async move { Ok(Seen { status: self.status(&pod).await?, pod }) });
        join_all(asked).await.into_iter().collect()
    }

    /// Node ids by pod.
    pub(crate) async fn nodes(&self) -> Result<BTreeMap<String, String>> {
        let all = self.statuses().await?.into_iter();
        let node = |seen: &Seen| seen.status["node"].as_str().unwrap_or_default().to_owned();
        Ok(all.map(|seen| (seen.pod.clone(), node(&seen))).collect())
    }

    /// Waits until these show other ids than they did.
    pub(crate) async fn restarted(&self, pods: &[&String], was: &BTreeMap<String, String>) -> Result<()> {
        let found = eventually("replicas with new storage", LIMIT, || async {
            let now = self.nodes().await?;
            let is_new = |pod: &&String| now.get(*pod).is_some_and(|node| Some(node) != was.get(*pod));
            Ok(pods.iter().all(is_new).then_some(()))
        });
        self.blame(found.await).await
    }

    /// Waits until there are so many replicas, voters all of them, and one leader. Returns its pod.
    pub(crate) async fn settled(&self, replicas: usize) -> Result<String> {
        self.settled_with(replicas, replicas).await
    }

    /// The same with so many voters.
    pub(crate) async fn settled_with(&self, replicas: usize, voters: usize) -> Result<String> {
        self.settled_without(&[], replicas, voters).await
    }

    /// The same among all but those that stand `apart`.
    pub(crate) async fn settled_without(&self, apart: &[&str], replicas: usize, voters: usize) -> Result<String> {
        let what = format!("{voters} voters in {replicas} replicas");
        let found = eventually(&what, LIMIT, || async {
            let all = self.statuses_without(apart).await?;
            match agreed(&all, replicas, voters) {
                Ok(leader) => Ok(Some(leader)),
                Err(why) => bail!(why),
            }
        });
        self.blame(found.await).await
    }

    /// Waits until one leads of those that do not stand `apart`, and the others of them follow it. Returns its pod.
    pub(crate) async fn led_without(&self, apart: &[&str]) -> Result<String> {
        let found = eventually("leader among those that are left", LIMIT, || async {
            let all = self.statuses_without(apart).await?;
            let leads: Vec<&Seen> = all.iter().filter(|seen| seen.leads()).collect();
            let [leader] = leads.as_slice() else { return Ok(None) };
            let followed = all.iter().all(|seen| seen.status["leader"] == leader.status["node"]);
            Ok(followed.then(|| leader.pod.clone()))
        });
        self.blame(found.await).await
    }

    /// Adds the pods and the ends of all logs to an error.
    pub(crate) async fn blame<T>(&self, result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let mut told = self.pods_in_words().await;
        if !self.cluster().has_log_files() {
            told += &self.stage.controller.logs(self.cluster()).await.unwrap_or_default();
            return Err(error.context(format!("the replicas' logs:\n{}\n", tail(&told))));
        }
        for file in self.log_files()? {
            told += &format!("--- {}\n{}\n", file.display(), tail(&read(&file)?));
        }
        Err(error.context(format!("the replicas' logs:\n{told}\n")))
    }

    async fn pods_in_words(&self) -> String {
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(self.cluster().client.clone(), self.namespace());
        let listed = match pods.list(&kube::api::ListParams::default()).await {
            Ok(listed) => listed,
            Err(error) => return format!("pods cannot be listed: {error}\n"),
        };
        let told = listed.into_iter().map(|pod| {
            let status = pod.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default().into_iter();
            let conditions: Vec<String> = conditions.map(|one| format!("{}={}", one.type_, one.status)).collect();
            let (name, uid) = (pod.metadata.name.unwrap_or_default(), pod.metadata.uid.unwrap_or_default());
            let leaving = if pod.metadata.deletion_timestamp.is_some() { ", is being deleted" } else { "" };
            format!("{name} {uid} {}{leaving} {}\n", status.phase.unwrap_or_default(), conditions.join(" "))
        });
        told.collect()
    }

    pub(crate) fn signal(&self, pod: &str, signal: Signal) -> Result<()> {
        self.cluster().bed()?.node_of(self.namespace(), pod)?.signal(self.namespace(), pod, NAME, signal)
    }

    /// Parts one replica from all the others, and from nobody else.
    pub(crate) async fn part(&self, pod: &str) -> Result<()> {
        let bed = self.cluster().bed()?;
        let network = |pod: &str| bed.node_of(self.namespace(), pod)?.network(self.namespace(), pod);
        let own = network(pod)?;
        for other in self.pods().await?.iter().filter(|other| *other != pod) {
            let peer = Some(network(other)?.ip.into());
            own.drop_packets(Direction::In, peer).await?;
            own.drop_packets(Direction::Out, peer).await?;
        }
        Ok(())
    }

    /// Takes that back.
    pub(crate) async fn heal(&self, pod: &str) -> Result<()> {
        let bed = self.cluster().bed()?;
        bed.node_of(self.namespace(), pod)?.network(self.namespace(), pod)?.let_packets_through().await
    }

    /// Changes the StatefulSet or the Deployment.
    pub(crate) async fn patch(&self, kind: &str, patch: &Value) -> Result<()> {
        self.patch_by(kind, &Patch::Merge(patch)).await
    }

    /// The same, where lists are merged by the names in them.
    pub(crate) async fn patch_within(&self, kind: &str, patch: &Value) -> Result<()> {
        self.patch_by(kind, &Patch::Strategic(patch)).await
    }

    async fn patch_by(&self, kind: &str, patch: &Patch<&Value>) -> Result<()> {
        let resource = kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("apps", "v1", kind));
        let client = self.cluster().client.clone();
        let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(client, self.namespace(), &resource);
        api.patch(NAME, &PatchParams::default(), patch).await?;
        Ok(())
    }

    pub(crate) async fn scale(&self, replicas: usize) -> Result<()> {
        self.patch("StatefulSet", &json!({"spec": {"replicas": replicas}})).await
    }

    /// The logs of all starts of all replicas that there ever were.
    pub(crate) fn log_files(&self) -> Result<Vec<std::path::PathBuf>> {
        let nodes = self.cluster().bed()?.nodes();
        Ok(nodes.iter().flat_map(|node| node.namespace_log_files(self.namespace(), NAME)).collect())
    }

    /// The log of the running start of one of them.
    pub(crate) fn log_file(&self, pod: &str) -> Result<std::path::PathBuf> {
        let files = self.cluster().bed()?.node_of(self.namespace(), pod)?.log_files(self.namespace(), pod, NAME)?;
        files.last().cloned().context("no log")
    }

    /// All deliveries that any of them has logged, in the order of time.
    pub(crate) fn deliveries(&self) -> Result<Vec<Delivery>> {
        let mut found = Vec::new();
        for file in self.log_files()? {
            for line in read(&file)?.lines().filter(|line| line.contains(" delivered pod=")) {
                let uid =
                    line.split_once(" pod.uid=").and_then(|(_, rest)| rest.split(' ').next()).context("no UID")?;
                found.push(Delivery { at: time_of(line)?, uid: uid.to_owned(), file: file.clone() });
            }
        }
        found.sort_by_key(|delivery| delivery.at);
        Ok(found)
    }

    /// From a fault to the next delivery by somebody else than `victim`, whose log this was.
    pub(crate) async fn gap(&self, since: Timestamp, victim: &Path) -> Result<Duration> {
        let found = eventually("delivery by another replica", LIMIT, || async {
            let all = self.deliveries()?;
            Ok(all.iter().find(|one| one.at >= since && one.file != *victim).map(|one| one.at))
        });
        let at = self.blame(found.await).await?;
        Ok(at.duration_since(since).unsigned_abs())
    }

    /// When one of them took the lead, after `since`.
    pub(crate) async fn taken_over(&self, since: Timestamp, victim: &Path) -> Result<Duration> {
        let found = eventually("new leader", LIMIT, || async {
            let mut first = None;
            for file in self.log_files()?.iter().filter(|file| *file != victim) {
                for line in read(file)?.lines().filter(|line| line.contains("this replica leads")) {
                    let at = time_of(line)?;
                    if at >= since && first.is_none_or(|first| at < first) {
                        first = Some(at);
                    }
                }
            }
            Ok(first)
        });
        Ok(self.blame(found.await).await?.duration_since(since).unsigned_abs())
    }

    /// Waits for words in the log of any start of any of them.
    pub(crate) async fn says(&self, words: &str) -> Result<()> {
        let said = eventually(&format!("log line that says {words:?}"), LIMIT, || async {
            let files = self.log_files()?;
            let mut said = false;
            for file in files {
                said = said || read(&file)?.contains(words);
            }
            Ok(said.then_some(()))
        })
        .await;
        self.blame(said).await
    }

    /// That each pod was served, and none twice: one login each, and no second acceptance. Of the latter the logs
    /// tell; a kubelet keeps none of pods that are gone, so there the logins have to do.
    pub(crate) async fn served_once(&self, pods: usize) -> Result<()> {
        let logins = self.stage.logins().await?.len();
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        let deliveries = if self.cluster().has_log_files() { self.deliveries()? } else { Vec::new() };
        for delivery in deliveries {
            *counted.entry(delivery.uid).or_default() += 1;
        }
        let twice: Vec<_> = counted.iter().filter(|(_, count)| **count > 1).collect();
        let checked = if logins != pods {
            Err(anyhow::anyhow!("{logins} logins for {pods} pods"))
        } else if twice.is_empty() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("delivered more than once: {twice:?}"))
        };
        self.blame(checked).await
    }
}

/// The leader's pod, if all say the same.
fn agreed(all: &[Seen], replicas: usize, voters: usize) -> Result<String, String> {
    let shown = || -> Vec<String> {
        let one = |seen: &Seen| format!("{}: {}, {} voters", seen.pod, seen.status["role"], seen.voters().len());
        all.iter().map(one).collect()
    };
    let leaders: Vec<&Seen> = all.iter().filter(|seen| seen.leads()).collect();
    let [leader] = leaders.as_slice() else { return Err(format!("no single leader: {:?}", shown())) };
    let node = &leader.status["node"];
    let agree = |seen: &Seen| {
        seen.status["leader"] == *node
            && seen.status["cluster"] == leader.status["cluster"]
            && seen.voters() == leader.voters()
    };
    let present: BTreeSet<&str> = all.iter().filter_map(|seen| seen.status["node"].as_str()).collect();
    let lives = leader.voters().is_subset(&present);
    if all.len() == replicas && leader.voters().len() == voters && lives && all.iter().all(agree) {
        return Ok(leader.pod.clone());
    }
    Err(format!("not agreed: {:?}", shown()))
}

pub(crate) fn read(file: &Path) -> Result<String> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn time_of(line: &str) -> Result<Timestamp> {
    let first = line.split_whitespace().next().context("an empty line")?;
    first.parse().with_context(|| format!("no time: {line}"))
}

/// Says what was measured, for whoever reads the output of the suite.
pub(crate) fn measured(what: &str, took: Duration, limit: Duration) -> Result<()> {
    eprintln!("{what}: {} ms (at most {})", took.as_millis(), limit.as_millis());
    ensure!(took <= limit, "{what}: {took:?} instead of {limit:?} at most");
    Ok(())
}
