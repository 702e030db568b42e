//! The node agent: plays the kubelet, and nothing else of Kubernetes.
//!
//! Owns: one Node with its pods. A watch of the pods that are bound to it feeds one task for each pod
//! ([`pod`]); the order of what these report is that of a real kubelet, pure in [`plan`] and [`record`].
//!
//! Must never happen: a field of a pod's spec that is ignored in silence ([`refuse`]).

mod container;
mod context;
mod env;
mod events;
mod expand;
mod hosts;
mod images;
mod node;
mod patience;
mod plan;
mod pod;
mod probes;
mod record;
mod refuse;
mod root;
mod volumes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use context::{ContainerEntry, Context, Entry};
pub use images::{Image, Images};
use pod::{Command, Worker};
pub(crate) use root::become_container;

use crate::disk::Disk;
use crate::network::PodNetwork;

/// A kubelet waits ten seconds before the second restart, then twice as long each time.
pub const KUBELET_RESTART_BASE: Duration = Duration::from_secs(10);
/// A kubelet looks after changed ConfigMaps and Secrets about once a minute.
pub(crate) const KUBELET_VOLUME_REFRESH: Duration = Duration::from_secs(60);
/// A case asks one thing of a pod at a time.
const COMMANDS: usize = 4;

/// What an agent needs.
pub(crate) struct AgentOptions {
    pub(crate) client: Client,
    pub(crate) node: String,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) images: Images,
    pub(crate) directory: PathBuf,
    pub(crate) api_server: (Ipv4Addr, u16),
    pub(crate) restart_base: Duration,
    pub(crate) ipv6: bool,
    pub(crate) volume_refresh: Duration,
    pub(crate) names: Vec<(String, String)>,
}

/// A running node agent.
pub struct NodeAgent {
    context: Arc<Context>,
    tasks: Vec<AbortHandle>,
}

impl NodeAgent {
    /// Registers the node and begins to run its pods.
    pub(crate) async fn start(options: AgentOptions) -> Result<Self> {
        node::register(&options.client, &options.node, IpAddr::V4(options.node_ip)).await?;
        let context = Arc::new(Context::new(options));
        let heartbeat = tokio::spawn(node::heartbeat(context.client.clone(), context.node.clone()));
        let pods = tokio::spawn(watch_pods(context.clone()));
        let slices = tokio::spawn(watch_slices(context.clone()));
        let tasks = [heartbeat.abort_handle(), pods.abort_handle(), slices.abort_handle()].to_vec();
        Ok(Self { context, tasks })
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.node
    }

