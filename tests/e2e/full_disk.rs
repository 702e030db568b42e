//! A disk that is full: its replica says so and stops, the others deliver, and room is all that it needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::NAME;
use super::failover::{create, served};
use super::stage::Plan;
use super::trio::{Trio, lasting_set, read};

const FOLDER: &str = "/var/lib/full-disk";
/// A replica takes 8 MiB, most of it reserved for its log; there has to be more, or it would be full before its time.
const DISK_BYTES: u64 = 32 << 20;
/// A block of the disk may be half empty when it is full: that is room for a few deliveries, and not for so many.
const PODS: usize = 10;
/// What a replica that stops has to say in its one line: where, what, and what to do.
const SAYS: [&str; 3] =
    ["/var/lib/kubernetes-vault", "no space is left on its device", "make room or enlarge it, then start again"];
/// The start that the disk ends, one that finds it full, and one that finds what that one has left.
const STARTS: usize = 3;

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("a_replica_whose_disk_is_full_says_so_and_stops_and_serves_again_once_there_is_room", On::Testbed, |cluster| {
        fills_up(cluster).boxed_local()
    })];

async fn fills_up(cluster: Arc<Cluster>) -> Result<()> {
    let node = cluster.bed()?.nodes().first().context("no node")?;
    let mount = |pod: &str| Ok((pod.to_owned(), node.mount_disk(&format!("{FOLDER}/{pod}"), DISK_BYTES)?));
    let disks = [0, 1, 2].map(|index| mount(&format!("{NAME}-{index}")));
    let disks = disks.into_iter().collect::<Result<BTreeMap<_, _>>>()?;
    let plan = Plan { replicas: Some(vec![lasting_set(FOLDER)?]), ..Plan::new("full-disk") };
    let trio = Trio::up(&cluster, plan).await?;
    let victim = trio.settled(3).await?;
    let nodes = trio.nodes().await?;
    let before = create(&trio.stage, "before", 1).await?;
    served(&trio, &before).await?;

    disks[&victim].fill()?;
    // The first of them is claimed by a leader that cannot write that down.
    let meanwhile = create(&trio.stage, "meanwhile", PODS).await?;
    let leader = trio.blame(shown_as_lost(&trio, &victim, &nodes[&victim]).await).await?;
    served(&trio, &meanwhile).await?;
    trio.blame(says_so(&trio, &victim).await).await?;

    disks[&victim].clear()?;
    trio.settled(3).await?;
    let now = trio.nodes().await?;
    ensure!(now == nodes, "storage was lost: {nodes:?} became {now:?}");
    // The two that are left need each other: what is delivered now is on the disk that was full.
    trio.part(&leader).await?;
    let after = create(&trio.stage, "after", 1).await?;
    let served_after = served(&trio, &after).await;
    trio.heal(&leader).await?;
    served_after?;
    trio.settled(3).await?;
    trio.served_once(before.len() + meanwhile.len() + after.len()).await
}

/// Waits until another one leads, and its status says that the node of `victim` is lost. Returns its pod.
async fn shown_as_lost(trio: &Trio, victim: &str, node: &str) -> Result<String> {
    eventually("leader that shows a member as lost", LIMIT, || async {
        for pod in trio.pods().await?.into_iter().filter(|pod| pod != victim) {
            let status = trio.status(&pod).await?;
            let mut members = status["members"].as_array().into_iter().flatten();
            let lost = members.any(|member| member["node"] == node && member["reachable"] == false);
            if status["role"] == "leader" && lost {
                return Ok(Some(pod));
            }
        }
        Ok(None)
    })
    .await
}

/// Waits until starts of `victim` have ended, each with one line, and with an exit code that asks for another start.
async fn says_so(trio: &Trio, victim: &str) -> Result<()> {
    let bed = trio.stage.cluster.bed()?;
    let ended = eventually("starts that have ended", LIMIT, || async {
        let mut files = bed.node_of(trio.namespace(), victim)?.log_files(trio.namespace(), victim, NAME)?;
        // The last one may be under way.
        files.pop();
        Ok((files.len() >= STARTS).then_some(files))
    });
    for file in ended.await? {
        let log = read(&file)?;
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        let clear = errors.len() == 1 && SAYS.iter().all(|words| errors[0].contains(words));
        ensure!(clear, "{} says {errors:#?} instead of {SAYS:?} in one line", file.display());
    }
    let ends = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        ["state", "lastState"].iter().any(|state| status[state]["terminated"]["exitCode"] == 1)
    };
    trio.stage.cluster.pod_when(trio.namespace(), victim, "exit code 1", ends).await.map(drop)
}
