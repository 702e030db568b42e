//! Child processes: each with a log file of its own, ended in order, told apart when they die.
//!
//! Owns: the servers' processes. All of them are in the process namespace, whose end kills them.
//!
//! Must never happen: waiting for a server that is dead. Every wait looks at the process too, and
//! its error carries the end of the log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How much of a log an error repeats.
const TAIL_BYTES: usize = 3000;
/// Pause between two looks at something that has no event to wait for.
const POLL: Duration = Duration::from_millis(25);

/// A server that runs in the background.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program whose output goes to `<directory>/<name>.log`, appended at a restart.
    pub(crate) fn spawn(name: &'static str, program: &Path, arguments: &[String], directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .env("HOME", directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// Sends a signal, for example to pause it.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.with_context(|| format!("{} has ended", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Polls `check` until it says yes; fails at the deadline or when the process has died.
    pub(crate) async fn wait_until<F, Fut>(&mut self, what: &str, limit: Duration, check: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            let error = match check().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} died ({status}) before {what}:\n{}", self.name, tail(&self.log));
            }
            if Instant::now() >= deadline {
                bail!("{}: no {what} after {limit:?}: {error:#}\n{}", self.name, tail(&self.log));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it with SIGTERM, and with SIGKILL when it has not gone in time.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        // A failure means that it is gone already.
        if self.signal(Signal::TERM).is_ok() && tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Ends it with SIGKILL, as a crash would.
    pub(crate) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// Polls until `check` answers something, with a deadline.
pub async fn poll_until<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("no {what} after {limit:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The end of a log file, from the start of a line.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned();
    text.split_once('\n').map_or(text.clone(), |(_, rest)| rest.to_owned())
}
