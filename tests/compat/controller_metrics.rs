//! metrics.txt: names, types and labels on our /metrics page after a few pushes. Help texts are no contract.

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::controller::{Controller, Settings};
use crate::controller_push::{Simulated, deliver};
use crate::go_init::GoInit;
use crate::tls::BOTH;
use crate::vectors::{Section, sections};
use crate::world::{ROLE, World};

/// How many pushes were recorded.
const PUSHES: usize = 4;

/// Metrics of reference-behaviour, section 6, that the recorded run had no event for: labelled ones appear with their
/// first event.
const WITHOUT_EVENT: [&str; 2] =
    ["kubernetesvault_vault_secret_id_requests_failures_total", "kubernetesvault_server_secret_push_failures_total"];

/// Its labels are nodes' addresses. Rule: one replica gossips with nobody, so that there is no event to label; the
/// Go version counts itself.
const GOSSIP: &str = "kubernetesvault_gossip_nodes_";

/// One case, because they are on one page.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("metrics.txt: all of them after a few pushes", sections("metrics.txt"), check)]
}

/// The recorded series of a section: name with labels, and value.
fn series(section: Section) -> Result<(&'static str, &'static str)> {
    let line = section.text.lines().nth(2).context("a recorded metric has no series")?;
    line.split_once(' ').context("a recorded series has no value")
}

async fn check(world: &World) -> Result<()> {
    let namespace = world.namespace().await?;
    let controller = Controller::at_work(world, &Settings::good(world, &namespace)).await?;
    controller.metrics_with(world, "kubernetesvault_raft_leader_changes_seen_total 1").await?;
    let page = controller.metrics_with(world, "kubernetesvault_kubernetes_discovered_nodes_total 1").await?;
    before_any_push(&page)?;
    for _ in 0..PUSHES {
        deliver(world, &namespace, BOTH).await?;
    }
    let pushes = format!("kubernetesvault_server_secret_pushes_total{{approle=\"{ROLE}\"}} {PUSHES}");
    let page = controller.metrics_with(world, &pushes).await?;
    for section in sections("metrics.txt") {
        let (name, value) = series(section)?;
        if section.title.starts_with(GOSSIP) {
            continue;
        }
        ensure!(page.lines().any(|line| line == format!("{name} {value}")), "no {name} {value}:\n{page}");
        let recorded = section.text.lines().find(|line| line.starts_with("# TYPE ")).context("no recorded type")?;
        ensure!(page.lines().any(|line| line == recorded), "no {recorded}:\n{page}");
    }
    for name in WITHOUT_EVENT {
        ensure!(!page.contains(&format!("{name}{{")), "{name} has had no event:\n{page}");
    }
    // Dashboards use it; Go's runtime metrics go away.
    ensure!(page.contains("\nprocess_resident_memory_bytes "), "no process metrics:\n{page}");
    failures(world, &namespace, &controller).await?;
    controller.terminate().await?.expect(0, &[])
}

/// Series without labels show 0 from the start, those with labels appear with their first event.
fn before_any_push(page: &str) -> Result<()> {
    for section in sections("metrics.txt") {
        let (name, recorded) = series(section)?;
        if name.contains('{') {
            ensure!(!page.contains(&format!("{}{{", section.title)), "{name} before its event:\n{page}");
            continue;
        }
        let value = if section.title.ends_with("renewal_requests_total") { "0" } else { recorded };
        ensure!(page.lines().any(|line| line == format!("{name} {value}")), "no {name} {value}:\n{page}");
    }
    Ok(())
}

/// Both counters of failures, with their label.
async fn failures(world: &World, namespace: &str, controller: &Controller) -> Result<()> {
    // Bad-input table: unknown role: no new metric label.
    let stranger = Simulated::create(world, namespace, "made-up-role").await?;
    let _listening = GoInit::listen(stranger.ip, BOTH).await?;
    stranger.runs(world, "containerd://1", 0).await?;
    let failed = format!("{}{{approle=\"unknown\"}} ", WITHOUT_EVENT[0]);
    let page = controller.metrics_with(world, &failed).await?;
    ensure!(!page.contains("made-up-role"), "a label that a pod author made:\n{page}");
    let refusing = Simulated::create(world, namespace, ROLE).await?;
    let mut init = GoInit::answering(refusing.ip, BOTH, "400 Bad Request").await?;
    refusing.runs(world, "containerd://1", 0).await?;
    init.pushed().await?;
    let failed = format!("{}{{approle=\"{ROLE}\"}} ", WITHOUT_EVENT[1]);
    let page = controller.metrics_with(world, &failed).await?;
    for name in WITHOUT_EVENT {
        ensure!(page.contains(&format!("# TYPE {name} counter\n")), "{name} is no counter:\n{page}");
    }
    Ok(())
}
