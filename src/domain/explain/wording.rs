//! Conclusions in words: one sentence that names the cause, and what to do.
//!
//! Owns the labels for programs (`kind`), which are never renamed.

use super::{Conclusion, Outlook};
use crate::domain::ledger::{AttemptState, MAX_ENTRIES, TOMBSTONE_AGE, Verdict};
use crate::domain::pod::{CONTAINER_ANNOTATION, Phase, ROLE_ANNOTATION};
use crate::domain::pod_name::PodName;

impl Outlook {
    /// A name for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::OnItsWay => "onItsWay",
            Self::Stuck => "stuck",
            Self::Unknown => "unknown",
        }
    }
}

impl Conclusion {
    /// A name for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "notFound",
            Self::Deleted(_) => "deleted",
            Self::Unreadable(_) => "unreadable",
            Self::NotWatched => "namespaceNotWatched",
            Self::NotAnnotated => "notAnnotated",
            Self::Refused(_) => "podRefused",
            Self::Deleting => "deleting",
            Self::Delivered(_) => "delivered",
            Self::PodFailed(_) => "podFailed",
            Self::InitWaiting => "initContainerNotStarted",
            Self::InitFailed(_) => "initContainerFailed",
            Self::NoAddress => "noAddress",
            Self::NoContainerId => "noContainerId",
            Self::NoCluster(_) => "noCluster",
            Self::NoLeader => "noLeader",
            Self::NoQuorum => "noQuorum",
            Self::DeliveredStillRuns(_) => "deliveredStillRuns",
            Self::DoneEarlier => "doneEarlier",
            Self::Reopened => "servedAgain",
            Self::RefusedForGood(_) => "pushRefused",
            Self::RoleRefused(_) => "roleRefused",
            Self::VaultUnavailable(_) => "vaultUnavailable",
            Self::LedgerFull => "ledgerFull",
            Self::AddressShared(_) => "addressShared",
            Self::WrongPod => "wrongPod",
            Self::TokenUsedByAnother(_) => "tokenUsedByAnother",
            Self::HostNetworkClash => "hostNetworkClash",
            Self::Unreachable(_) => "unreachable",
            Self::Retrying(_) => "retrying",
            Self::CrashLoop(_) => "crashLoop",
            Self::Limited(_) => "limited",
            Self::Delivering => "delivering",
            Self::Queued => "queued",
            Self::NotSeen(_) => "notSeen",
            Self::AskTheLeader(..) => "askTheLeader",
        }
    }

    /// The cause, in one sentence.
    pub fn sentence(&self, name: &PodName) -> String {
        self.of_the_pod(name).or_else(|| self.of_the_servers(name)).unwrap_or_else(|| self.of_the_delivery(name))
    }

    /// Of what can be seen of the pod alone.
    fn of_the_pod(&self, name: &PodName) -> Option<String> {
        Some(match self {
            Self::NotFound => format!("There is no pod {name}."),
            Self::Deleted(None) => format!("The pod {name} was deleted."),
            Self::Deleted(Some((attempt, state))) => {
                format!("The pod {name} was deleted; attempt {attempt} {}.", fate(*state))
            }
            Self::Unreadable(cause) => {
                format!("How {name} is cannot be told, because it cannot be read: {}.", cause_of(cause))
            }
            Self::NotWatched => format!(
                "{name} gets no token, because kubernetes.watchNamespace does not take the namespace {}.",
                name.namespace()
            ),
            Self::NotAnnotated => format!("{name} gets no token, because it carries none of our annotations."),
            Self::Refused(refusal) => format!("{name} gets no token, because {refusal}."),
            Self::Deleting => format!("{name} gets no token any more, because it is being deleted."),
            Self::Delivered(Some(attempt)) => format!("{name} has its token, by attempt {attempt}."),
            Self::Delivered(None) => format!(
                "{name} has passed its init container with success, and the ledger, which remembers for {} minutes, has no \
                 delivery to it.",
                TOMBSTONE_AGE.as_secs() / 60
            ),
            Self::PodFailed(Phase::Failed) => format!("{name} gets no token, because the pod has failed."),
            Self::PodFailed(_) => format!("{name} gets no token now, because its node does not say how it is."),
            Self::InitWaiting => format!("{name} has no token yet, because its init container has not been started."),
            Self::InitFailed(code) => format!(
                "{name} has no token, because its init container ended with exit code {code}{}.",
                meaning_of(*code).map_or_else(String::new, |meaning| format!(": {meaning}"))
            ),
            Self::NoAddress => format!("{name} has no token yet, because its status shows no address."),
            Self::NoContainerId => {
                format!("{name} has no token yet, because its status shows no id of the running init container.")
            }
            _ => return None,
        })
    }

    /// Of the controllers and Vault.
    fn of_the_servers(&self, name: &PodName) -> Option<String> {
        Some(match self {
            Self::NoCluster(reasons) => format!(
                "{name} waits, because this replica is in no cluster yet{}.",
                reasons.first().map_or_else(String::new, |reason| format!(": {}", cause_of(reason)))
            ),
            Self::NoLeader => format!("{name} waits, because no replica leads."),
            Self::NoQuorum => {
                format!("{name} waits, because the leader has lost its quorum: most voters do not answer it.")
            }
            Self::RoleRefused(cause) => {
                format!("{name} waits, because Vault issues nothing for its AppRole: {}.", cause_of(cause))
            }
            Self::VaultUnavailable(cause) => {
                format!("{name} waits, because Vault issues nothing now: {}.", cause_of(cause))
            }
            Self::LedgerFull => {
                format!("{name} waits, because the ledger is full: {MAX_ENTRIES} deliveries are unsettled.")
            }
            _ => return None,
        })
    }

    /// Of the delivery itself.
    fn of_the_delivery(&self, name: &PodName) -> String {
        match self {
            Self::DeliveredStillRuns(attempt) => {
                format!("{name} took its secret_id by attempt {attempt}, and its init container has not ended yet.")
            }
            Self::DoneEarlier => {
                format!("{name} gets no further push, because its init container says that it took a secret_id before.")
            }
            Self::Reopened => {
                format!("{name} is served again: its init container had said that it was done, and still runs.")
            }
            Self::RefusedForGood(Some(cause)) => format!(
                "{name} gets no token, because its init container refused the push for good: {}.",
                cause_of(cause)
            ),
            // The ledger knows of both that they are over, and not which it was.
            Self::RefusedForGood(None) => format!(
                "{name} gets no further push, because its init container refused the last one for good, or had taken one \
                 before."
            ),
            Self::AddressShared(address) => {
                format!("{name} waits, because another live pod shows its address {address} too.")
            }
            Self::WrongPod => {
                format!("{name} waits, because the init container that answers at its address belongs to another pod.")
            }
            Self::TokenUsedByAnother(attempt) => format!(
                "{name} has no token, because somebody else used the wrapping token of attempt {attempt} before its init \
                 container could."
            ),
            Self::HostNetworkClash => format!(
                "{name} waits, because nothing of it answers on port 50000 of its node, whose network it shares with every \
                 other process there."
            ),
            Self::Unreachable(cause) => format!(
                "{name} waits, because its init container does not answer on port 50000{}{}.",
                told(cause.as_deref()),
                cause.as_deref().map_or("", in_clear)
            ),
            Self::Retrying(cause) => {
                format!("{name} has no token yet, because the last push came to nothing{}.", told(cause.as_deref()))
            }
            Self::CrashLoop(crashes) => format!(
                "{name} waits, because {crashes} starts of its init container in a row ended without a delivery, and the \
                 next one is served later."
            ),
            Self::Limited(limit) => format!("{name} waits for its turn: {}.", limit.reason().trim_end_matches('?')),
            Self::Delivering => format!("{name} is being served now."),
            Self::NotSeen(cause) => format!(
                "{name} waits, because this replica, which leads, has not seen it running{}.",
                told(cause.as_deref())
            ),
            Self::AskTheLeader(leader, state) => format!(
                "{name} waits for the leader, {leader}{}.",
                state.map_or_else(String::new, |state| format!("; its last attempt {}", fate(state)))
            ),
            // What is left is next in the queue; the pod's own causes were told before.
            _ => format!("{name} has no token yet; it is in the queue, and its turn comes soon."),
        }
    }

    /// What to do about it: nothing, where it goes on by itself.
    pub fn advice(&self, name: &PodName) -> Vec<String> {
        let say = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        match self {
            Self::NotFound => say(&["Look for it: kubectl get pods --all-namespaces."]),
            Self::Unreadable(cause) => remedy_of(cause).into_iter().collect(),
            Self::NotWatched => say(&[
                "Put the namespace into kubernetes.watchNamespace, or create the pod in a namespace that is watched. More \
                 than one takes \"~\" and a regular expression.",
            ]),
            Self::NotAnnotated => vec![format!(
                "Annotate the pod itself (of a Deployment: its template) with {ROLE_ANNOTATION} and {CONTAINER_ANNOTATION}."
            )],
            Self::Refused(_) => say(&["Correct the pod, or the template that it is made from, and create it anew."]),
            Self::PodFailed(_) => {
                say(&["kubectl describe pod tells why; a controller such as a Deployment replaces it."])
            }
            Self::InitWaiting => say(&[
                "kubectl describe pod tells what it waits for: a node, an image, a volume, or an init container before it.",
            ]),
            Self::InitFailed(code) => self.after_an_exit(*code),
            Self::NoCluster(reasons) => {
                let mut all: Vec<String> = reasons.iter().skip(1).cloned().collect();
                all.push(
                    "See kubernetes-vault status, and \"While a cluster forms\" in docs/operations.md.".to_owned(),
                );
                all
            }
            Self::NoLeader | Self::NoQuorum => say(&[
                "Bring the other replicas back; if most are lost for good: \"Lost quorum\" in docs/operations.md.",
            ]),
            Self::RefusedForGood(_) => say(&[
                "Correct what the init container's log names, and delete the pod: this start of it is not pushed to again.",
            ]),
            Self::RoleRefused(cause) | Self::VaultUnavailable(cause) => remedy_of(cause)
                .into_iter()
                .chain(["kubernetes-vault check looks at Vault, the token and the roles.".to_owned()])
                .collect(),
            Self::LedgerFull => {
                say(&["Look at kubernetes-vault status: pods that never settle, or a quorum that is lost."])
            }
            Self::AddressShared(_) | Self::WrongPod => say(&[
                "Look for the other pod by kubectl get pods -o wide: this one is served once the address is its own alone.",
            ]),
            Self::TokenUsedByAnother(_) => say(&[
                "This may be an attack: look for the wrapping token's use in Vault's audit log.",
                "Allow port 50000 of the pods from the controller alone, by a NetworkPolicy.",
            ]),
            Self::HostNetworkClash => {
                say(&["Do without hostNetwork, or run one such pod on a node: two of them want the same port 50000."])
            }
            Self::Unreachable(_) => say(&[
                "Does a NetworkPolicy or a service mesh keep the controller from port 50000 of the pod?",
                "Is it the init container of kubernetes-vault that the annotation names? Its log tells what it waits for.",
            ]),
            Self::Retrying(_) => {
                say(&["The init container's log tells its side. A fresh secret_id follows by itself."])
            }
            Self::CrashLoop(_) => say(&["The init container's log, and its exit code, tell why it ends."]),
            Self::Limited(_) => {
                say(&["Raise the limit in the section limits, where Vault and the cluster can bear more."])
            }
            Self::NotSeen(_) => {
                say(&["kubernetes-vault check tells whether the service account may list and watch pods."])
            }
            Self::AskTheLeader(leader, _) => vec![format!(
                "Only the leader knows its turn, its retries and the last error: type kubernetes-vault explain pod {name} \
                 in {leader}."
            )],
            _ => Vec::new(),
        }
    }

    fn after_an_exit(&self, code: i32) -> Vec<String> {
        let what = match code {
            2 => "Correct the variables of the init container; its log names them.",
            3 => {
                "Its next start is served anew. If it ends so again: does a NetworkPolicy, a mesh, or the size of TIMEOUT \
                  stand in between? The Events of the pod tell what the controller met."
            }
            4 => "Mount the volume at CREDENTIALS_PATH writable in the init container.",
            5 => "Something else listens on port 50000: another pod with hostNetwork on that node, or a sidecar.",
            6 => "Compare VAULT_ROLE_ID with the role_id of the AppRole that the annotation names.",
            _ => "The init container's log tells why.",
        };
        vec![what.to_owned()]
    }
}

