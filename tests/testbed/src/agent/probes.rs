//! Startup, readiness and liveness probes of one running container.
//!
//! Owns: the probes' timers. They end with the container, because their task is aborted then.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The startup probe has succeeded.
    Started,
    /// The readiness probe changed its mind.
    Ready(bool),
    /// Startup or liveness probe failed as often as is allowed.
    Unhealthy(String),
}

/// What probes need to reach the container.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) ip: IpAddr,
    pub(crate) pid: u32,
}

/// Probes until its task is aborted. `report` adds which container and which start it is about.
pub(crate) async fn run<F>(container: Container, target: Target, sender: mpsc::Sender<F>, report: impl Fn(Finding) -> F)
where
    F: Send,
{
    if let Some(probe) = &container.startup_probe {
        let finding = match until_settled(probe, &container, &target).await {
            Ok(()) => Finding::Started,
            Err(error) => Finding::Unhealthy(format!("Startup probe failed: {error:#}")),
        };
        let unhealthy = finding != Finding::Started;
        // The pod's worker is gone only when the container is, too.
        let _ = sender.send(report(finding)).await;
        if unhealthy {
            return;
        }
    }
    let readiness = async {
        let Some(probe) = &container.readiness_probe else {
            return;
        };
        watch_readiness(probe, &container, &target, |ready| sender.send(report(Finding::Ready(ready)))).await;
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else {
            return;
        };
        let error = until_failed(probe, &container, &target).await;
        let _ = sender.send(report(Finding::Unhealthy(format!("Liveness probe failed: {error:#}")))).await;
    };
    tokio::join!(readiness, liveness);
}

/// Waits for the first success; the error is the last failure.
async fn until_settled(probe: &Probe, container: &Container, target: &Target) -> Result<()> {
    let mut ticks = ticks(probe).await;
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let Err(error) = once(probe, container, target).await else {
            return Ok(());
        };
        failures += 1;
        if failures >= probe.failure_threshold.unwrap_or(3) {
            return Err(error);
        }
    }
}

async fn until_failed(probe: &Probe, container: &Container, target: &Target) -> anyhow::Error {
    let mut ticks = ticks(probe).await;
    let mut failures = 0;
    loop {
        ticks.tick().await;
        match once(probe, container, target).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures >= probe.failure_threshold.unwrap_or(3) {
                    return error;
                }
            }
        }
    }
}

async fn watch_readiness<Fut: Future>(
    probe: &Probe,
    container: &Container,
    target: &Target,
    say: impl Fn(bool) -> Fut,
) {
    let mut ticks = ticks(probe).await;
    let (mut ready, mut streak) = (false, 0);
    loop {
        ticks.tick().await;
        let succeeded = once(probe, container, target).await.is_ok();
        streak = if succeeded == ready { 0 } else { streak + 1 };
        let wanted = if ready { probe.failure_threshold.unwrap_or(3) } else { probe.success_threshold.unwrap_or(1) };
        if streak >= wanted {
            ready = succeeded;
            streak = 0;
            say(ready).await;
        }
    }
}

async fn ticks(probe: &Probe) -> tokio::time::Interval {
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let mut ticks = interval(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

async fn once(probe: &Probe, container: &Container, target: &Target) -> Result<()> {
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let check = async {
        if let Some(action) = &probe.http_get {
            http_get(action, container, target).await
        } else if let Some(action) = &probe.tcp_socket {
            let port = port(&action.port, container)?;
            TcpStream::connect((target.ip, port)).await.map(drop).context("cannot connect")
        } else if let Some(action) = &probe.exec {
            execute(action.command.as_deref().unwrap_or_default(), target).await
        } else {
            bail!("the probe has no action that the testbed knows")
        }
    };
    timeout(limit, check).await.unwrap_or_else(|_| bail!("no answer within {limit:?}"))
}

async fn http_get(
    action: &k8s_openapi::api::core::v1::HTTPGetAction,
    container: &Container,
    target: &Target,
) -> Result<()> {
    let port = port(&action.port, container)?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = action.path.as_deref().unwrap_or("/");
    let host = action.host.clone().unwrap_or_else(|| match target.ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    let url = format!("{scheme}://{host}:{port}/{}", path.trim_start_matches('/'));
    // A kubelet verifies no certificate either.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let mut request = client.get(&url);
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let status = request.send().await.with_context(|| format!("GET {url}"))?.status();
    ensure!(status.is_success() || status.is_redirection(), "GET {url}: {status}");
    Ok(())
}

fn port(port: &IntOrString, container: &Container) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .with_context(|| format!("there is no port {name:?}"))?,
    };
    u16::try_from(number).with_context(|| format!("{number} is no port"))
}

async fn execute(command: &[String], target: &Target) -> Result<()> {
    let output = inside(target.pid, command).stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(())
}

/// A command that runs in a container, seen from its first process, with the container's variables.
pub(crate) fn inside(pid: u32, command: &[String]) -> Command {
    // A process that has just ended has none: neither can a command run in it.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    let mut nsenter = Command::new("nsenter");
    nsenter
        .args(["--target", &pid.to_string(), "--mount", "--net", "--uts", "--root", "--wd", "--"])
        .args(["/usr/bin/env", "-i"])
        .args(variables.map(OsStr::from_bytes))
        .args(command)
        .kill_on_drop(true);
    nsenter
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_have_numbers_or_names() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        assert_eq!(port(&IntOrString::Int(80), &container).unwrap(), 80);
        assert_eq!(port(&IntOrString::String("web".into()), &container).unwrap(), 8080);
        assert!(port(&IntOrString::String("none".into()), &container).is_err());
    }

    #[tokio::test]
    async fn a_startup_probe_gives_up_after_its_threshold() {
        let probe: Probe = serde_json::from_value(json!({"failureThreshold": 1, "tcpSocket": {"port": 1}})).unwrap();
        let target = Target { ip: "127.0.0.1".parse().unwrap(), pid: 1 };
        assert!(until_settled(&probe, &Container::default(), &target).await.is_err());
    }
}
