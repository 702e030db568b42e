//! From a status that says "running" to the POST at the init container.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use testbed::fake_pods::{self, FakePod, simulated_ip};

use crate::controller::Controller;
use crate::receivers::Receivers;
use crate::report::{Report, Target, quantile};
use crate::rig::Rig;
use crate::sizes::Sizes;

const SECTION: &str = "random";
/// First address of this section.
const ADDRESSES: u16 = 1_000;
/// Addresses from one block to the next.
const BLOCK: u16 = 300;
/// Between two pods, on average: none waits for another.
const PACE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(120);

/// What was measured.
pub(crate) struct Latencies {
    pub(crate) p50: f64,
    p99: f64,
    /// From the API server's answer to the patch on.
    answered: [f64; 2],
    pods: usize,
}

/// 200 pods whose init containers start at random moments.
pub(crate) async fn measure(rig: &Rig, controller: &Controller, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("deliveries at random moments");
    let Latencies { p50, p99, answered: [answered_p50, answered_p99], pods } =
        latencies(rig, SECTION, 0, sizes).await?;
    report.row("delivery_p50_ms", p50, "ms", Target::AtMost(15.0), "9500");
    report.row("delivery_p99_ms", p99, "ms", Target::AtMost(50.0), "19600");
    let unreached = controller.metric("kubernetesvault_incidents_total", "unreached").await?;
    report.note(format!(
        "delivery: {pods} pods ({unreached} dials failed so far); from the status patch being sent; from the API \
         server's answer to it: p50 {answered_p50:.1}, p99 {answered_p99:.1} ms"
    ));
    Ok(())
}

/// The same of pods in the namespace `section`, whoever serves it; `block` sets their names and addresses apart.
pub(crate) async fn latencies(rig: &Rig, section: &str, block: u16, sizes: &Sizes) -> Result<Latencies> {
    let address = |number: u16| address(block * BLOCK + number);
    let mut receivers = Receivers::new()?;
    let pods: Vec<_> =
        (0..sizes.deliveries).map(|n| FakePod::asking_for(section, &format!("pod-{block}-{n}"), section)).collect();
    fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&rig.client, pod)).await?;
    for number in 0..sizes.deliveries {
        receivers.listen(address(number)).await?;
    }
    let span = PACE * u32::from(sizes.deliveries);
    let starts = pods.iter().zip(0..).map(|(pod, number)| start_at_random(rig, pod, address(number), span));
    let patched = async { try_join_all(starts).await };
    let (patched, arrived) = tokio::try_join!(patched, receivers.collect(pods.len(), LIMIT))?;
    let (mut sent_to_post, mut answered_to_post) = (Vec::new(), Vec::new());
    for (number, (sent, answered)) in (0..).zip(patched) {
        let at = *arrived.get(&address(number)).context("a pod was not served")?;
        sent_to_post.push(milliseconds(at, sent));
        answered_to_post.push(milliseconds(at, answered));
    }
    fake_pods::for_all(&pods, |n, pod| {
        let ip = address(u16::try_from(n).unwrap_or_default());
        async move { fake_pods::set_running(&rig.client, pod, ip, &id(pod)).await }
    })
    .await?;
    Ok(Latencies {
        p50: quantile(&mut sent_to_post, 0.5)?,
        p99: quantile(&mut sent_to_post, 0.99)?,
        answered: [quantile(&mut answered_to_post, 0.5)?, quantile(&mut answered_to_post, 0.99)?],
        pods: pods.len(),
    })
}

/// When the patch was sent, and when it was answered.
async fn start_at_random(rig: &Rig, pod: &FakePod, ip: IpAddr, span: Duration) -> Result<(Instant, Instant)> {
    tokio::time::sleep(span.mul_f64(rand::random())).await;
    let sent = Instant::now();
    fake_pods::set_init_running(&rig.client, pod, ip, &id(pod), 0).await?;
    Ok((sent, Instant::now()))
}

fn id(pod: &FakePod) -> String {
    format!("containerd://{}", pod.name)
}

fn address(number: u16) -> IpAddr {
    simulated_ip(ADDRESSES + number)
}

/// Negative where the POST was there before the API server's answer.
fn milliseconds(end: Instant, start: Instant) -> f64 {
    match end.checked_duration_since(start) {
        Some(after) => after.as_secs_f64() * 1_000.0,
        None => -start.duration_since(end).as_secs_f64() * 1_000.0,
    }
}