/// What our init container means by its exit code.
fn meaning_of(code: i32) -> Option<&'static str> {
    Some(match code {
        2 => "its environment variables cannot be used",
        3 => "no push that it could use came within its TIMEOUT",
        4 => "CREDENTIALS_PATH cannot be written",
        5 => "it cannot listen on port 50000",
        6 => "Vault refuses its VAULT_ROLE_ID",
        137 => "it was killed (out of memory, or by force)",
        143 => "it was told to stop",
        _ => return None,
    })
}

/// The end of a sentence that an attempt begins.
fn fate(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Claimed => "is claimed, and nothing was issued for it yet",
        AttemptState::Issued => "has a secret_id, which may have been sent",
        AttemptState::Unknown => "was sent, and no complete answer came",
        AttemptState::Over(Verdict::Accepted) => "was taken by its init container",
        AttemptState::Over(Verdict::Refused) => "was refused by its init container",
        AttemptState::Over(Verdict::NeverSent) => "was given up before anything was sent",
        AttemptState::Over(Verdict::Lost | Verdict::Unknown) => "ended without a word from its init container",
    }
}

/// A cause that may be missing, as the end of a sentence.
fn told(cause: Option<&str>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {}", cause_of(cause)))
}

/// Our texts of troubles are "cause; remedy".
fn cause_of(text: &str) -> &str {
    text.split_once("; ").map_or(text, |(cause, _)| cause).trim_end().trim_end_matches('.')
}

/// What the TLS library means by its words on bytes that are no TLS.
fn in_clear(cause: &str) -> &'static str {
    if cause.contains("corrupt message") { ", as what answers there speaks no TLS" } else { "" }
}

fn remedy_of(text: &str) -> Option<String> {
    let (_, remedy) = text.split_once("; ")?;
    let mut chars = remedy.chars();
    let first = chars.next()?;
    Some(first.to_uppercase().chain(chars).collect::<String>() + if remedy.ends_with(['.', '?']) { "" } else { "." })
}
