//! Three replicas whose metrics are served over mutual TLS: what strangers at their ports cost the pods, and what a page
//! of metrics takes with many pending pods.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use testbed::fake_pods::{self, FakePod, simulated_ip};
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::controller::{Controller, MetricsTls};
use crate::cpu::Cpu;
use crate::receivers::Receivers;
use crate::replicas::Replicas;
use crate::report::{Report, Target, quantile};
use crate::rig::Rig;
use crate::sizes::Sizes;
use crate::strangers::{self, Knocks, Strangers};
use crate::{delivery, ledger};

/// Namespace of both parts' pods.
const SECTION: &str = "operators";
/// Rounds of each kind, in turn, of which the medians count: the machine's speed changes within minutes.
const ROUNDS: u16 = 3;
/// First block of addresses of the pods that are served meanwhile: far from all others.
const BLOCKS: u16 = 200;
/// Of the rate that is meant, so much has to be reached: otherwise there was less to bear.
const LEAST: f64 = 0.9;
/// Handshakes at each of two ports that never begin.
const HALF_OPEN: u16 = 5_000;
/// First address of the pods that are pending while pages are read.
const ADDRESSES: u16 = 44_000;
/// After the pods are there, until pages are read.
const REST: Duration = Duration::from_secs(8);
/// Pages of each replica, for a p99 that ten of them decide.
const SCRAPES: u32 = 1_000;
const LIMIT: Duration = Duration::from_secs(180);
const BYTES_PER_KIB: f64 = 1_024.0;
/// Who was refused on the metrics port and on the peers' ports, and why.
const REFUSED: [(&str, &str); 2] = [
    ("kubernetesvault_metrics_connections_refused_total", r#"cause="bad_certificate""#),
    ("kubernetesvault_peers_refused_total", r#"cause="stranger""#),
];

/// All of it.
pub(crate) async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("three replicas with metrics over mutual TLS: starting");
    let own = Certificates::new("the CA of scrapers")?;
    let tls = MetricsTls { section: own.write(rig.bed.directory())?, scraper: own.scraper()? };
    let mut replicas = Replicas::start_with(rig, "bench-operators", SECTION, Some(&tls)).await?;
    replicas.settled().await?;
    slowdown(rig, &mut replicas, sizes, report).await?;
    half_open(rig, &own, &mut replicas, sizes, report).await?;
    pages(rig, &mut replicas, sizes, report).await?;
    replicas.stop().await
}

/// Deliveries without strangers and with them, in turn.
async fn slowdown(rig: &Rig, replicas: &mut Replicas, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let strangers = Strangers::new()?;
    let (mut alone, mut visited, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        report.say("operators: deliveries without strangers");
        let block = BLOCKS + 2 * round;
        let (cores, since) = (Cpu::now()?, Instant::now());
        alone.push(delivery::latencies(rig, SECTION, block, sizes).await?.p50);
        let quiet = Cpu::now()?.cores_since(&cores, since.elapsed().as_secs_f64() * 1_000.0);
        report.say("operators: deliveries with strangers");
        let (cores, since) = (Cpu::now()?, Instant::now());
        let (p50, knocks) = with_strangers(rig, replicas, &strangers, block + 1, sizes).await?;
        let busy = Cpu::now()?.cores_since(&cores, since.elapsed().as_secs_f64() * 1_000.0);
        report.note(format!(
            "strangers, round {}: p50 {:.1} ms without and {p50:.1} ms with {:.0} handshakes a second ({} at the metrics \
             port, {} at the Raft port); cores in use: without {quiet}; with {busy}",
            round + 1,
            alone[usize::from(round)],
            knocks.rate,
            knocks.refused[0],
            knocks.refused[1],
        ));
        visited.push(p50);
        rates.push(knocks.rate);
    }
    let (without, with) = (quantile(&mut alone, 0.5)?, quantile(&mut visited, 0.5)?);
    report.row("stranger_slowdown", with / without, "", Target::AtMost(1.2), "-");
    report.note(format!(
        "strangers: medians of {ROUNDS} rounds each, {without:.1} ms without and {with:.1} ms with them; at least {:.0} \
         handshakes a second",
        quantile(&mut rates, 0.0)?
    ));
    Ok(())
}

/// One round with strangers at the leader's ports.
async fn with_strangers(
    rig: &Rig,
    replicas: &mut Replicas,
    strangers: &Strangers,
    block: u16,
    sizes: &Sizes,
) -> Result<(f64, Knocks)> {
    let leader = replicas.settled().await?;
    let before = refused(&replicas.all()[leader]).await?;
    let stop = CancellationToken::new();
    let knocking = tokio::spawn(strangers.clone().knock(ports(replicas, leader), stop.clone()));
    let latencies = delivery::latencies(rig, SECTION, block, sizes).await;
    stop.cancel();
    let (knocks, p50) = (knocking.await?, latencies?.p50);
    let least = f64::from(strangers::RATE) * LEAST;
    if knocks.rate < least {
        let rate = format!("only {:.0} of {} handshakes a second were whole", knocks.rate, strangers::RATE);
        return Err(knocks.odd.unwrap_or_else(|| anyhow::anyhow!("the machine is too busy for more"))).context(rate);
    }
    let after = refused(&replicas.all()[leader]).await?;
    for port in 0..REFUSED.len() {
        let (seen, made) = (after[port] - before[port], f64::from(knocks.refused[port]));
        ensure!(seen >= made, "{} counts {seen} of {made} strangers", REFUSED[port].0);
    }
    ensure!(replicas.settled().await? == leader, "the strangers' replica does not lead any more");
    Ok((p50, knocks))
}

/// Ten thousand who never begin their handshake, at the leader's two ports: pods and a scraper that comes anew are served.
async fn half_open(
    rig: &Rig,
    own: &Certificates,
    replicas: &mut Replicas,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<()> {
    report.say("operators: deliveries with handshakes that never begin");
    let leader = replicas.settled().await?;
    let (ports, scraper) = (ports(replicas, leader), own.scraper()?);
    let visits = async {
        let open = try_join_all(ports.map(|to| strangers::half_open(to, HALF_OPEN))).await?;
        let since = Instant::now();
        let page =
            scraper.get(format!("https://{}/metrics", ports[0])).send().await.context("a scraper is kept out")?;
        ensure!(page.error_for_status()?.text().await?.contains("kubernetesvault_"), "a scraper got no page");
        Ok((open.len(), since.elapsed()))
    };
    let deliveries = delivery::latencies(rig, SECTION, BLOCKS + 2 * ROUNDS, sizes);
    let ((ports, scraped), latencies) = tokio::try_join!(visits, deliveries)?;
    ensure!(replicas.settled().await? == leader, "half-open handshakes brought another leader");
    report.note(format!(
        "half-open handshakes: {HALF_OPEN} at each of {ports} ports of the leader; a scraper that came anew had its page \
         after {:.0} ms, deliveries meanwhile took {:.1} ms (p50)",
        scraped.as_secs_f64() * 1_000.0,
        latencies.p50
    ));
    Ok(())
}

/// The metrics port and the Raft port of a replica.
fn ports(replicas: &Replicas, n: usize) -> [SocketAddr; 2] {
    [replicas.all()[n].metrics_address, SocketAddr::new(Replicas::address(n), ledger::PORT)]
}

/// What the replica itself has counted so far.
async fn refused(controller: &Controller) -> Result<[f64; 2]> {
    let [(scrapers, bad), (peers, stranger)] = REFUSED;
    Ok([controller.metric(scrapers, bad).await?, controller.metric(peers, stranger).await?])
}

/// The page of metrics, with many pods pending: half of them served, half with an init container that has not started.
async fn pages(rig: &Rig, replicas: &mut Replicas, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("metrics: creating pending pods");
    let count = usize::from(sizes.pending);
    let pods: Vec<_> = (0..2 * count).map(|n| FakePod::asking_for(SECTION, &format!("page-{n}"), SECTION)).collect();
    fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&rig.client, pod)).await?;
    let mut receivers = Receivers::new()?;
    let address = |number: usize| simulated_ip(ADDRESSES + u16::try_from(number).unwrap_or_default());
    for number in 0..count {
        receivers.listen(address(number)).await?;
    }
    report.say("metrics: the init containers of half of them start");
    let started = fake_pods::for_all(&pods[..count], |n, pod| async move {
        fake_pods::set_init_running(&rig.client, pod, address(n), &format!("containerd://{}", pod.name), 0).await
    });
    tokio::try_join!(started, receivers.collect(count, LIMIT))?;
    tokio::time::sleep(REST).await;
    let leader = replicas.settled().await?;
    report.say("metrics: reading pages");
    let (mut slowest, mut largest, mut each) = (0.0_f64, 0.0_f64, Vec::new());
    for (n, read) in read(replicas.all()).await?.into_iter().enumerate() {
        let role = if n == leader { "the leader" } else { "a follower" };
        each.push(format!("{role} p50 {:.2}, p99 {:.2}, CPU {:.2} ms a page", read.p50, read.p99, read.cpu));
        (slowest, largest) = (slowest.max(read.p99), largest.max(read.kib));
    }
    report.row("metrics_p99_ms", slowest, "ms", Target::AtMost(5.0), "-");
    report.row("metrics_kib", largest, "KiB", Target::AtMost(64.0), "-");
    report.note(format!(
        "metrics: {SCRAPES} pages of each replica in turn, one after another, {} pods pending, {count} of them served: {}",
        2 * count,
        each.join("; ")
    ));
    Ok(())
}

