//! Three replicas: what they cost, and how long nobody serves when the leader goes.
//!
//! Each failure is injected while a pod already waits whose init container starts to listen at that very moment. All
//! three run on this machine, on addresses of their own, with RocksDB, fsync and mutual TLS.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::{join_all, try_join_all};
use testbed::fake_pods::{self, FakePod, simulated_ip};
use testbed::{network, poll_until};
use tokio::net::TcpStream;

use crate::controller::{Controller, MetricsTls, Settings, Signal};
use crate::receivers::Receivers;
use crate::report::{Report, Target, quantile};
use crate::rig::Rig;
use crate::sizes::Sizes;
use crate::{burst, delivery, ledger};

/// What is failed over.
const SECTION: &str = "failover";
/// First of the replicas' own addresses.
const REPLICAS: u16 = 51_201;
const COUNT: u16 = 3;
/// First address of this section's pods.
const ADDRESSES: u16 = 40_000;
/// After a start, until memory is looked at; and for how long CPU is.
const REST: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);
/// How long a leader that was cut off is watched.
const CUT_OFF: Duration = Duration::from_secs(3);
const KIB_PER_MIB: f64 = 1_024.0;

/// Three controllers that are one cluster.
pub(crate) struct Replicas {
    controllers: Vec<Controller>,
}

impl Replicas {
    /// Starts them one after another: each takes the first address on which nobody listens yet.
    pub(crate) async fn start(rig: &Rig, user: &str, namespaces: &str) -> Result<Self> {
        Self::start_with(rig, user, namespaces, None).await
    }

    /// The same, with metrics protected as `tls` says.
    pub(crate) async fn start_with(rig: &Rig, user: &str, namespaces: &str, tls: Option<&MetricsTls>) -> Result<Self> {
        let peers: Vec<String> = addresses().map(|ip| ip.to_string()).collect();
        let mut controllers = Vec::new();
        for (n, ip) in addresses().enumerate() {
            let settings = Settings {
                raft_dir: Some(rig.bed.directory().join(format!("{user}-{n}.raft"))),
                peers: peers.clone(),
                metrics_tls: tls.cloned(),
            };
            controllers.push(Controller::start_with(rig, format!("{user}-{n}"), namespaces, settings).await?);
            let listens = || async { Ok(TcpStream::connect((ip, ledger::PORT)).await.ok().map(drop)) };
            poll_until("a replica that listens", LIMIT, listens).await?;
        }
        Ok(Self { controllers })
    }

    /// Waits until all three vote and one leads, which is returned.
    pub(crate) async fn settled(&mut self) -> Result<usize> {
        for controller in &mut self.controllers {
            controller.wait_until_ready().await?;
        }
        let controllers = &self.controllers;
        let settled = poll_until("three voters and one leader", LIMIT, || async move {
            let seen = join_all(controllers.iter().map(|controller| async {
                let voters = controller.metric("kubernetesvault_raft_voters", "").await.unwrap_or(0.0);
                (voters, controller.metric("kubernetesvault_raft_leader", "").await.unwrap_or(0.0))
            }));
            let seen = seen.await;
            let all_vote = seen.iter().all(|(voters, _)| *voters == f64::from(COUNT));
            let leaders: Vec<usize> =
                seen.iter().enumerate().filter(|(_, (_, leads))| *leads == 1.0).map(|(n, _)| n).collect();
            Ok((all_vote && leaders.len() == 1).then(|| leaders[0]))
        });
        settled.await.with_context(|| self.logs())
    }

    pub(crate) fn all(&self) -> &[Controller] {
        &self.controllers
    }

    /// Where peers dial the `n`th.
    pub(crate) fn address(n: usize) -> IpAddr {
        simulated_ip(REPLICAS + u16::try_from(n).unwrap_or_default())
    }

    fn logs(&self) -> String {
        self.controllers.iter().filter_map(|one| std::fs::read_to_string(&one.log).ok()).collect()
    }

    pub(crate) async fn sum(&self, metric: &str, label: &str) -> Result<f64> {
        let all = try_join_all(self.controllers.iter().map(|controller| controller.metric(metric, label)));
        Ok(all.await?.into_iter().sum())
    }

    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        self.controllers.iter().map(Controller::cpu_ms).sum()
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for controller in self.controllers {
            controller.stop().await?;
        }
        Ok(())
    }
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    (0..COUNT).map(|n| simulated_ip(REPLICAS + n))
}

/// All of it.
pub(crate) async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("three replicas: starting");
    let mut replicas = Replicas::start(rig, "bench-trio", &format!("~^({SECTION}|random3)$")).await?;
    replicas.settled().await?;
    at_rest(&replicas, report).await?;
    report.say("three replicas: deliveries at random moments");
    let latencies = delivery::latencies(rig, "random3", 3, sizes).await?;
    let one = report.value("delivery_p50_ms").unwrap_or(15.0);
    report.row("delivery_p50_ms_3", latencies.p50, "ms", Target::AtMost(one + 10.0), "9500");
    fail_over(rig, &mut replicas, sizes, report).await?;
    replicas.stop().await?;
    burst::measure_three(rig, sizes, report).await
}

