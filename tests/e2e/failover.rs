//! A leader that dies, is cut off, or is told to stop: the others go on, and no pod is served twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use testbed::Signal;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::documents;
use super::stage::{Plan, Policy, Stage};
use super::trio::{Trio, measured};
use super::workload::Workload;

const GO_VERSION: &str = include_str!("../fixtures/reference/kubernetes-vault.yaml");
/// Pods that are being served when something happens.
const PODS: usize = 10;
/// Two busy cores run all the other cases beside; the targets are a fifth of these, and are measured elsewhere.
const KILLED: Duration = Duration::from_millis(6_000);
const STOPPED: Duration = Duration::from_millis(2_000);
const PARTED: Duration = Duration::from_millis(10_000);
/// A push that was begun within the lease may be answered this much later.
const LAST_ANSWER: Duration = Duration::from_secs(2);

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("a_leader_that_is_killed_cut_off_or_stopped_is_replaced_and_no_pod_is_served_twice", On::Testbed, |cluster| {
        ours(cluster).boxed_local()
    }),
    ("an_installation_of_the_go_version_serves_pods_while_its_leader_is_killed", On::Testbed, |cluster| {
        go_version(cluster).boxed_local()
    }),
];

async fn ours(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan::new("failover")).await?;
    Box::pin(killed(&trio)).await?;
    Box::pin(parted(&trio)).await?;
    Box::pin(stopped(&trio)).await?;
    trio.served_once(PODS + PODS + 2).await
}

/// SIGKILL while pods are being served.
async fn killed(trio: &Trio) -> Result<()> {
    let leader = trio.settled(3).await?;
    let log = trio.log_file(&leader)?;
    let pods = create(&trio.stage, "killed", PODS).await?;
    eventually("first delivery", LIMIT, || async { Ok((!trio.deliveries()?.is_empty()).then_some(())) }).await?;
    let at = Timestamp::now();
    trio.signal(&leader, Signal::KILL)?;
    measured("SIGKILL to the next leader", trio.taken_over(at, &log).await?, KILLED)?;
    served(trio, &pods).await?;
    trio.served_once(PODS).await?;
    measured("SIGKILL to the next delivery", trio.gap(at, &log).await?, KILLED)
}

/// Parted from its peers, and from nobody else.
async fn parted(trio: &Trio) -> Result<()> {
    let leader = trio.settled(3).await?;
    let log = trio.log_file(&leader)?;
    let pods = create(&trio.stage, "parted", PODS).await?;
    pods[0].served().await?;
    trio.part(&leader).await?;
    let at = Timestamp::now();
    let went_on = async {
        measured("cut to the next leader", trio.taken_over(at, &log).await?, PARTED)?;
        served(trio, &pods).await
    };
    let went_on = went_on.await;
    let own: Vec<Timestamp> =
        trio.deliveries()?.iter().filter(|one| one.file == log && one.at > at).map(|one| one.at).collect();
    trio.heal(&leader).await?;
    went_on?;
    let late = own.iter().filter(|own| own.duration_since(at).unsigned_abs() > LAST_ANSWER).count();
    ensure!(late == 0, "the leader that was cut off went on to push: {own:?}, cut at {at}");
    trio.settled(3).await?;
    trio.served_once(2 * PODS).await
}

/// SIGTERM: the lead is handed over before anything else.
async fn stopped(trio: &Trio) -> Result<()> {
    let leader = trio.settled(3).await?;
    let log = trio.log_file(&leader)?;
    let at = Timestamp::now();
    trio.signal(&leader, Signal::TERM)?;
    measured("SIGTERM to the next leader", trio.taken_over(at, &log).await?, STOPPED)?;
    let pods = create(&trio.stage, "stopped", 2).await?;
    served(trio, &pods).await?;
    trio.settled(3).await.map(drop)
}

/// Nothing of it was edited: `endpoints: get`, Raft state in the container's layer, no POD_* variables.
async fn go_version(cluster: Arc<Cluster>) -> Result<()> {
    let mut objects = documents(GO_VERSION)?;
    // The case's own configuration has that name.
    objects.retain(|object| object["kind"] != "ConfigMap");
    let plan = Plan { replicas: Some(objects), policy: Policy::Reference, ..Plan::new("failover-go") };
    let trio = Trio::up(&cluster, plan).await?;
    let leader = trio.settled(3).await?;
    let pods = create(&trio.stage, "web", PODS).await?;
    eventually("first delivery", LIMIT, || async { Ok((!trio.deliveries()?.is_empty()).then_some(())) }).await?;
    let (at, log) = (Timestamp::now(), trio.log_file(&leader)?);
    trio.signal(&leader, Signal::KILL)?;
    served(&trio, &pods).await?;
    trio.served_once(PODS).await?;
    measured("SIGKILL to the next delivery, Go version's manifests", trio.gap(at, &log).await?, KILLED)?;
    // Its storage is gone with its container: it comes back as another node, in place of the one that it was.
    trio.settled(3).await.map(drop)
}

pub(crate) async fn create<'a>(stage: &'a Stage, name: &str, count: usize) -> Result<Vec<Workload<'a>>> {
    let names: Vec<String> = (0..count).map(|index| format!("{name}-{index}")).collect();
    try_join_all(names.iter().map(|name| stage.pod(name).create())).await
}

pub(crate) async fn served(trio: &Trio, pods: &[Workload<'_>]) -> Result<()> {
    for pod in pods {
        let served = pod.served().await;
        trio.blame(served).await?;
        pod.took_one_push().await?;
    }
    Ok(())
}
