//! What the agent knows about one container, and the pod's status that follows from it. Pure.
//!
//! Owns: the order of states that a real kubelet shows (see the tests).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Which part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    /// One of `containers`.
    Main,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Waiting { reason: String, message: String },
    Running { since: Time },
    Terminated(ContainerStateTerminated),
}

/// One container and its history.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) last: Option<ContainerStateTerminated>,
    /// How often it was started, in every sandbox of the pod.
    pub(crate) starts: i32,
    /// Ends in a row after short runs: the back-off grows with them.
    pub(crate) crashes: u32,
    /// Not to be started before.
    pub(crate) due: Option<Timestamp>,
    pub(crate) id: Option<String>,
    /// Its startup probe has succeeded, or it has none.
    pub(crate) started: bool,
    /// Its readiness probe says yes, or it has none and runs.
    pub(crate) ready: bool,
}

/// What a pod's status says beside its containers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) host_ip: IpAddr,
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) start_time: Time,
    /// The pod was refused or cannot go on: reason and message.
    pub(crate) failure: Option<(String, String)>,
    pub(crate) restart_policy: String,
}

impl Record {
    pub(crate) fn new(name: &str, image: &str, kind: Kind, has_init: bool) -> Self {
        let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            kind,
            state: State::Waiting { reason: reason.to_owned(), message: String::new() },
            last: None,
            starts: 0,
            crashes: 0,
            due: None,
            id: None,
            started: false,
            ready: false,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// An init container that lets the next one start.
    pub(crate) fn is_initialized(&self) -> bool {
        match (&self.state, self.kind) {
            (State::Terminated(end), Kind::Init) => end.exit_code == 0,
            (State::Running { .. }, Kind::Sidecar) => self.started,
            _ => false,
        }
    }

    /// Whether it ended and stays so.
    pub(crate) fn is_final(&self, restart_policy: &str) -> bool {
        let State::Terminated(end) = &self.state else {
            return false;
        };
        match (self.kind, restart_policy) {
            (Kind::Sidecar, _) => false,
            (Kind::Init, "Never") | (Kind::Main, "Never") => true,
            (Kind::Init, _) | (Kind::Main, "OnFailure") => end.exit_code == 0,
            (Kind::Main, _) => false,
        }
    }

    fn status(&self) -> ContainerStatus {
        let state = match &self.state {
            State::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some(reason.clone()),
                    message: (!message.is_empty()).then(|| message.clone()),
                }),
                ..ContainerState::default()
            },
            State::Running { since } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(since.clone()) }),
                ..ContainerState::default()
            },
            State::Terminated(end) => ContainerState { terminated: Some(end.clone()), ..ContainerState::default() },
        };
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: if self.id.is_some() { format!("testbed/{}", self.image) } else { String::new() },
            container_id: self.id.clone(),
            // An init container is ready once it has succeeded, not while it runs.
            ready: if self.kind == Kind::Init { self.is_initialized() } else { self.is_running() && self.ready },
            started: Some(self.is_running() && self.started),
            restart_count: (self.starts - 1).max(0),
            state: Some(state),
            last_state: Some(ContainerState { terminated: self.last.clone(), ..ContainerState::default() }),
            ..ContainerStatus::default()
        }
    }
}

/// `status.phase`, by the kubelet's rules.
pub(crate) fn phase(records: &[Record], restart_policy: &str) -> &'static str {
    let (mains, inits): (Vec<&Record>, Vec<&Record>) = records.iter().partition(|record| record.kind == Kind::Main);
    let failed =
        |record: &&&Record| record.kind == Kind::Init && record.is_final(restart_policy) && !record.is_initialized();
    if inits.iter().any(|record| failed(&record)) {
        return "Failed";
    }
    let any_started = mains.iter().any(|record| record.id.is_some());
    if !any_started && !inits.iter().all(|record| record.is_initialized()) {
        return "Pending";
    }
    if mains.iter().any(|record| record.id.is_none()) {
        return "Pending";
    }
    if !mains.iter().all(|record| record.is_final(restart_policy)) {
        return "Running";
    }
    let succeeded = |record: &&Record| matches!(&record.state, State::Terminated(end) if end.exit_code == 0);
    if mains.iter().all(succeeded) { "Succeeded" } else { "Failed" }
}

/// The whole status, as a kubelet would write it now.
pub(crate) fn pod_status(pod: &Pod, frame: &Frame, records: &[Record], now: &Time) -> PodStatus {
    let (mains, inits): (Vec<&Record>, Vec<&Record>) = records.iter().partition(|record| record.kind == Kind::Main);
    let phase = match frame.failure {
        Some(_) => "Failed",
        None => phase(records, &frame.restart_policy),
    };
    let initialized = phase == "Running" || phase == "Succeeded" || inits.iter().all(|record| record.is_initialized());
    let ready = phase == "Running" && mains.iter().all(|record| record.is_running() && record.ready);
    let wanted = [
        ("PodReadyToStartContainers", !frame.pod_ips.is_empty(), ""),
        ("Initialized", initialized, "ContainersNotInitialized"),
        ("Ready", ready, "ContainersNotReady"),
        ("ContainersReady", ready, "ContainersNotReady"),
    ];
    let old = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut conditions: Vec<PodCondition> =
        wanted.iter().map(|(kind, yes, reason)| condition(kind, *yes, reason, old, now)).collect();
    // The scheduler's condition and whatever others added is not ours to drop.
    conditions.extend(old.iter().filter(|c| !wanted.iter().any(|(kind, ..)| *kind == c.type_)).cloned());
    let statuses = |records: &[&Record]| -> Option<Vec<ContainerStatus>> {
        (!records.is_empty()).then(|| records.iter().map(|record| record.status()).collect())
    };
    let ips: Vec<PodIP> = frame.pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        host_ip: Some(frame.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: frame.host_ip.to_string() }]),
        pod_ip: ips.first().map(|first| first.ip.clone()),
        pod_ips: (!ips.is_empty()).then_some(ips),
        start_time: Some(frame.start_time.clone()),
        init_container_statuses: statuses(&inits),
        container_statuses: statuses(&mains),
        qos_class: pod.status.as_ref().and_then(|status| status.qos_class.clone()),
        reason: frame.failure.as_ref().map(|(reason, _)| reason.clone()),
        message: frame.failure.as_ref().map(|(_, message)| message.clone()),
        ..PodStatus::default()
    }
}

fn condition(kind: &str, yes: bool, reason: &str, old: &[PodCondition], now: &Time) -> PodCondition {
    let status = if yes { "True" } else { "False" };
    let same = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!yes && !reason.is_empty()).then(|| reason.to_owned()),
        last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(now.clone())),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests;
