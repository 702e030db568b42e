//! Many pods at once, and statuses that lag behind.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Client as Http;
use testbed::fake_pods::{self, FakePod, simulated_ip};

use crate::controller::Controller;
use crate::cpu::Cpu;
use crate::receivers::Receivers;
use crate::replicas::Replicas;
use crate::report::{Report, Target, quantile};
use crate::rig::Rig;
use crate::sizes::Sizes;

const SECTION: &str = "burst";
const SECTION_OF_THREE: &str = "burst3";
/// Bursts of each kind, of which the median counts.
const ROUNDS: u16 = 3;
const BARE: &str = "pending";
/// First addresses of this section's pods.
const ADDRESSES: u16 = 2_000;
const ADDRESSES_OF_THREE: u16 = 22_000;
/// Requests of the bare client in flight: as many as the controller's.
const IN_FLIGHT: usize = 64;
const LIMIT: Duration = Duration::from_secs(180);
/// How far statuses lag behind.
const LAG: Duration = Duration::from_secs(25);
const TOKEN_HEADER: &str = "X-Vault-Token";

/// 2,000 pods wait; a controller takes up work; their statuses lag behind. Thrice: the machine is not always as fast.
pub(crate) async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (mut shares, mut costs, mut surplus) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..ROUNDS {
        let (share, cpu, more) = one(rig, sizes, round, report).await?;
        shares.push(share);
        costs.push(cpu);
        surplus += more;
    }
    report.row("burst_share_of_vault", quantile(&mut shares, 0.5)?, "", Target::AtLeast(0.5), "0.2 to 0.5");
    report.row("cpu_ms_per_delivery", quantile(&mut costs, 0.5)?, "ms", Target::AtMost(0.7), "1.2 to 2.2");
    report.row("surplus_secret_ids", surplus, "", Target::AtMost(0.0), "1 or more per pod");
    Ok(())
}

/// Share of Vault's rate, CPU time per delivery, and surplus.
async fn one(rig: &Rig, sizes: &Sizes, round: u16, report: &mut Report) -> Result<(f64, f64, f64)> {
    report.say("burst: creating the pods");
    let count = usize::from(sizes.burst);
    let mut pods = Waiting::all(rig, sizes, SECTION, ADDRESSES, round).await?;
    let kept_before = kept(rig).await?;
    // What others do meanwhile hits one rate as it hits the other: before and after.
    let before = bare_rate(rig, count).await?;
    report.say("burst: all wait, the controller starts");
    let cores = Cpu::now()?;
    let controller = Controller::start(rig, &format!("bench-burst-{round}"), SECTION).await?;
    let arrived = pods.receivers.collect(count, LIMIT).await?;
    let cpu = controller.cpu_ms()? / count as f64;
    let cores = Cpu::now()?.cores_since(&cores, controller.started.elapsed().as_secs_f64() * 1_000.0);
    let started = controller.started;
    let unreached = controller.metric("kubernetesvault_incidents_total", "unreached").await?;
    let (rate, last) = rate(&arrived)?;
    let surplus = surplus(rig, &controller, &pods, kept_before, last).await?;
    let cpu_later = controller.cpu_ms()?;
    controller.stop().await?;
    let after = bare_rate(rig, count).await?;
    let bare = f64::midpoint(before, after);
    report.note(format!(
        "burst: {count} pods; {rate:.0} pushes/s between the first and the last, {bare:.0} secret_ids/s by a bare client \
         ({before:.0} before, {after:.0} after); {:.2} s from the controller's exec to the last push; CPU per delivery \
         from exec to last push {cpu:.2} ms, with Events and statuses after it {:.2} ms; \
         {unreached} dials failed; cores in use: {cores}",
        (last - started).as_secs_f64(),
        cpu_later / count as f64
    ));
    Ok((rate / bare, cpu, surplus))
}

/// The same for three replicas, which form their cluster while all wait.
pub(crate) async fn measure_three(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        shares.push(one_of_three(rig, sizes, round, report).await?);
    }
    report.row("burst_share_of_vault_3", quantile(&mut shares, 0.5)?, "", Target::AtLeast(0.4), "0.2 to 0.5");
    Ok(())
}

