//! Preparing a pod and starting its containers.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use tokio::time::sleep;

use super::super::container::{self, Running, Surroundings};
use super::super::env::{Fields, resolve};
use super::super::probes::{self, Target};
use super::super::record::State;
use super::super::volumes::{self, TokenFile};
use super::super::{ContainerEntry, hosts};
use super::{Live, Message, RETRY, Worker};
use crate::network::{IP_ANNOTATION, PodNetwork, next_pod_ip};

/// Pause before a container that could not be created is tried again.
const CREATE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl Worker {
    /// Makes the pod's network, hosts file and volumes.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create {}", self.directory.display()))?;
        if self.network.is_none() && !self.host_network() {
            self.network = Some(PodNetwork::create(self.wanted_ip()?, self.context.ipv6).await?);
        }
        self.write_hosts()?;
        let (ips, host_ip) = (self.ip_texts(), self.context.node_ip.to_string());
        let fields = Fields { pod: &self.pod, pod_ips: &ips, host_ip: &host_ip };
        let tokens = volumes::prepare(&self.context.client, &fields, &self.directory).await?;
        for token in tokens {
            self.keep_fresh(token);
        }
        self.keep_volumes(ips);
        Ok(())
    }

    /// Takes over changes of ConfigMaps and Secrets, as a kubelet does now and then.
    fn keep_volumes(&mut self, ips: Vec<String>) {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let directory = self.directory.clone();
        let host_ip = context.node_ip.to_string();
        let task = tokio::spawn(async move {
            loop {
                sleep(context.volume_refresh).await;
                let fields = Fields { pod: &pod, pod_ips: &ips, host_ip: &host_ip };
                // What was deleted in the meantime stays as it was in the pod.
                let _ = volumes::write(&context.client, &fields, &directory).await;
            }
        });
        self.tasks.push(task.abort_handle());
    }

    fn wanted_ip(&self) -> Result<Ipv4Addr> {
        let annotations = self.pod.metadata.annotations.as_ref();
        match annotations.and_then(|annotations| annotations.get(IP_ANNOTATION)) {
            Some(ip) => ip.parse().with_context(|| format!("annotation {IP_ANNOTATION}: {ip:?} is no address")),
            None => next_pod_ip(),
        }
    }

    /// The addresses that the pod has or is about to have.
    pub(super) fn ip_texts(&self) -> Vec<String> {
        match &self.network {
            Some(network) => network.ips().iter().map(ToString::to_string).collect(),
            None => vec![self.context.node_ip.to_string()],
        }
    }

    /// Writes the hosts file, and lets the agent know what belongs into it from now on.
    pub(super) fn write_hosts(&self) -> Result<()> {
        let path = self.directory.join("etc-hosts");
        self.context.note(&self.uid, |entry| {
            entry.network.clone_from(&self.network);
            entry.ips = self.ip_texts();
            entry.hostname.clone_from(&self.hostname);
            entry.hosts = Some(path.clone());
        });
        hosts::write(&path, &self.context.hosts_for(&self.pod, &self.ip_texts(), &self.hostname))
    }

    fn keep_fresh(&mut self, token: TokenFile) {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let task = tokio::spawn(async move {
            loop {
                sleep(token.renew_after()).await;
                while let Err(error) = token.renew(&context.client, &pod).await {
                    context.grumble(&format!("{error:#}"));
                    sleep(RETRY).await;
                }
            }
        });
        self.tasks.push(task.abort_handle());
    }

    /// Starts a container; where that is impossible, its state says why.
    pub(super) async fn start(&mut self, index: usize) {
        let error = match self.try_start(index).await {
            Ok(running) => return self.started(index, running),
            Err(error) => error,
        };
        let message = format!("{error:#}");
        self.complain("Failed", &message).await;
        let record = &mut self.records[index];
        let missing_image = error.is::<NoImage>();
        let reason = if missing_image { "ErrImagePull" } else { "CreateContainerConfigError" };
        if let State::Terminated(end) = &record.state {
            record.last = Some(end.clone());
        }
        record.state = State::Waiting { reason: reason.to_owned(), message };
        record.due = Some(Timestamp::now().saturating_add(CREATE_RETRY).unwrap_or(Timestamp::MAX));
    }

    async fn try_start(&self, index: usize) -> Result<Running> {
        let container = &self.containers[index];
        let name = container.image.clone().unwrap_or_default();
        let Some(image) = self.context.image(&name) else {
            bail!(NoImage(name));
        };
        let (ips, host_ip) = (self.ip_texts(), self.context.node_ip.to_string());
        let fields = Fields { pod: &self.pod, pod_ips: &ips, host_ip: &host_ip };
        let mut variables = self.context.cluster_variables();
        variables.extend(resolve(&self.context.client, container, &fields).await?);
        let around = Surroundings {
            hostname: &self.hostname,
            network: self.network.as_ref().map(|network| network.namespace.as_str()),
            directory: &self.directory,
            volumes: &self.volumes()?,
            variables,
        };
        container::start(container, &image, around, self.records[index].starts).await
    }

    fn volumes(&self) -> Result<Vec<(String, PathBuf)>> {
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.map(|volume| Ok((volume.name.clone(), volumes::folder(&self.directory, volume)?))).collect()
    }

    fn started(&mut self, index: usize, running: Running) {
        let container = &self.containers[index];
        let record = &mut self.records[index];
        if let State::Terminated(end) = &record.state {
            record.last = Some(end.clone());
        }
        record.starts += 1;
        record.due = None;
        record.state = State::Running { since: running.started() };
        record.started = container.startup_probe.is_none();
        record.ready = record.started && container.readiness_probe.is_none();
        let id = container::new_id().unwrap_or_default();
        record.id = Some(id.clone());
        let (start, pid, files) = (record.starts, running.pid().unwrap_or_default(), running.files());
        let name = record.name.clone();
        self.live[index] = Some(Live { start, pid, probes: self.spawn_probes(index, start, pid) });
        self.context.note(&self.uid, |entry| {
            let logs = entry.containers.remove(&name).map(|entry| entry.logs).unwrap_or_default();
            let logs = logs.into_iter().chain([files.log.clone()]).collect();
            entry.containers.insert(name, ContainerEntry { pid: Some(pid), id: id.clone(), logs });
        });
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let end = running.wait(id).await;
            // The worker may have been told that the pod is gone.
            let _ = sender.send(Message::Ended { index, start, end }).await;
        });
    }

    fn spawn_probes(&self, index: usize, start: i32, pid: u32) -> Option<tokio::task::AbortHandle> {
        let container: &Container = &self.containers[index];
        let any = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
        if any.iter().all(|probe| probe.is_none()) {
            return None;
        }
        let ip = self.ips().into_iter().next()?;
        let report = move |finding| Message::Probed { index, start, finding };
        let task = probes::run(container.clone(), Target { ip, pid }, self.sender.clone(), report);
        Some(tokio::spawn(task).abort_handle())
    }
}

/// The image table has nothing for this reference.
#[derive(Debug)]
struct NoImage(String);

impl std::fmt::Display for NoImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no program stands for image {:?}: name one with --image {0}=PATH or Builder::image", self.0)
    }
}

impl std::error::Error for NoImage {}
