//! The fault suite's rig `proc`: the real program, RocksDB, mutual TLS, a real API server and a real Vault, three
//! replicas by the manifests of `deploy/replicated`, and faults from a seed while simulated init containers wait.
//!
//! `KV_PROC_SECONDS` says how long faults go on (60 at least: each class has to happen once), `KV_PROC_SEED` which
//! ones. The seed gives the order and the length of faults; what they meet is up to two busy machines' clocks, so a
//! seed alone replays no run. The trace that is printed with a failure says what was met.
//!
//! Must never happen: a run that passes without having had each class of faults.

#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/controller.rs"]
mod controller;
mod nemesis;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/nodes.rs"]
mod nodes;
mod oracle;
mod pods;
#[expect(dead_code, reason = "shared with the component tests, which use all of it")]
#[path = "../../component/receivers.rs"]
mod receivers;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/stage.rs"]
mod stage;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/trio.rs"]
mod trio;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/vault.rs"]
mod vault;
#[expect(dead_code, reason = "shared with the end-to-end cases, which use all of it")]
#[path = "../../e2e/workload.rs"]
mod workload;

/// What the shared receivers ask for.
mod world {
    /// For one wait of a receiver.
    pub(crate) const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
}

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster::Cluster;
use stage::Plan;
use tokio::sync::watch;
use trio::Trio;

const NAME: &str = "proc";
const SECONDS: u64 = 90;
/// Everybody who waits has what they wait for this long after the last fault.
const SETTLE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    testbed::enter();
    let list = std::env::args().any(|argument| argument == "--list");
    if list {
        println!("proc: test");
        return ExitCode::SUCCESS;
    }
    let seed = number("KV_PROC_SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ now());
    println!("proc: seed {seed} (KV_PROC_SEED={seed})");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    match runtime.block_on(run(seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proc: seed {seed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(seed: u64) -> Result<()> {
    let cluster = Arc::new(Cluster::start(false).await?);
    let result = Box::pin(rig(&cluster, seed)).await;
    cluster.stop().await;
    result
}

async fn rig(cluster: &Arc<Cluster>, seed: u64) -> Result<()> {
    testbed::fake_node::register(&cluster.client).await?;
    let trio = Trio::up(cluster, Plan::new(NAME)).await?;
    trio.settled(3).await?;
    let (stop, stopped) = watch::channel(false);
    let (served, pods) = pods::Pods::new(cluster.client.clone(), NAME);
    let workload = tokio::spawn(pods.run(stopped));
    let duration = Duration::from_secs(number("KV_PROC_SECONDS").unwrap_or(SECONDS));
    let faults = nemesis::Nemesis::new(&trio, cluster, seed, served.clone()).run(duration).await;
    stop.send_replace(true);
    let faults = trio.blame(faults).await?;
    let instances = tokio::time::timeout(SETTLE, workload).await;
    let instances =
        instances.with_context(|| format!("pods still wait a minute after the last fault:\n{}", served.waiting()));
    let instances = trio.blame(instances).await???;
    let cluster_is_whole = trio.settled(3).await;
    cluster_is_whole.with_context(|| faults.told())?;
    println!("{}", faults.told());
    let secrets = oracle::secrets(&cluster.vault, NAME).await?;
    let judged = oracle::check(&instances, &secrets, &trio.deliveries()?, &faults);
    trio.blame(judged).await?;
    let calm = tokio::time::timeout(SETTLE, pods::Pods::calm(cluster.client.clone(), NAME)).await;
    let calm = trio.blame(calm.context("pods wait that refused their first push")).await??;
    let gone = oracle::refused_are_gone(&cluster.vault, NAME, &calm).await;
    trio.blame(gone).await
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn now() -> u64 {
    k8s_openapi::jiff::Timestamp::now().as_millisecond().unsigned_abs()
}