async fn one_of_three(rig: &Rig, sizes: &Sizes, round: u16, report: &mut Report) -> Result<f64> {
    report.say("burst of three replicas: creating the pods");
    let count = usize::from(sizes.burst);
    let mut pods = Waiting::all(rig, sizes, SECTION_OF_THREE, ADDRESSES_OF_THREE, round).await?;
    let before = bare_rate(rig, count).await?;
    report.say("burst: all wait, three controllers start");
    let (cores, started) = (Cpu::now()?, Instant::now());
    let replicas = Replicas::start(rig, &format!("bench-burst3-{round}"), SECTION_OF_THREE).await?;
    let arrived = pods.receivers.collect(count, LIMIT).await?;
    let (rate, _) = rate(&arrived)?;
    let cpu = replicas.cpu_ms()? / count as f64;
    let cores = Cpu::now()?.cores_since(&cores, started.elapsed().as_secs_f64() * 1_000.0);
    let changes = replicas.sum("kubernetesvault_raft_leader_changes_seen_total", "").await?;
    replicas.stop().await?;
    // Left pending, they would be served again by whoever watches them later.
    pods.run(rig).await?;
    let after = bare_rate(rig, count).await?;
    let bare = f64::midpoint(before, after);
    report.note(format!(
        "burst of three replicas: {count} pods, {rate:.0} pushes/s, {bare:.0} secret_ids/s by a bare client \
         ({before:.0} before, {after:.0} after); {cpu:.2} ms of CPU per delivery in all three; {changes} changes of \
         leader, the first one included; cores in use from the first exec to the last push: {cores}"
    ));
    Ok(rate / bare)
}

/// Pushes per second between the first and the last, and when the last was.
fn rate(arrived: &HashMap<IpAddr, Instant>) -> Result<(f64, Instant)> {
    let first = *arrived.values().min().context("no push")?;
    let last = *arrived.values().max().context("no push")?;
    Ok(((arrived.len() - 1) as f64 / (last - first).as_secs_f64(), last))
}

/// Pods whose init containers all listen and are all reported running.
struct Waiting {
    receivers: Receivers,
    pods: Vec<FakePod>,
    /// Address of the first, from which the others count on.
    first: u16,
}

impl Waiting {
    async fn all(rig: &Rig, sizes: &Sizes, section: &str, addresses: u16, round: u16) -> Result<Self> {
        let name = |n: u16| format!("pod-{round}-{n}");
        let pods: Vec<_> = (0..sizes.burst).map(|n| FakePod::asking_for(section, &name(n), section)).collect();
        fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&rig.client, pod)).await?;
        let waiting = Self { receivers: Receivers::new()?, pods, first: addresses + sizes.burst * round };
        for n in 0..waiting.pods.len() {
            let address = waiting.address(n);
            waiting.receivers.listen(address).await?;
        }
        waiting.say_running(rig).await?;
        Ok(waiting)
    }

    /// Their init containers run, say their statuses.
    async fn say_running(&self, rig: &Rig) -> Result<()> {
        let said = fake_pods::for_all(&self.pods, |n, pod| async move {
            fake_pods::set_init_running(&rig.client, pod, self.address(n), &id(pod), 0).await
        });
        said.await.map(drop)
    }

    /// Their applications run, say their statuses.
    async fn run(&self, rig: &Rig) -> Result<()> {
        let said = fake_pods::for_all(&self.pods, |n, pod| async move {
            fake_pods::set_running(&rig.client, pod, self.address(n), &id(pod)).await
        });
        said.await.map(drop)
    }

    fn address(&self, number: usize) -> IpAddr {
        simulated_ip(self.first + u16::try_from(number).unwrap_or_default())
    }
}

/// wraps beyond one for each pod, while statuses say "running" of init containers that are gone.
async fn surplus(rig: &Rig, controller: &Controller, pods: &Waiting, kept_before: usize, last: Instant) -> Result<f64> {
    // An update that says nothing new: it must not be taken for a new start.
    tokio::time::sleep_until((last + LAG / 3).into()).await;
    pods.say_running(rig).await?;
    tokio::time::sleep_until((last + LAG).into()).await;
    pods.run(rig).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = controller.metric("kubernetesvault_vault_secret_id_requests_total", SECTION).await?;
    let (kept, count) = (kept(rig).await? - kept_before, pods.pods.len());
    ensure!(kept >= count, "Vault has {kept} secret_ids for {count} pods");
    Ok(asked.max(kept as f64) - count as f64)
}

/// The secret_ids that Vault has for this section.
async fn kept(rig: &Rig) -> Result<usize> {
    Ok(rig.bed.vault()?.list(&format!("auth/approle/role/{SECTION}/secret-id")).await?.len())
}

/// Wrapped `secret_id`s per second that Vault gives to a bare client.
async fn bare_rate(rig: &Rig, count: usize) -> Result<f64> {
    let http = Http::builder().no_proxy().tls_certs_only(Vec::new()).pool_max_idle_per_host(IN_FLIGHT).build()?;
    let url = format!("{}/v1/auth/approle/role/{BARE}/secret-id", rig.bed.vault()?.address());
    let ask = async || -> Result<()> {
        let request = http.post(&url).header(TOKEN_HEADER, &rig.token).header("X-Vault-Wrap-TTL", "60s").body("{}");
        let answer = request.send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok(())
    };
    let all = async |count: usize| -> Result<()> {
        stream::iter(0..count).map(|_| ask()).buffer_unordered(IN_FLIGHT).try_collect().await
    };
    all(IN_FLIGHT * 4).await?;
    let start = Instant::now();
    all(count).await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn id(pod: &FakePod) -> String {
    format!("containerd://{}", pod.name)
}
