//! One controller as a process of its own: start, look, stop.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::poll_until;
use tokio::process::{Child, Command};

use crate::cpu;
use crate::rig::Rig;

/// Ports of metrics and health, two for each controller.
static PORT: AtomicU16 = AtomicU16::new(9_100);
/// A start takes a fraction of a second; both cores may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a controller is given beside the usual.
#[derive(Default)]
pub(crate) struct Settings {
    /// Where it keeps its ledger; a folder of its own where this is not said.
    pub(crate) raft_dir: Option<PathBuf>,
    /// All replicas; none: it is alone.
    pub(crate) peers: Vec<String>,
    /// How its metrics are protected; in clear where this is not said.
    pub(crate) metrics_tls: Option<MetricsTls>,
}

/// Metrics over mutual TLS.
#[derive(Clone)]
pub(crate) struct MetricsTls {
    /// `prometheus.tls`.
    pub(crate) section: Value,
    /// Who may read the page.
    pub(crate) scraper: reqwest::Client,
}

/// How it is ended.
#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Kill,
    Terminate,
}

pub(crate) struct Controller {
    command: Command,
    child: Child,
    pub(crate) pid: u32,
    pub(crate) started: Instant,
    pub(crate) metrics_address: SocketAddr,
    metrics: String,
    ready: String,
    http: reqwest::Client,
    pub(crate) log: PathBuf,
}

impl Controller {
    /// Starts one that watches `namespaces`; its requests carry `user` in the audit log.
    pub(crate) async fn start(rig: &Rig, user: &str, namespaces: &str) -> Result<Self> {
        Self::start_with(rig, user.to_owned(), namespaces, Settings::default()).await
    }

    /// The same, with `settings`.
    pub(crate) async fn start_with(rig: &Rig, user: String, namespaces: &str, settings: Settings) -> Result<Self> {
        let kubeconfig = rig.bed.control_plane().kubeconfig_for(&user)?;
        let port = PORT.fetch_add(2, Ordering::Relaxed);
        let [metrics, health] = [port, port + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let plain = || reqwest::Client::builder().no_proxy().tls_certs_only(Vec::new()).build();
        let (scheme, tls, http) = match settings.metrics_tls {
            Some(MetricsTls { section, scraper }) => ("https", section, scraper),
            None => ("http", Value::Null, plain()?),
        };
        // JSON is YAML.
        let raft_dir = settings.raft_dir.unwrap_or_else(|| rig.bed.directory().join(format!("{user}.raft")));
        let config = json!({
            "raftDir": raft_dir, "raft": {"peers": settings.peers},
            "vault": {"addr": rig.bed.vault()?.address(), "token": rig.token},
            "kubernetes": {"watchNamespace": namespaces, "serviceNamespace": "default", "service": "kubernetes"},
            "prometheus": {"address": metrics, "tls": tls}, "health": {"address": health},
        });
        let path = rig.bed.directory().join(format!("{user}.yml"));
        let log = rig.bed.directory().join(format!("{user}.log"));
        std::fs::write(&path, config.to_string())?;
        let mut command = Command::new(&rig.controller);
        command.arg("--config").arg(&path).env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log)?).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", rig.controller.display()))?;
        Ok(Self {
            pid: child.id().context("the controller has ended")?,
            command,
            child,
            started,
            metrics_address: metrics,
            metrics: format!("{scheme}://{metrics}/metrics"),
            ready: format!("http://{health}/readyz"),
            http,
            log,
        })
    }

    /// Waits until it delivers.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<()> {
        let (http, ready) = (&self.http, &self.ready);
        let waited = poll_until("ready controller", START_LIMIT, || async move {
            let answer = http.get(ready).send().await;
            Ok(answer.ok().filter(|answer| answer.status().is_success()).map(drop))
        });
        waited.await.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Its page of metrics.
    pub(crate) async fn page(&self) -> Result<String> {
        Ok(self.http.get(&self.metrics).send().await?.text().await?)
    }

    /// The sum of a metric's series whose line contains `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let page = self.page().await?;
        let is_of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = page.lines().filter(|line| is_of(line) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        Ok(cpu::process(self.pid)?.1)
    }

    /// Resident memory.
    pub(crate) fn rss_kib(&self) -> Result<f64> {
        rss_kib(self.pid)
    }

    /// Ends it, without waiting for the end.
    pub(crate) async fn signal(&mut self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Kill => self.child.start_kill().context("cannot kill the controller"),
            Signal::Terminate => {
                let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid)?).context("no process")?;
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot end the controller")
            }
        }
    }

    /// Starts it again on what it had, once it has ended.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.child.wait().await?;
        self.child = self.command.spawn()?;
        self.pid = self.child.id().context("the controller has ended")?;
        Ok(())
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("cannot end the controller")
    }
}

/// Resident memory of a process.
pub(crate) fn rss_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.context("no VmRSS")?.parse().context("VmRSS is no number")
}
