//! Resident memory of the controller, and what one asks of the API server that has nothing to do.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use testbed::fake_pods::{self, FakePod, simulated_ip};
use testbed::poll_until;

use crate::controller::Controller;
use crate::etcd;
use crate::receivers::Receivers;
use crate::report::{Report, Target};
use crate::rig::Rig;
use crate::sizes::Sizes;

/// What a controller of the sections "tokens", "random" and "pending" watches: the whole cluster, and takes these.
const NAMESPACES: &str = "~^(tokens|random|pending)$";
const CROWD: &str = "crowd";
const PENDING: &str = "pending";
/// First address of the pending pods.
const ADDRESSES: u16 = 10_000;
/// After a start and after a burst of work, until memory is looked at.
const REST: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(180);
const QUIET_USER: &str = "bench-quiet";
const AGENT: &str = "kubernetes-vault/";
const TEN_MINUTES: f64 = 600.0;
const KIB_PER_MIB: f64 = 1_024.0;

/// A controller that has nothing to do, from the start of the run to its end.
pub(crate) struct Quiet {
    controller: Controller,
    since: Instant,
    lists: usize,
}

impl Quiet {
    pub(crate) async fn start(rig: &Rig) -> Result<Self> {
        fake_pods::create_namespace(&rig.client, "quiet").await?;
        let mut controller = Controller::start(rig, QUIET_USER, "quiet").await?;
        controller.wait_until_ready().await?;
        let log = rig.bed.control_plane().audit_log();
        // Its watch stands: from here on it has nothing to do.
        poll_until("first list in the audit log", LIMIT, || async { Ok((lists_in(&log)? > 0).then_some(())) }).await?;
        let lists = lists_in(&log)?;
        Ok(Self { controller, since: Instant::now(), lists })
    }

    /// List requests since the start, for ten minutes.
    pub(crate) async fn finish(&mut self, rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
        let missing = sizes.idle.saturating_sub(self.since.elapsed());
        report.say(&format!("idle controller: {:.0} s more", missing.as_secs_f64()));
        tokio::time::sleep(missing).await;
        self.controller.wait_until_ready().await?;
        let lists = lists_in(&rig.bed.control_plane().audit_log())?.saturating_sub(self.lists);
        let observed = self.since.elapsed().as_secs_f64();
        let scaled = if observed >= TEN_MINUTES { lists as f64 } else { lists as f64 * TEN_MINUTES / observed };
        report.row("api_lists_idle_10min", scaled, "", Target::AtMost(0.0), "30");
        report.note(format!(
            "idle controller: {lists} lists in {observed:.0} s after its start ({}), {:.0} ms of CPU, {:.1} MiB resident",
            if observed >= TEN_MINUTES { "ten minutes observed" } else { "scaled to ten minutes; --full observes them" },
            self.controller.cpu_ms()?,
            self.controller.rss_kib()? / KIB_PER_MIB
        ));
        Ok(())
    }
}

/// A controller alone, in a cluster without pods, and its MiB. It goes on to serve the next sections.
pub(crate) async fn idle(rig: &Rig, report: &mut Report) -> Result<(Controller, f64)> {
    let mut controller = Controller::start(rig, "bench-main", NAMESPACES).await?;
    controller.wait_until_ready().await?;
    tokio::time::sleep(REST).await;
    let resident = controller.rss_kib()? / KIB_PER_MIB;
    report.note(format!("a controller alone, in a cluster without pods: {resident:.1} MiB resident"));
    Ok((controller, resident))
}

/// 20,000 running pods that do not concern us, then 5,000 pending ones that do. `idle`: what [`idle`] found.
pub(crate) async fn crowd(rig: &Rig, sizes: &Sizes, idle: f64, report: &mut Report) -> Result<()> {
    report.say("memory: creating running pods");
    let start = Instant::now();
    fake_pods::create_namespace(&rig.client, CROWD).await?;
    etcd::create_running_pods(rig, CROWD, sizes.running).await?;
    report.note(format!("{}; made in {:.0} s", etcd::describe(rig).await?, start.elapsed().as_secs_f64()));
    let mut controller = Controller::start(rig, "bench-crowd", "~.").await?;
    controller.wait_until_ready().await?;
    tokio::time::sleep(REST).await;
    let crowded = controller.rss_kib()?;
    report.row("rss_mib_20k_running", crowded / KIB_PER_MIB, "MiB", Target::AtMost(idle + 1.0), "625");
    pending(rig, sizes, report, &controller, crowded).await?;
    controller.stop().await
}

async fn pending(rig: &Rig, sizes: &Sizes, report: &mut Report, controller: &Controller, before: f64) -> Result<()> {
    report.say("memory: creating pending pods");
    let count = usize::from(sizes.pending);
    let pods: Vec<_> = (0..count).map(|n| FakePod::asking_for(PENDING, &format!("pod-{n}"), PENDING)).collect();
    fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&rig.client, pod)).await?;
    tokio::time::sleep(REST).await;
    let waiting = controller.rss_kib()?;
    report.say("memory: their init containers start");
    let mut receivers = Receivers::new()?;
    for number in 0..count {
        receivers.listen(address(number)).await?;
    }
    let started = fake_pods::for_all(&pods, |n, pod| async move {
        fake_pods::set_init_running(&rig.client, pod, address(n), &format!("containerd://{}", pod.name), 0).await
    });
    tokio::try_join!(started, receivers.collect(count, LIMIT))?;
    tokio::time::sleep(REST).await;
    let delivered = controller.rss_kib()?;
    let each = |kib: f64| (kib - before) / count as f64;
    report.row("rss_kib_per_pending", each(delivered), "KiB", Target::AtMost(4.0), "-");
    report.note(format!(
        "memory per pending pod: {count} annotated pods whose init container is reported running and has been served \
         (the most that a pending pod can cost), buffers that the allocator kept included; before their init containers \
         started it was {:.2} KiB",
        each(waiting)
    ));
    Ok(())
}

fn address(number: usize) -> IpAddr {
    simulated_ip(ADDRESSES + u16::try_from(number).unwrap_or_default())
}

/// How many times the quiet controller asked for everything: by a list, or by a watch that begins with one.
fn lists_in(log: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let is_ours = |line: &&str| {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
        let streamed = line["requestURI"].as_str().is_some_and(|uri| uri.contains("sendInitialEvents=true"));
        line["user"]["username"] == QUIET_USER
            && line["userAgent"].as_str().is_some_and(|agent| agent.starts_with(AGENT))
            // A watch is logged when it starts and when it ends.
            && (line["verb"] == "list" || (streamed && line["stage"] == "ResponseStarted"))
    };
    Ok(text.lines().filter(is_ours).count())
}
