//! What `status` and `recover` are answered.
//!
//! Owns the translation from what Raft shows to what people read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::control::{
    Control, Ledger, Log, LogPosition, Member, MemberKind, Peer, Plan, Progress, Recovery, Role, Status, Storage,
    Verdict,
};
use crate::domain::ids::PodUid;
use crate::domain::quorum::{self, Missing};
use crate::raft::ports::Directory;
use crate::raft::service::Handle;
use crate::raft::status::{self, Seen};
use crate::store::rocks;

/// A member that has acknowledged nothing for this long cannot be reached.
pub(super) const REACHED_WITHIN: Duration = Duration::from_secs(1);

/// Names of pods are worth this wait: whoever asks may do so because the API server is in trouble.
const NAMES_LIMIT: Duration = Duration::from_secs(1);

/// Pods by uid, as the API server lists them.
type Names = BTreeMap<PodUid, String>;

/// See the module.
pub(super) struct Replica {
    pub(super) handle: Handle,
    pub(super) peers: Arc<dyn Directory>,
    pub(super) directory: PathBuf,
    pub(super) bound_to_pod: bool,
    pub(super) node: String,
    pub(super) pod: PodUid,
    /// How peers know each other, in words.
    pub(super) identity: &'static str,
}

#[async_trait]
impl Control for Replica {
    async fn status(&self) -> Status {
        let names = self.names().await;
        let storage = Storage {
            directory: self.directory.display().to_string(),
            bytes: rocks::disk_bytes(&self.directory).ok(),
            bound_to_pod: self.bound_to_pod,
        };
        let empty = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            pod: Some(name(&names, &self.pod)),
            cluster: None,
            epoch: 0,
            role: Role::Forming,
            term: 0,
            leader: None,
            log: Log::default(),
            members: Vec::new(),
            ledger: Ledger::default(),
            storage,
            forming: None,
            identity: self.identity.to_owned(),
        };
        match self.handle.seen() {
            Some(seen) => taking_part(&seen, &names, empty),
            None => Status { forming: Some(self.handle.forming()), ..empty },
        }
    }

    async fn recover(&self, confirm: bool) -> Recovery {
        match self.handle.recover(confirm).await {
            Ok(found) => recovery(found, &self.node, confirm),
            Err(reason) => Recovery { peers: Vec::new(), verdict: Verdict::Refused { reasons: vec![reason] } },
        }
    }
}

impl Replica {
    /// None where the API server does not say: a uid is shown instead.
    async fn names(&self) -> Names {
        let listed = timeout(NAMES_LIMIT, self.peers.listed()).await;
        let listed = listed.ok().and_then(Result::ok).unwrap_or_default();
        listed.into_iter().map(|peer| (peer.uid, peer.name.to_string())).collect()
    }
}

fn name(names: &Names, pod: &PodUid) -> String {
    names.get(pod).cloned().unwrap_or_else(|| pod.to_string())
}

fn taking_part(seen: &Seen, names: &Names, empty: Status) -> Status {
    let members = seen.members.iter().map(|member| Member {
        node: member.node.to_string(),
        address: member.member.address.to_string(),
        pod: Some(name(names, &member.member.pod)),
        kind: if member.voter { MemberKind::Voter } else { MemberKind::Learner },
        progress: member.lag.map(|lag| Progress {
            lag,
            acknowledged_ms: member.silent_for.and_then(|silent| u64::try_from(silent.as_millis()).ok()),
        }),
        reachable: match (member.node == seen.node, seen.role, member.silent_for) {
            (true, ..) => Some(true),
            (_, status::Role::Leader, silent) => Some(silent.is_some_and(|silent| silent < REACHED_WITHIN)),
            _ => None,
        },
    });
    Status {
        node: seen.node.to_string(),
        cluster: Some(seen.cluster.to_string()),
        epoch: seen.epoch.0,
        role: match seen.role {
            status::Role::Leader => Role::Leader,
            status::Role::Follower => Role::Follower,
            status::Role::Candidate => Role::Candidate,
            status::Role::Learner => Role::Learner,
        },
        term: seen.term.0,
        leader: seen.leader.map(|leader| leader.to_string()),
        log: Log { committed: seen.committed, applied: seen.applied, last: seen.last, snapshot: seen.snapshot },
        members: members.collect(),
        ledger: Ledger {
            entries: seen.entries as u64,
            open: seen.entries.saturating_sub(seen.tombstones) as u64,
            tombstones: seen.tombstones as u64,
        },
        ..empty
    }
}

fn recovery(found: quorum::Recovery, node: &str, confirmed: bool) -> Recovery {
    let peers = found.logs.iter().map(|(node, last)| Peer {
        address: String::new(),
        pod: None,
        node: Some(node.to_string()),
        epoch: None,
        last_log: Some(LogPosition { term: last.term.0, index: last.index }),
        trouble: None,
    });
    let silent = found.missing.iter().filter_map(|missing| match missing {
        Missing::Silent { peer, silence, .. } => Some(Peer {
            address: peer.address.to_string(),
            pod: Some(peer.name.to_string()),
            node: None,
            epoch: None,
            last_log: None,
            trouble: Some(silence.to_string()),
        }),
        _ => None,
    });
    let peers = peers.chain(silent).collect();
    let verdict = match found.outcome {
        Err(refusal) => Verdict::Refused { reasons: vec![refusal.to_string()] },
        Ok(epoch) => {
            let plan = Plan {
                survivor: node.to_owned(),
                epoch: epoch.0,
                unaccounted: found.missing.iter().map(ToString::to_string).collect(),
            };
            if confirmed { Verdict::Done(plan) } else { Verdict::Possible(plan) }
        }
    };
    Recovery { peers, verdict }
}
