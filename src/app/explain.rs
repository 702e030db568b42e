//! What `explain` is answered: gathers what this replica knows of a pod, and has `domain` conclude.
//!
//! Owns the order of reading. Each read has a limit of its own, and one that fails is a fact like others.

use std::sync::Arc;

use super::node::Node;
use super::told::{Memory, Told};
use crate::clock::Clock;
use crate::config::{Config, WatchNamespace};
use crate::control::{Event, Explanation, Fact, Outlook};
use crate::deliver::Ports;
use crate::deliver::explain::Desk;
use crate::deliver::ports::PodFeed;
use crate::domain::explain::{self, Facts, Found, Replica, Work};
use crate::domain::ids::{InstanceKey, PodUid, Timestamp};
use crate::domain::ledger::Entry;
use crate::domain::pod_name::PodName;
use crate::k8s::client::Client;
use crate::k8s::events::{PastEvent, past_events};
use crate::k8s::health::WatchHealth;
use crate::raft::service::Handle;
use crate::raft::status::{Role, Seen};
use crate::vault;

/// See the module.
pub(super) struct Explainer {
    handle: Handle,
    feed: Arc<dyn PodFeed>,
    watch: Arc<WatchHealth>,
    vault: vault::Handle,
    kube: Client,
    namespaces: WatchNamespace,
    desk: Desk,
    memory: Arc<Memory>,
    clock: Arc<dyn Clock>,
}

impl Explainer {
    pub(super) fn of(
        config: &Config,
        node: &Node,
        ports: &Ports,
        watch: Arc<WatchHealth>,
        vault: vault::Handle,
        kube: Client,
        memory: Arc<Memory>,
    ) -> Self {
        Self {
            handle: node.handle.clone(),
            feed: ports.feed.clone(),
            watch,
            vault,
            kube,
            namespaces: config.kubernetes.watch_namespace.clone(),
            desk: Desk::default(),
            memory,
            clock: ports.clock.clone(),
        }
    }

    /// Where it asks whoever leads here.
    pub(super) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Explains `name`; `pod_of` names the pod of a replica.
    pub(super) async fn explain(&self, name: &PodName, pod_of: impl Fn(&PodUid) -> String) -> Explanation {
        let found = self.feed.read(name.namespace(), name.name()).await;
        let known = self.handle.ledger_now().unwrap_or_default();
        let entries = known.named(name.namespace(), name.name()).map(|(key, entry)| (key.clone(), entry.clone()));
        let mut ledger: Vec<(InstanceKey, Entry)> = entries.collect();
        if let Ok(Some(pod)) = &found {
            ledger.retain(|(key, _)| key.pod == pod.reference.uid);
        }
        let uid = match &found {
            Ok(Some(pod)) => Some(pod.reference.uid.clone()),
            _ => ledger.last().map(|(key, _)| key.pod.clone()),
        };
        let work = match &uid {
            Some(uid) => self.desk.ask(uid).await,
            None => None,
        };
        let told = uid.as_ref().map(|uid| self.memory.of(uid)).unwrap_or_default();
        let facts = Facts {
            name,
            watched: self.namespaces.matches(name.namespace()),
            found: match &found {
                Ok(Some(pod)) => Found::Pod(pod),
                Ok(None) => Found::Missing,
                // Its own words: a pod that cannot be decoded was answered for.
                Err(error) => Found::Unreadable(error.0.clone()),
            },
            ledger: &ledger,
            replica: self.replica(pod_of),
            vault: match &*self.vault.state().borrow() {
                vault::State::Usable => None,
                vault::State::Starting(cause) | vault::State::Unavailable(cause) => Some(cause.to_string()),
            },
            // Also what readiness still bears with: a pod that is not seen for seconds is asked about within seconds.
            watch: self
                .watch
                .last_error()
                .map(|error| error.to_string())
                .or_else(|| (!self.watch.fresh()).then(|| "it has just begun".to_owned())),
            told: last_of_this_start(&told, work.as_ref()),
            work,
        };
        let past = past_events(&self.kube, name).await;
        self.put_together(&facts, uid.as_ref(), &told, past)
    }

    fn put_together(
        &self,
        known: &Facts<'_>,
        uid: Option<&PodUid>,
        told: &[Told],
        past: Result<Vec<PastEvent>, String>,
    ) -> Explanation {
        let now = self.clock.now();
        let conclusion = explain::conclude(known);
        let (events, incomplete) = match past {
            Ok(past) => {
                let ours = past.into_iter().filter(|event| uid.is_none_or(|uid| event.uid == uid.as_str()));
                (ours.map(|event| written(event, now)).collect(), None)
            }
            Err(why) => (
                told.iter().map(announced).collect(),
                Some(format!("Those of other replicas are not here ({why}); kubectl describe pod shows all.")),
            ),
        };
        Explanation {
            pod: known.name.to_string(),
            kind: conclusion.kind().to_owned(),
            outlook: match conclusion.outlook() {
                explain::Outlook::Served => Outlook::Served,
                explain::Outlook::OnItsWay => Outlook::OnItsWay,
                explain::Outlook::Stuck => Outlook::Stuck,
                explain::Outlook::Unknown => Outlook::Unknown,
            },
            conclusion: conclusion.sentence(known.name),
            facts: explain::facts(known, now)
                .into_iter()
                .map(|fact| Fact { name: fact.name.to_owned(), text: fact.text })
                .collect(),
            events,
            events_incomplete: incomplete,
            advice: conclusion.advice(known.name),
        }
    }

    fn replica(&self, pod_of: impl Fn(&PodUid) -> String) -> Replica {
        let Some(seen) = self.handle.seen() else { return Replica::Forming(self.handle.forming()) };
        match (seen.role, seen.leader) {
            (Role::Leader, Some(leader)) if leader == seen.node => Replica::Leads,
            (Role::Leader, _) => Replica::WithoutQuorum,
            (_, None) => Replica::Leaderless,
            (_, Some(_)) => Replica::Follows(leader_in_words(&seen, pod_of)),
        }
    }
}

fn leader_in_words(seen: &Seen, pod_of: impl Fn(&PodUid) -> String) -> String {
    let member = seen.members.iter().find(|member| Some(member.node) == seen.leader);
    member.map_or_else(
        || "a replica that is no member here yet".to_owned(),
        |member| format!("pod {} at {}", pod_of(&member.member.pod), member.member.address),
    )
}

/// What was told of an earlier start of the init container says nothing of this one.
fn last_of_this_start(told: &[Told], work: Option<&Work>) -> Option<crate::domain::announcement::Announcement> {
    let since = work.and_then(|work| work.seen_for);
    let last = told.last().filter(|told| since.is_none_or(|since| told.ago() <= since));
    last.map(|told| told.what.clone())
}

fn announced(told: &Told) -> Event {
    Event {
        reason: told.what.reason().to_owned(),
        note: told.what.note(),
        count: told.count,
        ago_ms: u64::try_from(told.ago().as_millis()).ok(),
    }
}

fn written(event: PastEvent, now: Timestamp) -> Event {
    Event {
        reason: event.reason,
        note: event.note,
        count: event.count,
        ago_ms: event.last.and_then(|last| u64::try_from(now.since(last).as_millis()).ok()),
    }
}
