//! The init container: size, memory, how soon it listens, how soon it is done.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::fake_pods::{self, FakePod, simulated_ip};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use wire::limits;

use crate::controller::{Controller, rss_kib};
use crate::report::{Report, Target, quantile};
use crate::rig::Rig;
use crate::sizes::Sizes;

const SECTION: &str = "tokens";
/// Between two tries to connect.
const POLL: Duration = Duration::from_micros(50);
const LIMIT: Duration = Duration::from_secs(30);
const MIB: f64 = 1_048_576.0;

/// What it costs while it waits.
pub(crate) async fn at_rest(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("init container at rest");
    let size = std::fs::metadata(&rig.init)?.len() as f64 / MIB;
    let folder = rig.bed.directory().join("at-rest");
    std::fs::create_dir(&folder)?;
    let (mut listening, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..sizes.init_starts {
        let before = Instant::now();
        let mut child = start(&rig.init, "none", &folder)?;
        let after = tokio::task::spawn_blocking(move || wait_until_listening(before)).await??;
        listening.push(after.as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        resident.push(rss_kib(child.id().context("the init container has ended")?)? / 1_024.0);
        child.kill().await?;
    }
    report.row("init_size_mib", size, "MiB", Target::AtMost(2.0), "7.6");
    report.row("init_rss_mib", quantile(&mut resident, 0.5)?, "MiB", Target::AtMost(4.0), "9.5");
    report.row("init_listen_ms", quantile(&mut listening, 0.5)?, "ms", Target::AtMost(5.0), "6.9");
    Ok(())
}

/// From exec to exit with the token written, the status patched at once.
pub(crate) async fn start_to_token(
    rig: &Rig,
    controller: &Controller,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<()> {
    report.say("init container, start to token");
    let role_id = rig.role_id(SECTION).await?;
    let mut took = Vec::new();
    for number in 0..sizes.init_starts {
        took.push(one_token(rig, number, &role_id).await?);
    }
    let p90 = quantile(&mut took, 0.9)?;
    report.row("start_to_token_p50_ms", quantile(&mut took, 0.5)?, "ms", Target::AtMost(40.0), "-");
    let unreached = controller.metric("kubernetesvault_incidents_total", "unreached").await?;
    report.note(format!("start to token: {} starts, p90 {p90:.1} ms; {unreached} dials failed", took.len()));
    Ok(())
}

async fn one_token(rig: &Rig, number: u16, role_id: &str) -> Result<f64> {
    let pod = FakePod::asking_for(SECTION, &format!("pod-{number}"), SECTION);
    let (ip, id) = (simulated_ip(100 + number), format!("containerd://{}", pod.name));
    fake_pods::create_pending(&rig.client, &pod).await?;
    let folder = rig.bed.directory().join(format!("token-{number}"));
    std::fs::create_dir(&folder)?;
    let before = Instant::now();
    let mut child = start(&rig.init, role_id, &folder)?;
    fake_pods::set_init_running(&rig.client, &pod, ip, &id, 0).await?;
    let status = timeout(LIMIT, child.wait()).await.context("the init container does not end")??;
    let took = before.elapsed().as_secs_f64() * 1_000.0;
    ensure!(status.success() && folder.join("vault-token").is_file(), "the init container ended with {status}");
    fake_pods::set_running(&rig.client, &pod, ip, &id).await?;
    Ok(took)
}

fn start(program: &Path, role_id: &str, folder: &Path) -> Result<Child> {
    Command::new(program)
        .env_clear()
        .env("VAULT_ROLE_ID", role_id)
        .env("CREDENTIALS_PATH", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn wait_until_listening(before: Instant) -> Result<Duration> {
    let address = SocketAddr::from(([127, 0, 0, 1], limits::PORT));
    while before.elapsed() < LIMIT {
        if TcpStream::connect(address).is_ok() {
            return Ok(before.elapsed());
        }
        std::thread::park_timeout(POLL);
    }
    bail!("the init container does not listen")
}