async fn at_rest(replicas: &Replicas, report: &mut Report) -> Result<()> {
    tokio::time::sleep(REST).await;
    let (before, since) = (replicas.cpu_ms()?, Instant::now());
    tokio::time::sleep(REST).await;
    let busy = replicas.cpu_ms()? - before;
    let share = busy / (since.elapsed().as_secs_f64() * 1_000.0) / f64::from(COUNT) * 100.0;
    let resident: Result<Vec<f64>> = replicas.controllers.iter().map(Controller::rss_kib).collect();
    let most = resident?.into_iter().fold(0.0, f64::max) / KIB_PER_MIB;
    report.row("rss_mib_replica", most, "MiB", Target::AtMost(40.0), "23");
    report.row("cpu_percent_idle", share, "%", Target::AtMost(1.0), "0.1");
    Ok(())
}

/// How the leader goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    Kill,
    Terminate,
    Cut,
}

async fn fail_over(rig: &Rig, replicas: &mut Replicas, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut pod = 0;
    let mut gaps = |failure: Failure| -> (Failure, std::ops::Range<u16>) {
        let range = pod..pod + sizes.fail_overs;
        pod += sizes.fail_overs;
        (failure, range)
    };
    for (failure, range) in [gaps(Failure::Kill), gaps(Failure::Terminate), gaps(Failure::Cut)] {
        let mut took = Vec::new();
        for number in range {
            let gap = one(rig, replicas, failure, number).await;
            took.push(gap.with_context(|| replicas.logs())?);
        }
        let (p50, most) = (quantile(&mut took, 0.5)?, quantile(&mut took, 1.0)?);
        match failure {
            Failure::Kill => {
                report.row("failover_kill_p50_ms", p50, "ms", Target::AtMost(500.0), "3320");
                report.row("failover_kill_max_ms", most, "ms", Target::AtMost(1_200.0), "4090");
            }
            Failure::Terminate => report.row("failover_term_max_ms", most, "ms", Target::AtMost(300.0), "3590"),
            Failure::Cut => report.row("failover_cut_max_ms", most, "ms", Target::AtMost(2_000.0), "both push"),
        }
        let all: Vec<String> = took.iter().map(|gap| format!("{gap:.0}")).collect();
        report.note(format!("fail-over, {}: {} ms", failure.name(), all.join(" ")));
    }
    Ok(())
}

impl Failure {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Cut => "cut off from its peers",
        }
    }
}

/// From the failure to the push at an init container that listens from that moment on.
async fn one(rig: &Rig, replicas: &mut Replicas, failure: Failure, number: u16) -> Result<f64> {
    let leader = replicas.settled().await?;
    let (pod, ip) = (FakePod::asking_for(SECTION, &format!("pod-{number}"), SECTION), simulated_ip(ADDRESSES + number));
    let id = format!("containerd://{}", pod.name);
    fake_pods::create_pending(&rig.client, &pod).await?;
    fake_pods::set_init_running(&rig.client, &pod, ip, &id, 0).await?;
    // It waits: somebody has dialled it in vain.
    let dialled = replicas.sum("kubernetesvault_incidents_total", "unreached").await?;
    let (watching, before) = (&replicas.controllers[leader], dialled);
    poll_until("a dial in vain", LIMIT, || async move {
        let now = watching.metric("kubernetesvault_incidents_total", "unreached").await?;
        Ok((now > 0.0 || now > before).then_some(()))
    })
    .await?;
    let mut receivers = Receivers::new()?;
    let pushed = "kubernetesvault_server_secret_pushes_total";
    let pushes = replicas.controllers[leader].metric(pushed, SECTION).await?;
    let failed_at = Instant::now();
    match failure {
        Failure::Kill => replicas.controllers[leader].signal(Signal::Kill).await?,
        Failure::Terminate => replicas.controllers[leader].signal(Signal::Terminate).await?,
        Failure::Cut => cut(leader).await?,
    }
    receivers.listen(ip).await?;
    let arrived = receivers.collect(1, LIMIT).await?;
    let gap = arrived[&ip].saturating_duration_since(failed_at).as_secs_f64() * 1_000.0;
    if failure == Failure::Cut {
        // Its lease is over now; whatever it pushes from here on is a push of two leaders.
        let later = replicas.controllers[leader].metric(pushed, SECTION).await?;
        tokio::time::sleep(CUT_OFF).await;
        let last = replicas.controllers[leader].metric(pushed, SECTION).await?;
        ensure!(
            last <= later.max(pushes + 1.0),
            "a leader that was cut off went on pushing: {pushes}, {later}, {last}"
        );
        mend().await?;
    } else {
        replicas.controllers[leader].restart().await.context("cannot start a replica again")?;
    }
    fake_pods::set_running(&rig.client, &pod, ip, &id).await?;
    Ok(gap)
}

/// Drops what the leader and the others send to each other, without a word.
async fn cut(leader: usize) -> Result<()> {
    let all: Vec<IpAddr> = addresses().collect();
    let mut rules =
        "add table inet peers\nadd chain inet peers output { type filter hook output priority 0; }\n".to_owned();
    for other in all.iter().enumerate().filter(|(n, _)| *n != leader).map(|(_, ip)| ip) {
        for (from, to) in [(all[leader], *other), (*other, all[leader])] {
            rules.push_str(&format!("add rule inet peers output ip saddr {from} ip daddr {to} drop\n"));
        }
    }
    network::run_nft(None, &rules).await
}

async fn mend() -> Result<()> {
    network::run_nft(None, "delete table inet peers\n").await
}
