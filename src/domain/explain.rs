//! Why a pod has, or has not, its token: from what is known of it to one conclusion.
//!
//! Pure. Owns the order in which causes are looked for: what the pod's author can see comes first, then the cluster of
//! controllers, then Vault, then the delivery itself. Must never name a secret: attempts are told by their ids.

mod facts;
mod wording;

use std::time::Duration;

pub use self::facts::{Fact, facts};
use super::announcement::Announcement;
use super::ids::{AttemptId, ContainerId, InstanceKey};
use super::ledger::{AttemptState, Entry, Verdict};
use super::limits::Limit;
use super::pod::{Candidate, ContainerState, ContainerStatus, Decision, Phase, Pod, Refusal, Target, decide};
use super::pod_name::PodName;

/// All that one replica knows of a pod.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The pod that was asked for.
    pub name: &'a PodName,
    /// `kubernetes.watchNamespace` takes its namespace.
    pub watched: bool,
    /// What the API server has under that name.
    pub found: Found<'a>,
    /// What the ledger has of it.
    pub ledger: &'a [(InstanceKey, Entry)],
    /// What this replica is in its cluster.
    pub replica: Replica,
    /// Why Vault cannot be used, as this replica sees it.
    pub vault: Option<String>,
    /// Why the watch on pods is not up to date.
    pub watch: Option<String>,
    /// The leader's own view of it; only the leader has one.
    pub work: Option<Work>,
    /// What this replica told the pod's author last, of this start of its init container.
    pub told: Option<Announcement>,
}

/// What the API server has under a pod's name, by a fresh read.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// This pod.
    Pod(&'a Pod),
    /// Nothing.
    Missing,
    /// It did not say, and why.
    Unreadable(String),
}

/// What the replica that is asked is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replica {
    /// It is in no cluster yet, and why.
    Forming(Vec<String>),
    /// It knows no leader.
    Leaderless,
    /// It was elected, and a majority of the voters does not answer any more.
    WithoutQuorum,
    /// It delivers.
    Leads,
    /// Another one delivers; which, in words for people.
    Follows(String),
}

/// A pod in the leader's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// How far it is; `None`: nothing of it is to be served as it is now.
    pub stage: Option<Stage>,
    /// An attempt is under way.
    pub at_work: bool,
    /// Until its next turn.
    pub next: Option<Duration>,
    /// Since this leader saw the init container running.
    pub seen_for: Option<Duration>,
    /// Dials in a row that failed; unknown while an attempt is under way.
    pub dial_failures: u32,
    /// Attempts in a row that came to nothing after Vault had issued; unknown while an attempt is under way.
    pub attempt_failures: u32,
    /// Starts of the init container in a row that ended without a delivery.
    pub crashes: u32,
    /// What its role, or everybody, waits for, and until when it is asked again.
    pub gate: Option<(Announcement, Duration)>,
    /// Why its address cannot be dialled now.
    pub address: Option<AddressTaken>,
    /// The limit that keeps it waiting.
    pub limit: Option<Limit>,
    /// Who answered the last push belongs to another pod; unknown while an attempt is under way.
    pub wrong_pod: bool,
}

/// Why an address cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressTaken {
    /// Another live pod shows it too.
    Shared(String),
    /// Another pod is being served there.
    Busy,
}

/// How far the leader is with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its (next) attempt.
    Waiting,
    /// It has what it may have.
    Settled,
    /// There is no further attempt.
    Closed,
}

/// The answer: one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// No such pod, and the ledger knows of none.
    NotFound,
    /// No such pod any more; what became of it, where the ledger tells.
    Deleted(Option<(AttemptId, AttemptState)>),
    /// The API server did not say.
    Unreadable(String),
    /// `kubernetes.watchNamespace` does not take its namespace.
    NotWatched,
    /// It does not ask for a token.
    NotAnnotated,
    /// Its annotations, or its init container, cannot be served.
    Refused(Refusal),
    /// It is being deleted.
    Deleting,
    /// It is served; by which attempt, where the ledger still knows.
    Delivered(Option<AttemptId>),
    /// It failed as a whole, or its node cannot be asked.
    PodFailed(Phase),
    /// Its init container was not started yet.
    InitWaiting,
    /// Its init container ended without success, with that exit code.
    InitFailed(i32),
    /// Its init container runs, and its status has no address yet.
    NoAddress,
    /// Its init container runs, and its status has no container id yet.
    NoContainerId,
    /// This replica is in no cluster, and why.
    NoCluster(Vec<String>),
    /// Nobody leads.
    NoLeader,
    /// The leader has no majority.
    NoQuorum,
    /// It took its `secret_id`, and its init container still runs.
    DeliveredStillRuns(AttemptId),
    /// It says that it took a `secret_id` before, of an attempt that the ledger does not know as taken.
    DoneEarlier,
    /// It said that it was done, and is served again.
    Reopened,
    /// Its init container refused the push for good.
    RefusedForGood(Option<String>),
    /// Vault issues nothing for its role.
    RoleRefused(String),
    /// Vault issues nothing for anybody.
    VaultUnavailable(String),
    /// The ledger takes no further claims.
    LedgerFull,
    /// Another live pod shows its address.
    AddressShared(String),
    /// Who answers at its address belongs to another pod.
    WrongPod,
    /// Its wrapping token was used by somebody else.
    TokenUsedByAnother(AttemptId),
    /// It shares its node's network, and cannot be reached there.
    HostNetworkClash,
    /// Its init container does not answer.
    Unreachable(Option<String>),
    /// The last push came to nothing.
    Retrying(Option<String>),
    /// It crash-loops, and so it waits.
    CrashLoop(u32),
    /// A limit keeps it waiting.
    Limited(Limit),
    /// It is being served now.
    Delivering,
    /// It is next, soon.
    Queued,
    /// This replica leads, and its watch has not shown the pod.
    NotSeen(Option<String>),
    /// Only the leader knows; which it is, and what the ledger has of it.
    AskTheLeader(String, Option<AttemptState>),
}