/// What it took to read one replica's pages.
struct Pages {
    p50: f64,
    p99: f64,
    /// The replica's CPU time for one.
    cpu: f64,
    /// The largest.
    kib: f64,
}

/// Reads [`SCRAPES`] pages of each. They take turns, so that what else this machine does hits all alike.
async fn read(replicas: &[Controller]) -> Result<Vec<Pages>> {
    let cpu = || replicas.iter().map(Controller::cpu_ms).collect::<Result<Vec<_>>>();
    let before = cpu()?;
    let (mut took, mut largest) = (vec![Vec::new(); replicas.len()], vec![0; replicas.len()]);
    for _ in 0..SCRAPES {
        for (n, controller) in replicas.iter().enumerate() {
            let start = Instant::now();
            largest[n] = controller.page().await?.len().max(largest[n]);
            took[n].push(start.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    let used = cpu()?.into_iter().zip(before).map(|(after, before)| (after - before) / f64::from(SCRAPES));
    let page = |((took, largest), cpu): ((&mut Vec<f64>, usize), f64)| {
        let (p50, p99) = (quantile(took, 0.5)?, quantile(took, 0.99)?);
        Ok(Pages { p50, p99, cpu, kib: largest as f64 / BYTES_PER_KIB })
    };
    took.iter_mut().zip(largest).zip(used).map(page).collect()
}
