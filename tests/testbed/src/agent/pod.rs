//! The life of one pod: a task that starts, watches, restarts and ends its containers.
//!
//! Owns: the pod's processes, network, folders, and its status in the API server.
//!
//! Must never happen: a status out of order. One task writes it, after each change, before the next one.

mod end;
mod start;
mod status;

use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::container::signal_group;
use super::plan::{self, Step, plan};
use super::probes::Finding;
use super::record::{Kind, Record, State};
use super::refuse::unsupported;
use super::{Context, events};
use crate::network::PodNetwork;

/// Containers and probes of one pod report here; more than a pod can have at once.
const MESSAGES: usize = 256;
/// Pause before what failed is tried again: a volume whose ConfigMap is missing, an API server that is down.
const RETRY: Duration = Duration::from_millis(250);
/// Longer than any case lasts.
const FOREVER: Duration = Duration::from_secs(86_400);

/// What happens to a container, told to its pod's task.
#[derive(Debug)]
enum Message {
    Ended {
        index: usize,
        start: i32,
        end: ContainerStateTerminated,
    },
    Probed {
        index: usize,
        start: i32,
        finding: Finding,
    },
    /// The grace period of an unhealthy container is over.
    Overdue {
        index: usize,
        start: i32,
    },
}

/// What the agent's user asks of a pod.
#[derive(Debug)]
pub(crate) enum Command {
    /// All containers die, and the pod gets a new network, with this address if given.
    NewSandbox { ip: Option<std::net::Ipv4Addr>, done: oneshot::Sender<anyhow::Result<()>> },
}

/// A container that runs now.
#[derive(Debug)]
struct Live {
    start: i32,
    pid: u32,
    probes: Option<AbortHandle>,
}

