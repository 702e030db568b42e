//! How testbeds end: with the program's exit code, on a signal, and when they are killed.
//!
//! Each case starts a testbed inside this one, whose processes can then be told from all others:
//! they are in a process namespace below ours.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::Signal;

const LIMIT: Duration = Duration::from_secs(20);
/// init, the program, etcd, four servers of Kubernetes and Vault.
const PROCESSES: usize = 7;

type Case = fn() -> Result<()>;

pub(crate) const ALL: [(&str, Case); 3] = [
    ("nothing_remains_after_sigkill", after_sigkill),
    ("sigterm_ends_a_testbed_in_order", after_sigterm),
    ("run_answers_with_the_exit_code", exit_code),
];

fn after_sigkill() -> Result<()> {
    let (mut child, inside) = up()?;
    let processes = inside.processes()?;
    ensure!(processes.len() >= PROCESSES, "where are the servers? {processes:?}");
    child.kill()?;
    child.wait()?;
    inside.wait_until_gone()
}

fn after_sigterm() -> Result<()> {
    let (mut child, inside) = up()?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    inside.wait_until_gone()
}

fn exit_code() -> Result<()> {
    let status = testbed_command()
        .args(["run", "--", "sh", "-c", "kubectl get serviceaccount default && test -n \"$VAULT_ADDR\" && exit 7"])
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.code() == Some(7), "{status}");
    Ok(())
}

fn testbed_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.env_remove("KV_TESTBED_INSIDE");
    command
}

/// The processes of a testbed as seen from here.
struct Inside {
    /// The process namespace, and `unshare`, which waits for it from outside.
    namespace: PathBuf,
    unshare: String,
}

/// Starts `testbed up`.
fn up() -> Result<(Child, Inside)> {
    let mut child = testbed_command().arg("up").stdout(Stdio::piped()).spawn().context("cannot start testbed")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut init = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some((_, rest)) = line.split_once("exec --pid ") {
            init = rest.split(' ').next().map(str::to_owned);
        }
        if line.contains("Ctrl-C ends everything") {
            let init = init.context("testbed up does not say how to join it")?;
            let status = fs::read_to_string(format!("/proc/{init}/status"))?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
            let namespace = fs::read_link(format!("/proc/{init}/ns/pid"))?;
            return Ok((child, Inside { namespace, unshare: format!("/proc/{}", parent.trim()) }));
        }
    }
    anyhow::bail!("testbed up did not come up: {}", child.wait()?)
}

impl Inside {
    fn processes(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            // A process may end while we look.
            if fs::read_link(path.join("ns/pid")).is_ok_and(|namespace| namespace == self.namespace) {
                found.push(fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned());
            }
        }
        Ok(found)
    }

    /// Its mounts were in a namespace that goes with its last process, its files on a tmpfs of that.
    fn wait_until_gone(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = self.processes()?;
            let unshare = fs::exists(&self.unshare)?;
            if left.is_empty() && !unshare {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still there: {left:?}, unshare: {unshare}");
            std::thread::yield_now();
        }
    }
}