/// What a conclusion means for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It has its token.
    Served,
    /// It will have it, unless something happens.
    OnItsWay,
    /// It waits for something that has to be mended.
    Stuck,
    /// This replica cannot tell.
    Unknown,
}

/// Finds the cause.
pub fn conclude(facts: &Facts<'_>) -> Conclusion {
    let pod = match &facts.found {
        Found::Pod(pod) => pod,
        Found::Missing if facts.ledger.is_empty() => return Conclusion::NotFound,
        Found::Missing => return Conclusion::Deleted(last_attempt(facts.ledger)),
        Found::Unreadable(_) if !facts.watched => return Conclusion::NotWatched,
        Found::Unreadable(cause) => return Conclusion::Unreadable(cause.clone()),
    };
    if pod.wish.is_none() {
        return Conclusion::NotAnnotated;
    }
    if !facts.watched {
        return Conclusion::NotWatched;
    }
    if pod.deleting {
        return Conclusion::Deleting;
    }
    match pod.phase {
        Phase::Pending => {}
        Phase::Running | Phase::Succeeded => return Conclusion::Delivered(accepted(facts.ledger)),
        Phase::Failed | Phase::Unknown => return Conclusion::PodFailed(pod.phase),
    }
    match decide(pod) {
        Decision::Refuse(refusal) => Conclusion::Refused(refusal),
        Decision::Deliver(candidate) => waiting(facts, pod, &candidate),
        Decision::Wait | Decision::NotOurs => not_yet(facts, pod),
    }
}

/// An init container that cannot be pushed to as it is now.
fn not_yet(facts: &Facts<'_>, pod: &Pod) -> Conclusion {
    let Some(ContainerStatus { state, last }) = status(pod) else { return Conclusion::InitWaiting };
    match (state, last) {
        (ContainerState::Terminated(end), _) if end.exit_code == 0 => {
            let entry = end.id.as_ref().and_then(|id| entry_of(facts.ledger, id));
            Conclusion::Delivered(entry.and_then(Entry::accepted).cloned())
        }
        (ContainerState::Terminated(end), _) => Conclusion::InitFailed(end.exit_code),
        // It waits for its next start.
        (ContainerState::Waiting, Some(end)) if end.exit_code != 0 => Conclusion::InitFailed(end.exit_code),
        (ContainerState::Waiting, _) => Conclusion::InitWaiting,
        (ContainerState::Running { .. }, _) if pod.ips.is_empty() => Conclusion::NoAddress,
        (ContainerState::Running { .. }, _) => Conclusion::NoContainerId,
    }
}

