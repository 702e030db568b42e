//! Replicas that come, go, and lose their storage: the cluster heals by itself, and pods are served once.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;
use serde_json::json;
use testbed::Signal;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::failover::{create, served};
use super::stage::Plan;
use super::trio::{Trio, lasting_set, stateful_set};

pub(crate) const ALL: [(&str, On, Case); 4] = [
    ("one_replica_grows_to_three_and_shrinks_to_one", On::Testbed, |cluster| emptied(cluster).boxed_local()),
    ("on_lasting_volumes_three_shrink_to_one_where_they_are_told_to_leave", On::Testbed, |cluster| {
        lasting(cluster).boxed_local()
    }),
    ("storage_that_is_lost_is_made_up_for_by_those_that_kept_theirs", On::Testbed, |cluster| {
        lost(cluster).boxed_local()
    }),
    ("replicas_without_a_shared_secret_stop_and_say_which_keys_they_need", On::Testbed, |cluster| {
        nameless(cluster).boxed_local()
    }),
];

async fn emptied(cluster: Arc<Cluster>) -> Result<()> {
    let mut set = stateful_set()?;
    set["spec"]["replicas"] = json!(1);
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![set]), ..Plan::new("scale") }).await?;
    up_and_down(&trio).await
}

async fn lasting(cluster: Arc<Cluster>) -> Result<()> {
    let mut set = lasting_set("/var/lib/scale-lasting")?;
    set["spec"]["replicas"] = json!(1);
    let raft = json!({"leaveOnTerminate": "always"});
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![set]), raft, ..Plan::new("scale-lasting") }).await?;
    up_and_down(&trio).await?;
    // What left comes back with the storage that it had.
    trio.scale(3).await?;
    trio.settled(3).await?;
    let pods = create(&trio.stage, "again", 1).await?;
    served(&trio, &pods).await?;
    trio.served_once(4).await
}

async fn up_and_down(trio: &Trio) -> Result<()> {
    trio.settled(1).await?;
    let one = create(&trio.stage, "one", 1).await?;
    served(trio, &one).await?;
    trio.scale(3).await?;
    trio.settled(3).await?;
    let three = create(&trio.stage, "three", 1).await?;
    served(trio, &three).await?;
    trio.scale(1).await?;
    trio.settled(1).await?;
    let last = create(&trio.stage, "last", 1).await?;
    served(trio, &last).await?;
    trio.served_once(3).await
}

/// The storage lies in the container, as in an installation of the Go version: a restart of it is the loss.
async fn lost(cluster: Arc<Cluster>) -> Result<()> {
    let mut set = stateful_set()?;
    let spec = &mut set["spec"]["template"]["spec"];
    let container = &mut spec["containers"][0];
    container["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    container["volumeMounts"].as_array_mut().context("no mounts")?.retain(|mount| mount["name"] != "raft");
    spec["volumes"].as_array_mut().context("no volumes")?.retain(|volume| volume["name"] != "raft");
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![set]), ..Plan::new("lost") }).await?;
    let mut leader = trio.settled(3).await?;
    let before = create(&trio.stage, "before", 1).await?;
    served(&trio, &before).await?;
    for (count, what) in [(1, "one"), (2, "two"), (3, "three")] {
        let was = trio.nodes().await?;
        let pods = trio.pods().await?;
        // The leader among them, when it is two.
        let victims: Vec<&String> = match count {
            1 => pods.iter().filter(|pod| **pod != leader).take(1).collect(),
            2 => pods.iter().filter(|pod| **pod == leader).chain(pods.iter().find(|pod| **pod != leader)).collect(),
            _ => pods.iter().collect(),
        };
        victims.iter().try_for_each(|pod| trio.signal(pod, Signal::KILL))?;
        trio.restarted(&victims, &was).await?;
        leader = trio.settled(3).await?;
        let now = trio.nodes().await?;
        let new = now.values().filter(|node| !was.values().any(|old| old == *node)).count();
        ensure!(new == count, "{what}: {new} new nodes: {was:?} became {now:?}");
        let pods = create(&trio.stage, what, 1).await?;
        served(&trio, &pods).await?;
    }
    trio.served_once(4).await
}

/// With a token file there is nothing that replicas share.
async fn nameless(cluster: Arc<Cluster>) -> Result<()> {
    let variable =
        json!({"name": "VAULT_TOKEN", "valueFrom": {"secretKeyRef": {"name": "kubernetes-vault", "key": "token"}}});
    let mount = json!({"name": "token", "mountPath": "/token"});
    let plan = |name: &'static str, raft| -> Result<Plan> {
        let mut set = stateful_set()?;
        let spec = &mut set["spec"]["template"]["spec"];
        spec["volumes"]
            .as_array_mut()
            .context("no volumes")?
            .push(json!({"name": "token", "emptyDir": {"medium": "Memory"}}));
        spec["containers"][0]["volumeMounts"].as_array_mut().context("no mounts")?.push(mount.clone());
        spec["initContainers"] = json!([{
            "name": "agent", "image": "shell:1", "env": [variable], "volumeMounts": [mount],
            "command": ["/bin/sh", "-c", "printf '%s\\n' \"$VAULT_TOKEN\" > /token/vault-token"],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }]);
        let vault = json!({"tokenFile": "/token/vault-token"});
        Ok(Plan { replicas: Some(vec![set]), vault, raft, ..Plan::new(name) })
    };
    let without = async {
        let trio = Trio::up(&cluster, plan("nameless", json!({}))?).await?;
        trio.says("raft.secrets").await?;
        let exited = |pod: &serde_json::Value| {
            ["state", "lastState"]
                .iter()
                .any(|state| pod["status"]["containerStatuses"][0][state]["terminated"]["exitCode"] == 2)
        };
        let pods = ["kubernetes-vault-0", "kubernetes-vault-1", "kubernetes-vault-2"];
        let ends =
            pods.map(|pod| Box::pin(cluster.pod_when(trio.namespace(), pod, "exit code 2", exited)).boxed_local());
        futures::future::select_ok(ends).await?;
        anyhow::Ok(())
    };
    let with = async {
        let secret = "9f2d6c1b8a7e4053d1c2b3a4958677e0f1e2d3c4b5a69788796a5b4c3d2e1f00";
        let trio = Trio::up(&cluster, plan("named", json!({"secrets": [secret]}))?).await?;
        trio.settled(3).await?;
        let pods = create(&trio.stage, "web", 1).await?;
        served(&trio, &pods).await
    };
    try_join_all([without.boxed_local(), with.boxed_local()]).await.map(drop)
}
