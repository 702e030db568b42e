//! Many pods at once, and statuses that lag behind.

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
use crate::report::{Report, Target};
use crate::rig::Rig;
use crate::sizes::Sizes;

const SECTION: &str = "burst";
const SECTION_OF_THREE: &str = "burst3";
/// Addresses of the burst of three, from those of the other on.
const OFFSET_OF_THREE: usize = 20_000;
const BARE: &str = "pending";
/// First address of this section.
const ADDRESSES: u16 = 2_000;
/// Requests of the bare client in flight: as many as the controller's.
const IN_FLIGHT: usize = 64;
const LIMIT: Duration = Duration::from_secs(180);
/// How far statuses lag behind.
const LAG: Duration = Duration::from_secs(25);
const TOKEN_HEADER: &str = "X-Vault-Token";

/// 2,000 pods wait; a controller takes up work; their statuses lag behind.
pub(crate) async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("burst: creating the pods");
    let count = usize::from(sizes.burst);
    let (mut receivers, pods) = all_wait(rig, sizes, SECTION, 0).await?;
    // What others do meanwhile hits one rate as it hits the other: before and after.
    let before = bare_rate(rig, count).await?;
    report.say("burst: all wait, the controller starts");
    let cores = Cpu::now()?;
    let controller = Controller::start(rig, "bench-burst", SECTION).await?;
    let arrived = receivers.collect(count, LIMIT).await?;
    let cpu = controller.cpu_ms()?;
    let cores = Cpu::now()?.cores_since(&cores, controller.started.elapsed().as_secs_f64() * 1_000.0);
    let started = controller.started;
    let unreached = controller.metric("kubernetesvault_incidents_total", "unreached").await?;
    let first = *arrived.values().min().context("no push")?;
    let last = *arrived.values().max().context("no push")?;
    let rate = (count - 1) as f64 / (last - first).as_secs_f64();
    let surplus = surplus(rig, &controller, &pods, last).await?;
    let cpu_later = controller.cpu_ms()?;
    controller.stop().await?;
    let after = bare_rate(rig, count).await?;
    let bare = f64::midpoint(before, after);

    report.row("burst_share_of_vault", rate / bare, "", Target::AtLeast(0.5), "0.2 to 0.5");
    report.row("cpu_ms_per_delivery", cpu / count as f64, "ms", Target::AtMost(0.7), "1.2 to 2.2");
    report.row("surplus_secret_ids", surplus, "", Target::AtMost(0.0), "1 or more per pod");
    report.note(format!(
        "burst: {count} pods; {rate:.0} pushes/s between the first and the last, {bare:.0} secret_ids/s by a bare client \
         ({before:.0} before, {after:.0} after); {:.2} s from the controller's exec to the last push; CPU per delivery \
         from exec to last push, with Events and statuses after it {:.2} ms; \
         {unreached} dials failed; cores in use: {cores}",
        (last - started).as_secs_f64(),
        cpu_later / count as f64
    ));
    Ok(())
}

/// The same for three replicas, which form their cluster while all wait.
pub(crate) async fn measure_three(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("burst of three replicas: creating the pods");
    let (mut receivers, pods) = all_wait(rig, sizes, SECTION_OF_THREE, OFFSET_OF_THREE).await?;
    let before = bare_rate(rig, pods.len()).await?;
    report.say("burst: all wait, three controllers start");
    let replicas = Replicas::start(rig, "bench-burst3", SECTION_OF_THREE).await?;
    let arrived = receivers.collect(pods.len(), LIMIT).await?;
    let first = *arrived.values().min().context("no push")?;
    let last = *arrived.values().max().context("no push")?;
    let rate = (pods.len() - 1) as f64 / (last - first).as_secs_f64();
    let cpu = replicas.cpu_ms()? / pods.len() as f64;
    let changes = replicas.sum("kubernetesvault_raft_leader_changes_seen_total", "").await?;
    replicas.stop().await?;
    // Left pending, they would be served again by whoever watches them in a later section.
    let started = fake_pods::for_all(&pods, |n, pod| async move {
        fake_pods::set_running(&rig.client, pod, address(OFFSET_OF_THREE + n), &id(pod)).await
    });
    started.await?;
    let bare = f64::midpoint(before, bare_rate(rig, pods.len()).await?);
    report.row("burst_share_of_vault_3", rate / bare, "", Target::AtLeast(0.4), "0.2 to 0.5");
    report.note(format!(
        "burst of three replicas: {} pods, {rate:.0} pushes/s, {bare:.0} secret_ids/s by a bare client; {cpu:.2} ms of CPU \
         per delivery in all three; {changes} changes of leader, the first one included",
        pods.len()
    ));
    Ok(())
}

/// Pods whose init containers all listen and are all reported running.
async fn all_wait(rig: &Rig, sizes: &Sizes, section: &str, offset: usize) -> Result<(Receivers, Vec<FakePod>)> {
    let receivers = Receivers::new()?;
    let pods: Vec<_> = (0..sizes.burst).map(|n| FakePod::asking_for(section, &format!("pod-{n}"), section)).collect();
    fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&rig.client, pod)).await?;
    for number in 0..pods.len() {
        receivers.listen(address(offset + number)).await?;
    }
    fake_pods::for_all(&pods, |n, pod| async move {
        fake_pods::set_init_running(&rig.client, pod, address(offset + n), &id(pod), 0).await
    })
    .await?;
    Ok((receivers, pods))
}

/// wraps beyond one for each pod, while statuses say "running" of init containers that are gone.
async fn surplus(rig: &Rig, controller: &Controller, pods: &[FakePod], last: Instant) -> Result<f64> {
    // An update that says nothing new: it must not be taken for a new start.
    tokio::time::sleep_until((last + LAG / 3).into()).await;
    say_running(rig, pods).await?;
    tokio::time::sleep_until((last + LAG).into()).await;
    fake_pods::for_all(
        pods,
        |n, pod| async move { fake_pods::set_running(&rig.client, pod, address(n), &id(pod)).await },
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = controller.metric("kubernetesvault_vault_secret_id_requests_total", SECTION).await?;
    let kept = rig.bed.vault()?.list(&format!("auth/approle/role/{SECTION}/secret-id")).await?.len();
    ensure!(kept >= pods.len(), "Vault has {kept} secret_ids for {} pods", pods.len());
    Ok(asked.max(kept as f64) - pods.len() as f64)
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

async fn say_running(rig: &Rig, pods: &[FakePod]) -> Result<()> {
    fake_pods::for_all(pods, |n, pod| async move {
        fake_pods::set_init_running(&rig.client, pod, address(n), &id(pod), 0).await
    })
    .await
    .map(drop)
}

fn id(pod: &FakePod) -> String {
    format!("containerd://{}", pod.name)
}

fn address(number: usize) -> IpAddr {
    simulated_ip(ADDRESSES + u16::try_from(number).unwrap_or_default())
}