/// An init container that waits for a push.
fn waiting(facts: &Facts<'_>, pod: &Pod, candidate: &Candidate) -> Conclusion {
    let entry = entry_of(facts.ledger, &candidate.container_id);
    let served_again = facts.work.as_ref().is_some_and(|work| work.stage == Some(Stage::Waiting));
    if let Some(attempt) = entry.and_then(Entry::accepted).filter(|_| !served_again) {
        return Conclusion::DeliveredStillRuns(attempt.clone());
    }
    if matches!(facts.told, Some(Announcement::DeliveredEarlier)) && !served_again {
        return Conclusion::DoneEarlier;
    }
    match &facts.replica {
        Replica::Forming(reasons) => return Conclusion::NoCluster(reasons.clone()),
        Replica::Leaderless => return Conclusion::NoLeader,
        Replica::WithoutQuorum => return Conclusion::NoQuorum,
        Replica::Leads | Replica::Follows(_) => {}
    }
    let closed = facts.work.as_ref().is_some_and(|work| work.stage == Some(Stage::Closed));
    if closed || (entry.is_some_and(|entry| entry.closed.is_some()) && !served_again) {
        let cause = match &facts.told {
            Some(Announcement::PushRefused(cause)) => Some(cause.clone()),
            _ => None,
        };
        return Conclusion::RefusedForGood(cause);
    }
    if let Some((why, _)) = facts.work.as_ref().and_then(|work| work.gate.as_ref()) {
        match why {
            Announcement::RoleRefused(cause) => return Conclusion::RoleRefused(cause.clone()),
            Announcement::VaultUnavailable(cause) => return Conclusion::VaultUnavailable(cause.clone()),
            _ => {}
        }
    }
    if let Some(cause) = &facts.vault {
        return Conclusion::VaultUnavailable(cause.clone());
    }
    match (&facts.replica, &facts.work) {
        (Replica::Follows(leader), _) => {
            let state = entry.and_then(|entry| entry.attempts.last()).map(|attempt| attempt.state);
            Conclusion::AskTheLeader(leader.clone(), state)
        }
        (_, None) => Conclusion::NotSeen(facts.watch.clone()),
        (_, Some(work)) => in_work(facts, pod, work),
    }
}

/// A pod that the leader works on, and that neither the cluster nor Vault keeps waiting.
fn in_work(facts: &Facts<'_>, pod: &Pod, work: &Work) -> Conclusion {
    match &work.address {
        Some(AddressTaken::Shared(address)) => return Conclusion::AddressShared(address.clone()),
        Some(AddressTaken::Busy) if pod.host_network => return Conclusion::HostNetworkClash,
        Some(AddressTaken::Busy) | None => {}
    }
    let unreached =
        |cause| if pod.host_network { Conclusion::HostNetworkClash } else { Conclusion::Unreachable(cause) };
    match &facts.told {
        Some(Announcement::TokenUsedByAnother(attempt)) => return Conclusion::TokenUsedByAnother(attempt.clone()),
        Some(Announcement::LedgerFull) => return Conclusion::LedgerFull,
        // Its word stands until a dial succeeds; while one is under way, nobody knows better.
        Some(Announcement::Unreachable(cause)) if work.dial_failures > 0 || work.at_work => {
            return unreached(Some(cause.clone()));
        }
        // Its author is not told: most of the time the pod is gone, and its status does not say so yet.
        _ if work.wrong_pod => return Conclusion::WrongPod,
        Some(Announcement::Retrying(cause)) => return Conclusion::Retrying(Some(cause.clone())),
        Some(Announcement::Reopened) => return Conclusion::Reopened,
        _ => {}
    }
    if work.dial_failures > 0 {
        return unreached(None);
    }
    if work.at_work {
        return Conclusion::Delivering;
    }
    if work.attempt_failures > 0 {
        return Conclusion::Retrying(None);
    }
    if let Some(limit) = work.limit {
        return Conclusion::Limited(limit);
    }
    if work.crashes > 1 {
        return Conclusion::CrashLoop(work.crashes);
    }
    Conclusion::Queued
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    match pod.wish.as_ref().map(|wish| &wish.target) {
        Some(Target::Init { status, .. }) => Some(status),
        _ => None,
    }
}

/// The newest generation of a start.
fn entry_of<'a>(ledger: &'a [(InstanceKey, Entry)], id: &ContainerId) -> Option<&'a Entry> {
    let same = ledger.iter().filter(|(key, _)| key.container_id == *id);
    same.max_by_key(|(key, _)| key.generation).map(|(_, entry)| entry)
}

fn accepted(ledger: &[(InstanceKey, Entry)]) -> Option<AttemptId> {
    ledger.iter().find_map(|(_, entry)| entry.accepted().cloned())
}

/// The attempt that tells most of a pod that is gone: one that was taken, else the last one.
fn last_attempt(ledger: &[(InstanceKey, Entry)]) -> Option<(AttemptId, AttemptState)> {
    let taken = accepted(ledger).map(|id| (id, AttemptState::Over(Verdict::Accepted)));
    let last = || ledger.iter().filter_map(|(_, entry)| entry.attempts.last()).next_back();
    taken.or_else(|| last().map(|attempt| (attempt.id.clone(), attempt.state)))
}

impl Conclusion {
    /// What it means for the pod.
    pub fn outlook(&self) -> Outlook {
        match self {
            Self::Delivered(_) | Self::DeliveredStillRuns(_) | Self::DoneEarlier => Outlook::Served,
            Self::InitWaiting
            | Self::NoAddress
            | Self::NoContainerId
            | Self::Reopened
            | Self::Delivering
            | Self::Limited(_)
            | Self::Queued => Outlook::OnItsWay,
            Self::Unreadable(_) | Self::AskTheLeader(..) => Outlook::Unknown,
            _ => Outlook::Stuck,
        }
    }
}

#[cfg(test)]
mod tests;