/// The pod's task.
pub(crate) struct Worker {
    context: Arc<Context>,
    pod: Pod,
    uid: String,
    directory: PathBuf,
    hostname: String,
    restart_policy: String,
    containers: Vec<Container>,
    records: Vec<Record>,
    live: Vec<Option<Live>>,
    network: Option<PodNetwork>,
    prepared: bool,
    failure: Option<(String, String)>,
    start_time: Time,
    published: Option<PodStatus>,
    /// The last thing that was said in an Event, not to be said again.
    complaint: String,
    tasks: Vec<AbortHandle>,
    sender: mpsc::Sender<Message>,
    receiver: mpsc::Receiver<Message>,
    gone: bool,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, pod: Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let inits = spec.init_containers.unwrap_or_default();
        let has_init = !inits.is_empty();
        let kind = |container: &Container| match container.restart_policy.as_deref() {
            Some("Always") => Kind::Sidecar,
            _ => Kind::Init,
        };
        let image = |container: &Container| container.image.clone().unwrap_or_default();
        let records: Vec<Record> = inits
            .iter()
            .map(|container| Record::new(&container.name, &image(container), kind(container), true))
            .chain(spec.containers.iter().map(|c| Record::new(&c.name, &image(c), Kind::Main, has_init)))
            .collect();
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Self {
            directory: context.directory.join("pods").join(&uid),
            hostname: spec.hostname.or_else(|| pod.metadata.name.clone()).unwrap_or_default(),
            restart_policy: spec.restart_policy.unwrap_or_else(|| "Always".to_owned()),
            containers: inits.into_iter().chain(spec.containers).collect(),
            live: records.iter().map(|_| None).collect(),
            records,
            network: None,
            prepared: false,
            failure: None,
            start_time: Time(Timestamp::now()),
            published: None,
            complaint: String::new(),
            tasks: Vec::new(),
            sender,
            receiver,
            gone: false,
            context,
            pod,
            uid,
        }
    }

    /// Runs until the pod is gone. `None` in `updates` means that the API server forgot it.
    pub(crate) async fn run(
        mut self,
        mut updates: watch::Receiver<Option<Pod>>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        self.refuse_unknown_fields().await;
        self.mention_other_users();
        while !self.gone {
            if self.pod.metadata.deletion_timestamp.is_some() {
                self.end(&mut updates).await;
                break;
            }
            let written = self.publish().await;
            let (changed, wake) = if self.failure.is_some() { (false, FOREVER) } else { self.advance().await };
            if changed {
                continue;
            }
            let wake = if written { wake } else { wake.min(RETRY) };
            tokio::select! {
                Some(message) = self.receiver.recv() => self.take_in(message).await,
                Some(command) = commands.recv() => self.obey(command).await,
                changed = updates.changed() => self.update(changed.is_ok(), &mut updates),
                () = sleep(wake) => {}
            }
        }
        self.clean_up().await;
    }

    fn update(&mut self, alive: bool, updates: &mut watch::Receiver<Option<Pod>>) {
        match updates.borrow_and_update().clone() {
            Some(mut pod) if alive => {
                // Our own status is newer than the one that comes back.
                pod.status = self.pod.status.take();
                self.pod = pod;
            }
            _ => self.gone = true,
        }
    }

    async fn refuse_unknown_fields(&mut self) {
        let unknown = unsupported(&self.pod);
        if unknown.is_empty() {
            return;
        }
        let message = format!("the testbed's kubelet does not know {}", unknown.join(", "));
        self.complain("UnsupportedByTestbed", &message).await;
        self.failure = Some(("UnsupportedByTestbed".to_owned(), message));
    }

    /// One user id is mapped in a rootless namespace: every container is root, which is said once.
    fn mention_other_users(&self) {
        static SAID: Once = Once::new();
        let of_pod = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.run_as_user);
        let of_containers =
            self.containers.iter().filter_map(|container| container.security_context.as_ref()?.run_as_user);
        if of_pod.into_iter().chain(of_containers).any(|user| user != 0) {
            SAID.call_once(|| {
                eprintln!("testbed: runAsUser is ignored: containers run as the one user id that is mapped");
            });
        }
    }

    /// Says it in an Event, once.
    async fn complain(&mut self, reason: &str, message: &str) {
        if self.complaint != message {
            message.clone_into(&mut self.complaint);
            events::warn(&self.context.client, &self.context.node, &self.pod, reason, message).await;
        }
    }

    /// Takes the next steps: whether anything changed, and when to look again.
    async fn advance(&mut self) -> (bool, Duration) {
        if !self.prepared {
            if let Err(error) = self.prepare().await {
                self.complain("FailedMount", &format!("{error:#}")).await;
                return (false, RETRY);
            }
            self.prepared = true;
        }
        let now = Timestamp::now();
        let plan = plan(&self.records, &self.restart_policy, now);
        for step in &plan.steps {
            match *step {
                Step::Start(index) => self.start(index).await,
                Step::BackOff(index) => back_off(&mut self.records[index], &self.pod),
                Step::StopSidecars => return (false, self.stop_sidecars()),
            }
        }
        let wake = plan.wake.map_or(FOREVER, |wake| wake.duration_since(now).unsigned_abs());
        (!plan.steps.is_empty(), wake)
    }

    fn stop_sidecars(&self) -> Duration {
        for (record, live) in self.records.iter().zip(&self.live) {
            if let (Kind::Sidecar, Some(live)) = (record.kind, live) {
                super::container::signal(live.pid, Signal::TERM);
            }
        }
        FOREVER
    }

    async fn take_in(&mut self, message: Message) {
        match message {
            Message::Ended { index, start, end } => {
                let current = self.live[index].as_ref().is_some_and(|live| live.start == start);
                if let (true, Some(live)) = (current, self.live[index].take()) {
                    live.probes.inspect(AbortHandle::abort);
                    plan::ended(&mut self.records[index], end, self.context.restart_base);
                    self.context.note(&self.uid, |entry| {
                        if let Some(container) = entry.containers.get_mut(&self.records[index].name) {
                            container.pid = None;
                        }
                    });
                }
            }
            Message::Probed { index, start, finding } => {
                if self.live[index].as_ref().is_some_and(|live| live.start == start) {
                    self.take_in_finding(index, finding).await;
                }
            }
            Message::Overdue { index, start } => {
                if let Some(live) = self.live[index].as_ref().filter(|live| live.start == start) {
                    signal_group(live.pid, Signal::KILL);
                }
            }
        }
    }

    async fn take_in_finding(&mut self, index: usize, finding: Finding) {
        let record = &mut self.records[index];
        match finding {
            Finding::Started => {
                record.started = true;
                record.ready = self.containers[index].readiness_probe.is_none();
            }
            Finding::Ready(ready) => record.ready = ready,
            Finding::Unhealthy(message) => {
                self.complain("Unhealthy", &message).await;
                self.end_container(index);
            }
        }
    }
}

fn back_off(record: &mut Record, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let message = format!("back-off restarting failed container {} of pod {name}", record.name);
    let waiting = State::Waiting { reason: "CrashLoopBackOff".to_owned(), message };
    if let State::Terminated(end) = std::mem::replace(&mut record.state, waiting) {
        record.last = Some(end);
    }
}