    /// The node's address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.context.node_ip
    }

    /// Whether it has, or had, this pod.
    #[must_use]
    pub fn knows(&self, namespace: &str, pod: &str) -> bool {
        self.context.find(namespace, pod, |_| ()).is_ok()
    }

    /// Adds a program that stands for an image, for containers that start from now on.
    pub fn add_image(&self, name: &str, image: Image) -> Result<()> {
        self.context.add_image(name, image)
    }

    /// Gives a path of the node a disk of its own, of `bytes`, for hostPath volumes of pods that start from now on.
    pub fn mount_disk(&self, path: &str, bytes: u64) -> Result<Disk> {
        Ok(Disk::new(volumes::mount_disk(&self.context.directory, path, bytes)?, bytes))
    }

    /// Where a hostPath of this node is on the machine.
    pub fn host_path(&self, path: &str) -> Result<PathBuf> {
        volumes::in_agent(&self.context.directory, path)
    }

    /// What a container printed since its last start.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        let files = self.log_files(namespace, pod, container)?;
        let last = files.last().context("the container has not been started")?;
        let text = std::fs::read(last).with_context(|| format!("cannot read {}", last.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The log files of a container, one for each start, oldest first. They outlive the pod.
    pub fn log_files(&self, namespace: &str, pod: &str, container: &str) -> Result<Vec<PathBuf>> {
        self.container(namespace, pod, container, |entry| entry.logs.clone())
    }

    /// Every log file of every pod that it ever ran: for a search through all that was printed.
    #[must_use]
    pub fn all_log_files(&self) -> Vec<PathBuf> {
        self.context.all_log_files()
    }

    /// The log files of all containers of this name that a namespace ever had, those of pods that are gone included.
    #[must_use]
    pub fn namespace_log_files(&self, namespace: &str, container: &str) -> Vec<PathBuf> {
        self.context.namespace_log_files(namespace, container)
    }

    /// The process id of a running container, as seen inside the testbed.
    pub fn pid(&self, namespace: &str, pod: &str, container: &str) -> Result<u32> {
        self.container(namespace, pod, container, |entry| entry.pid)?
            .with_context(|| format!("container {container} of {namespace}/{pod} does not run"))
    }

    /// Signals the first process of a container.
    pub fn signal(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> Result<()> {
        container::signal(self.pid(namespace, pod, container)?, signal);
        Ok(())
    }

    /// Runs a command in a container, as `kubectl exec` would: with the variables of its first process.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<std::process::Output> {
        let pid = self.pid(namespace, pod, container)?;
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        probes::inside(pid, &command).output().await.context("cannot start nsenter")
    }

    /// A pod's network: to cut its link, or drop packets of one direction.
    pub fn network(&self, namespace: &str, pod: &str) -> Result<PodNetwork> {
        let network = self.context.find(namespace, pod, |entry| entry.network.clone())?;
        network.with_context(|| format!("{namespace}/{pod} has no network of its own"))
    }

    /// Ends a pod's sandbox: all its containers die, and its init containers run again under a new address,
    /// or under `ip`. The API server sees the old status until the first container runs.
    pub async fn restart_sandbox(&self, namespace: &str, pod: &str, ip: Option<Ipv4Addr>) -> Result<()> {
        let commands = self.context.find(namespace, pod, |entry| entry.commands.clone())?;
        let (done, answer) = oneshot::channel();
        let command = Command::NewSandbox { ip, done };
        commands.send(command).await.ok().with_context(|| format!("{namespace}/{pod} is gone"))?;
        answer.await.with_context(|| format!("{namespace}/{pod} is gone"))?
    }

    /// Holds back every status (`true`), or writes the newest of each pod and goes on (`false`).
    pub fn hold_statuses(&self, hold: bool) {
        self.context.hold_statuses(hold);
    }

    /// Lets go of the node: no heartbeat, no new pods. Running ones end with the testbed.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    fn container<T>(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        get: impl FnOnce(&ContainerEntry) -> T,
    ) -> Result<T> {
        let found = self.context.find(namespace, pod, |entry| entry.containers.get(container).map(get))?;
        found.with_context(|| format!("{namespace}/{pod} has not started a container {container}"))
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Feeds the pods of this node to their tasks.
async fn watch_pods(context: Arc<Context>) {
    let pods: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.node));
    let events = watcher(pods, config).backoff(watcher::DefaultBackoff::default());
    pin_mut!(events);
    let mut workers: BTreeMap<String, watch::Sender<Option<Pod>>> = BTreeMap::new();
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                apply(&context, &mut workers, pod);
            }
            Ok(watcher::Event::InitDone) => {
                workers.retain(|uid, sender| listed.contains(uid) || forget(sender));
            }
            Ok(watcher::Event::Apply(pod)) => apply(&context, &mut workers, pod),
            Ok(watcher::Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                workers.retain(|known, sender| *known != uid || forget(sender));
            }
            Err(error) => context.grumble(&format!("the watch of pods broke off: {error}")),
        }
    }
}

fn apply(context: &Arc<Context>, workers: &mut BTreeMap<String, watch::Sender<Option<Pod>>>, pod: Pod) {
    let uid = pod.uid().unwrap_or_default();
    if let Some(sender) = workers.get(&uid) {
        // A task that has ended needs no news.
        let _ = sender.send(Some(pod));
        return;
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let finished = matches!(phase, Some("Succeeded" | "Failed"));
    if finished && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let (sender, updates) = watch::channel(Some(pod.clone()));
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    context.enter(uid.clone(), Entry::new(&pod, command_sender));
    workers.insert(uid, sender);
    let worker = Worker::new(context.clone(), pod);
    tokio::spawn(worker.run(updates, commands));
}

/// Tells a pod's task that the pod is gone; always false, for `retain`.
fn forget(sender: &watch::Sender<Option<Pod>>) -> bool {
    let _ = sender.send(None);
    false
}

/// Keeps the hosts files as the endpoints of services change.
async fn watch_slices(context: Arc<Context>) {
    let slices: Api<EndpointSlice> = Api::all(context.client.clone());
    let events = watcher(slices, watcher::Config::default()).backoff(watcher::DefaultBackoff::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(watcher::Event::Apply(slice) | watcher::Event::InitApply(slice)) => context.name_slice(&slice),
            Ok(watcher::Event::Delete(slice)) => context.forget_slice(&slice),
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => false,
        };
        if changed {
            context.write_all_hosts();
        }
    }
}

/// Picks the agent that runs a pod.
pub(crate) fn agent_of<'a>(agents: &'a [NodeAgent], namespace: &str, pod: &str) -> Result<&'a NodeAgent> {
    match agents.iter().find(|agent| agent.knows(namespace, pod)) {
        Some(agent) => Ok(agent),
        None => bail!("no node has a pod {namespace}/{pod}"),
    }
}
