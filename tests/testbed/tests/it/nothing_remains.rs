//! A testbed whose outer process is killed takes everything with it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

const LIMIT: Duration = Duration::from_secs(10);

/// Starts a testbed inside this one, kills its outer process, and looks for what is left.
pub(crate) fn after_sigkill() -> Result<()> {
    let before = processes()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut child = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["up"])
        .env_remove("KV_TESTBED_INSIDE")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start testbed")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let up = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains("Ctrl-C ends everything"));
    ensure!(up, "testbed up did not come up");
    let during = processes()?;
    ensure!(during.len() >= before.len() + 8, "where are the servers? {during:?}");
    child.kill()?;
    child.wait()?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let left: Vec<String> = processes()?.into_iter().filter(|process| !before.contains(process)).collect();
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "still there: {left:?}");
        std::thread::yield_now();
    }
    ensure!(fs::read_to_string("/proc/self/mounts")? == mounts, "mounts are left");
    Ok(())
}

/// Id and name of every process in sight, kernel threads and the dead included.
fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while we look.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        if path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()) {
            found.push(stat.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    Ok(found)
}
