//! Which pod wants what: from the few facts that we keep of a pod to a decision.
//!
//! Pure. Owns the annotations' names and the rules of reference-behaviour "The flow" and of the delivery design:
//! a candidate is an annotated pod whose annotated init container runs, has an id, in a pod that has an address
//! and is not being deleted.

use std::net::IpAddr;
use std::sync::Arc;

use super::ids::{ContainerId, InvalidRoleName, PodRef, RoleName, Timestamp};

/// Annotation that names the AppRole.
pub const ROLE_ANNOTATION: &str = "pod.boostport.com/vault-approle";
/// Annotation that names the init container that waits for the push.
pub const CONTAINER_ANNOTATION: &str = "pod.boostport.com/vault-init-container";

/// What we keep of a pod. A few hundred bytes, because memory may grow with the pods that are starting now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Where it is and which one it is.
    pub reference: PodRef,
    /// `spec.nodeName`, empty until scheduled.
    pub node: Arc<str>,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// `spec.hostNetwork`: its address is the node's.
    pub host_network: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// `status.phase`.
    pub phase: Phase,
    /// `status.podIPs` in order, or `status.podIP` alone.
    pub ips: Vec<IpAddr>,
    /// What its annotations ask for, as written. `None`: it carries neither of them.
    pub wish: Option<Wish>,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Init containers may run.
    Pending,
    /// The containers were started.
    Running,
    /// All containers ended with success.
    Succeeded,
    /// A container failed for good, or the pod was evicted.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

/// What a pod's annotations ask for, and the state of the container that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The value of [`ROLE_ANNOTATION`]; `None` where it is missing.
    pub role: Option<Arc<str>>,
    /// The value of [`CONTAINER_ANNOTATION`]; `None` where it is missing.
    pub container: Option<Arc<str>>,
    /// What the pod's spec has under that name.
    pub target: Target,
}

/// What a pod's spec has under the name in [`CONTAINER_ANNOTATION`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Missing,
    /// An ordinary container.
    Ordinary,
    /// An init container.
    Init {
        /// It has `restartPolicy: Always` (a native sidecar).
        sidecar: bool,
        /// `restartPolicy` of the pod is `Never`: a failed init container is not started again.
        never_restarts: bool,
        /// `status.initContainerStatuses[].restartCount`.
        restarts: u32,
        /// `state` and `lastState` of its status.
        status: ContainerStatus,
    },
}

/// `state` and `lastState` of one container status, both boiled down to what settling needs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ContainerStatus {
    /// The present start.
    pub state: ContainerState,
    /// How the start before it ended, where the kubelet still says so.
    pub last: Option<Termination>,
}

/// `state` of a container status.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ContainerState {
    /// `waiting`, or no status yet.
    #[default]
    Waiting,
    /// `running`. The id may lag behind the state.
    Running {
        /// `containerID`.
        id: Option<ContainerId>,
        /// `startedAt`, in whole seconds.
        since: Option<Timestamp>,
    },
    /// `terminated`.
    Terminated(Termination),
}

/// How one start of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// `containerID`; `None` where it was never created.
    pub id: Option<ContainerId>,
    /// `exitCode`.
    pub exit_code: i32,
    /// `finishedAt`, in whole seconds.
    pub at: Option<Timestamp>,
    /// `message`: what the container wrote to its termination log, cut to [`MAX_TERMINATION_MESSAGE_BYTES`].
    pub message: Option<Arc<str>>,
}

/// As much of a termination message as is kept: `attempt=<id>` fits several times.
pub const MAX_TERMINATION_MESSAGE_BYTES: usize = 256;

/// What is to be done about a pod as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It carries none of our annotations, or is none of our business any more.
    NotOurs,
    /// Nothing yet: the next status change decides.
    Wait,
    /// It will not be served as it stands, and its author should be told.
    Refuse(Refusal),
    /// It waits for a push.
    Deliver(Candidate),
}

/// An init container that waits for a push, and all that an attempt needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The annotated init container.
    pub container: Arc<str>,
    /// Which start of it.
    pub container_id: ContainerId,
    /// The role that it asks for.
    pub role: RoleName,
    /// When it was started, as the kubelet says (whole seconds).
    pub running_since: Option<Timestamp>,
}

/// Why a pod will not be served as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// One of the two annotations is missing.
    #[error("the annotation {0} is missing; a pod needs both of ours")]
    AnnotationMissing(&'static str),
    /// The role's name is none.
    #[error("the annotation {ROLE_ANNOTATION} is no AppRole name: {0}")]
    InvalidRole(#[from] InvalidRoleName),
    /// The annotation names no container of the pod.
    #[error("the annotation {CONTAINER_ANNOTATION} names {0:?}, but the pod has no init container of that name")]
    NoSuchContainer(Arc<str>),
    /// The annotation names an ordinary container.
    #[error(
        "the annotation {CONTAINER_ANNOTATION} names {0:?}, which is an ordinary container; it must be an init container"
    )]
    OrdinaryContainer(Arc<str>),
    /// It ended without success in a pod that restarts nothing.
    #[error(
        "the init container {0:?} ended with exit code {1} and the pod's restartPolicy is Never, so it will not wait for a secret_id again"
    )]
    WillNotRestart(Arc<str>, i32),
    /// A native sidecar that was restarted.
    #[error(
        "the init container {0:?} has restartPolicy Always and was restarted; it is served at its first start only"
    )]
    RestartedSidecar(Arc<str>),
}

