//! How containers, sandboxes and pods end.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::container::{signal, signal_group};
use super::super::record::{Kind, State};
use super::{Command, Message, RETRY, Worker};
use crate::network::{PodNetwork, next_pod_ip};

/// What Kubernetes gives where the pod does not say.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// SIGKILL leaves no choice; only a process in an uninterruptible call takes longer than a moment.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    fn grace(&self) -> Duration {
        let of_spec = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(of_spec).unwrap_or(DEFAULT_GRACE_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// SIGTERM now, SIGKILL after the grace period.
    pub(super) fn end_container(&self, index: usize) {
        let Some(live) = &self.live[index] else {
            return;
        };
        signal(live.pid, Signal::TERM);
        let (sender, grace, start) = (self.sender.clone(), self.grace(), live.start);
        tokio::spawn(async move {
            sleep(grace).await;
            let _ = sender.send(Message::Overdue { index, start }).await;
        });
    }

    /// Ends a pod that is being deleted: main containers, then sidecars, then the object.
    pub(super) async fn end(&mut self, updates: &mut watch::Receiver<Option<Pod>>) {
        let deadline = Instant::now() + self.grace();
        for kinds in [[Kind::Init, Kind::Main], [Kind::Sidecar, Kind::Sidecar]] {
            self.signal_kinds(&kinds, Signal::TERM);
            self.wait_for_ends(&kinds, deadline, updates).await;
        }
        let all = [Kind::Init, Kind::Main, Kind::Sidecar];
        self.kill_groups();
        self.wait_for_ends(&all, Instant::now() + KILL_LIMIT, updates).await;
        while !self.gone && !self.publish().await {
            sleep(RETRY).await;
        }
        self.delete_object().await;
    }

    fn signal_kinds(&self, kinds: &[Kind], kind_of_signal: Signal) {
        for (record, live) in self.records.iter().zip(&self.live) {
            if let (true, Some(live)) = (kinds.contains(&record.kind), live) {
                signal(live.pid, kind_of_signal);
            }
        }
    }

    fn kill_groups(&self) {
        for live in self.live.iter().flatten() {
            signal_group(live.pid, Signal::KILL);
            // Before its session starts a container is in no group of its own yet.
            signal(live.pid, Signal::KILL);
        }
    }

    fn any_live(&self, kinds: &[Kind]) -> bool {
        self.records.iter().zip(&self.live).any(|(record, live)| live.is_some() && kinds.contains(&record.kind))
    }

    async fn wait_for_ends(&mut self, kinds: &[Kind], deadline: Instant, updates: &mut watch::Receiver<Option<Pod>>) {
        let mut deadline = deadline;
        while self.any_live(kinds) {
            if !self.gone {
                self.publish().await;
            }
            tokio::select! {
                Some(message) = self.receiver.recv() => self.take_in(message).await,
                changed = updates.changed(), if !self.gone => {
                    self.update(changed.is_ok(), updates);
                    // Deleted by force: nothing is left to wait for. Shortened: the new period counts.
                    let grace = if self.gone { Duration::ZERO } else { self.grace() };
                    deadline = deadline.min(Instant::now() + grace);
                }
                () = sleep_until(deadline) => return,
            }
        }
    }

    async fn delete_object(&self) {
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.namespace());
        let name = self.pod.metadata.name.clone().unwrap_or_default();
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        loop {
            match pods.delete(&name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return,
                Err(error) => {
                    self.context.grumble(&format!("cannot delete {name}: {error}"));
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Ends whatever still runs and takes away what the pod had; its logs stay.
    pub(super) async fn clean_up(&mut self) {
        self.kill_groups();
        self.tasks.iter().for_each(AbortHandle::abort);
        for live in self.live.iter().flatten() {
            live.probes.as_ref().inspect(|probes| probes.abort());
        }
        if let Some(network) = self.network.take() {
            network.remove().await;
        }
        // The volumes may hold tokens; what cannot be removed dies with the tmpfs.
        let _ = tokio::fs::remove_dir_all(self.directory.join("volumes")).await;
        self.context.note(&self.uid, |entry| {
            entry.network = None;
            entry.hosts = None;
            entry.gone = true;
        });
    }

    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::NewSandbox { ip, done } => {
                let result = self.new_sandbox(ip).await;
                // Whoever asked may have stopped waiting.
                let _ = done.send(result);
            }
        }
    }

    /// All containers die unseen; the init containers run again under a new address.
    async fn new_sandbox(&mut self, ip: Option<Ipv4Addr>) -> Result<()> {
        if !self.prepared || self.host_network() {
            bail!("the pod has no sandbox of its own yet");
        }
        self.kill_groups();
        let deadline = Instant::now() + KILL_LIMIT;
        while self.any_live(&[Kind::Init, Kind::Main, Kind::Sidecar]) {
            tokio::select! {
                Some(message) = self.receiver.recv() => self.take_in(message).await,
                () = sleep_until(deadline) => bail!("the containers do not end"),
            }
        }
        if let Some(network) = self.network.take() {
            network.remove().await;
        }
        self.network = Some(PodNetwork::create(ip.map_or_else(next_pod_ip, Ok)?, self.context.ipv6).await?);
        self.write_hosts()?;
        for record in &mut self.records {
            let waiting = State::Waiting { reason: "PodInitializing".to_owned(), message: String::new() };
            if let State::Terminated(end) = std::mem::replace(&mut record.state, waiting) {
                record.last = Some(end);
            }
            record.due = None;
            record.id = None;
        }
        // Written only once the first container runs: nobody sees the state in between.
        let _ = self.advance().await;
        Ok(())
    }
}