/// Decides what is to be done about `pod`.
pub fn decide(pod: &Pod) -> Decision {
    let Some(wish) = &pod.wish else { return Decision::NotOurs };
    if pod.deleting || pod.phase != Phase::Pending {
        return Decision::NotOurs;
    }
    match candidate(pod, wish) {
        Ok(Some(candidate)) => Decision::Deliver(candidate),
        Ok(None) => Decision::Wait,
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// Whether what the annotation names is a native sidecar.
pub fn is_sidecar(pod: &Pod) -> bool {
    matches!(pod.wish, Some(Wish { target: Target::Init { sidecar: true, .. }, .. }))
}

fn candidate(pod: &Pod, wish: &Wish) -> Result<Option<Candidate>, Refusal> {
    let role = wish.role.as_deref().ok_or(Refusal::AnnotationMissing(ROLE_ANNOTATION))?;
    let container = wish.container.clone().ok_or(Refusal::AnnotationMissing(CONTAINER_ANNOTATION))?;
    let role = RoleName::parse(role)?;
    let (sidecar, never_restarts, restarts, status) = match &wish.target {
        Target::Missing => return Err(Refusal::NoSuchContainer(container)),
        Target::Ordinary => return Err(Refusal::OrdinaryContainer(container)),
        Target::Init { sidecar, never_restarts, restarts, status } => (*sidecar, *never_restarts, *restarts, status),
    };
    match &status.state {
        ContainerState::Waiting => Ok(None),
        ContainerState::Terminated(end) if end.exit_code != 0 && never_restarts && !sidecar => {
            Err(Refusal::WillNotRestart(container, end.exit_code))
        }
        ContainerState::Terminated(_) => Ok(None),
        ContainerState::Running { .. } if sidecar && restarts > 0 => Err(Refusal::RestartedSidecar(container)),
        ContainerState::Running { id, since } => Ok(id
            .clone()
            .filter(|_| !pod.ips.is_empty())
            .map(|container_id| Candidate { container, container_id, role, running_since: *since })),
    }
}

/// What became of one start of the annotated init container, as its pod tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs still, or its status lags behind.
    Open,
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// Its termination message.
        message: Option<Arc<str>>,
        /// When, by the node's clock, in whole seconds.
        at: Option<Timestamp>,
        /// A later start is seen, which runs since then, by the node's clock, in whole seconds. Zero where its status
        /// does not tell.
        next: Option<Timestamp>,
    },
    /// Its pod's containers were started: it must have ended with success, although no status says so.
    Passed,
    /// Gone without a word: the pod is another or none, or its status knows another start and not this one.
    Lost,
}

impl Fate {
    /// What it is, in a word, without what the container has said.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Exited { code: 0, .. } => "exited_well",
            Self::Exited { .. } => "failed",
            Self::Passed => "passed",
            Self::Lost => "lost",
        }
    }
}

/// What became of the start `id` of the annotated init container of the pod `reference`, given the pod that is
/// now found under that name (`None`: none is).
pub fn fate(found: Option<&Pod>, reference: &PodRef, id: &ContainerId) -> Fate {
    let Some(pod) = found.filter(|pod| pod.reference.uid == reference.uid) else { return Fate::Lost };
    let status = match pod.wish.as_ref().map(|wish| &wish.target) {
        Some(Target::Init { status, .. }) => Some(status),
        _ => None,
    };
    if let Some(status) = status
        && let Some(end) = termination_of(status, id)
    {
        let (code, message, at) = (end.exit_code, end.message.clone(), end.at);
        return Fate::Exited { code, message, at, next: start_after(status, id) };
    }
    if matches!(pod.phase, Phase::Running | Phase::Succeeded) {
        return Fate::Passed;
    }
    match status.map(|status| &status.state) {
        Some(ContainerState::Running { id: Some(now), .. }) if now == id => Fate::Open,
        // A status without an id says nothing about which start it means: the next one will.
        Some(ContainerState::Running { id: None, .. } | ContainerState::Waiting) if pod.phase == Phase::Pending => {
            Fate::Open
        }
        _ => Fate::Lost,
    }
}

fn termination_of<'a>(status: &'a ContainerStatus, id: &ContainerId) -> Option<&'a Termination> {
    let current = match &status.state {
        ContainerState::Terminated(end) => Some(end),
        _ => None,
    };
    current.into_iter().chain(&status.last).find(|end| end.id.as_ref() == Some(id))
}

/// Since when another start than `id` is there.
fn start_after(status: &ContainerStatus, id: &ContainerId) -> Option<Timestamp> {
    match &status.state {
        ContainerState::Running { id: now, since } if now.as_ref() != Some(id) => Some(since.unwrap_or_default()),
        ContainerState::Terminated(end) if end.id.as_ref() != Some(id) => Some(Timestamp::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
