//! The pods that are watched: what we know of each between two turns, and which address belongs to whom.
//!
//! Owns no task. Small on purpose: there is one row for each pod that is starting now.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::turns::Errand;
use super::worker::Progress;
use crate::domain::backoff::CRASH_LOOP;
use crate::domain::ids::{AttemptId, ContainerId, InstanceKey, PodUid, RoleName, Timestamp};
use crate::domain::limits::Limit;
use crate::domain::pod::{Candidate, Pod, Refusal};

/// Most pods watched at once: a full ledger's worth. Beyond it new pods wait until others have started.
pub(super) const MAX_ROWS: usize = 65_536;

/// One watched pod that carries our annotations, or one that an earlier leader left open.
pub(super) struct Row {
    /// As last seen. For a pod that only the ledger knows: its name, and nothing else.
    pub(super) pod: Arc<Pod>,
    /// It left the selection: running, deleted, or never seen by this leader.
    pub(super) left: bool,
    /// The complete list that it was last seen in.
    pub(super) list: u64,
    /// The start of its init container that is served now.
    pub(super) instance: Option<Instance>,
    /// Starts that are over and have something unsettled.
    pub(super) over: Vec<InstanceKey>,
    /// Starts of its init container in a row that ended without a delivery.
    pub(super) crashes: u32,
    /// The last refusal that was announced: the same one is not announced with each status change.
    pub(super) refusal: Option<Refusal>,
    /// A worker has its progress.
    pub(super) working: bool,
    /// The pod said that it is not the one that its status shows: the next read of it counts as its status.
    pub(super) disowned: bool,
    /// Reads of this pod in a row that failed.
    pub(super) read_failures: u32,
}

/// One start of an init container, while it is served.
pub(super) struct Instance {
    pub(super) key: InstanceKey,
    pub(super) role: RoleName,
    /// When this leader first saw it running.
    pub(super) seen_at: Instant,
    /// When the kubelet says that it was started.
    pub(super) running_since: Option<Timestamp>,
    pub(super) stage: Stage,
    /// Boxed: most rows have none of it for most of their life.
    pub(super) progress: Option<Box<Progress>>,
    /// A claim was made for it: its end has to be settled.
    pub(super) touched: bool,
    /// A limit keeps its next attempt waiting.
    pub(super) delay: Option<Delay>,
}

/// What keeps an attempt waiting, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) limit: Limit,
    pub(super) since: Instant,
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for its (next) attempt.
    Waiting,
    /// It has what it may have; since when. Should it run on, it is served again.
    Settled(Instant),
    /// No further attempt.
    Closed,
}

impl Instance {
    /// For how long it had been running at `now`.
    pub(super) fn waited(&self, wall: Timestamp, now: Instant) -> Duration {
        // The kubelet gives whole seconds: its word counts only where it says more than our own clock.
        let by_kubelet = self.running_since.map(|since| wall.since(since).saturating_sub(Duration::from_secs(1)));
        now.duration_since(self.seen_at).max(by_kubelet.unwrap_or_default())
    }
}

impl Row {
    /// Boxed: a map keeps up to twice the room that its rows need.
    pub(super) fn new(pod: Arc<Pod>, list: u64) -> Box<Self> {
        Box::new(Self {
            pod,
            left: false,
            list,
            instance: None,
            over: Vec::new(),
            crashes: 0,
            refusal: None,
            working: false,
            disowned: false,
            read_failures: 0,
        })
    }

    /// The attempt under whose claim nothing was issued yet: what a log line about the pod belongs to.
    pub(super) fn attempt(&self) -> Option<&AttemptId> {
        self.instance.as_ref()?.progress.as_ref()?.claimed()
    }

    /// What the pod's next turn is for.
    pub(super) fn errand(&self) -> Errand {
        let waiting = self.instance.as_ref().filter(|instance| instance.stage == Stage::Waiting);
        Errand { namespace: self.pod.reference.namespace.clone(), role: waiting.map(|instance| instance.role.clone()) }
    }

    /// Takes up a start of the init container. Returns how long its first attempt has to wait: not at all, unless the
    /// pod crash-loops.
    pub(super) fn begin(&mut self, candidate: &Candidate, jitter: f64) -> Duration {
        // What an earlier leader left of this very start goes on under its generation.
        let same = |key: &InstanceKey| key.container_id == candidate.container_id;
        let generation = self.over.iter().filter(|key| same(key)).map(|key| key.generation).max();
        self.over.retain(|key| !same(key));
        self.instance = Some(Instance {
            key: InstanceKey {
                pod: self.pod.reference.uid.clone(),
                container: candidate.container.clone(),
                container_id: candidate.container_id.clone(),
                generation: generation.unwrap_or(0),
            },
            role: candidate.role.clone(),
            seen_at: Instant::now(),
            running_since: candidate.running_since,
            stage: Stage::Waiting,
            progress: None,
            touched: generation.is_some(),
            delay: None,
        });
        self.refusal = None;
        // The first restart is served at once: its cause may be gone.
        if self.crashes > 1 { CRASH_LOOP.wait(self.crashes - 1, jitter) } else { Duration::ZERO }
    }

    /// Whether `id` is the start that is served now.
    pub(super) fn serves(&self, id: &ContainerId) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.key.container_id == *id)
    }
}

/// All rows, and the addresses of all pods that are starting, ours or not.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) by_uid: HashMap<PodUid, Box<Row>>,
    /// Pods that carry no annotation of ours: they count only because an address may be theirs by now.
    /// At most [`MAX_ROWS`].
    strangers: HashMap<PodUid, (Box<[IpAddr]>, u64)>,
    /// Who shows an address: live pods without hostNetwork.
    shown: HashMap<IpAddr, Vec<PodUid>>,
    /// Addresses that a worker is talking to.
    busy: HashSet<IpAddr>,
}

/// Why a pod cannot be dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Another live pod shows that address too.
    Shared(IpAddr),
    /// Another pod on that address is being served.
    Busy,
}

impl Rows {
    /// Notes the addresses that `pod` shows now.
    pub(super) fn show(&mut self, pod: &Pod, list: u64) {
        let uid = &pod.reference.uid;
        let stranger = pod.wish.is_none();
        if stranger && self.strangers.len() >= MAX_ROWS && !self.strangers.contains_key(uid) {
            return;
        }
        let before = self.addresses_of(uid);
        let now: &[IpAddr] = if pod.host_network || pod.deleting { &[] } else { &pod.ips };
        for gone in before.iter().filter(|ip| !now.contains(ip)) {
            self.hide(*gone, uid);
        }
        for new in now.iter().filter(|ip| !before.contains(ip)) {
            // Two pods with one address are rare.
            self.shown.entry(*new).or_insert_with(|| Vec::with_capacity(1)).push(uid.clone());
        }
        if stranger {
            self.strangers.insert(uid.clone(), (now.into(), list));
        } else {
            self.strangers.remove(uid);
        }
    }

    /// Forgets the addresses of a pod that left.
    pub(super) fn forget(&mut self, uid: &PodUid) {
        for ip in self.addresses_of(uid) {
            self.hide(ip, uid);
        }
        self.strangers.remove(uid);
    }

    /// The pods, ours or not, that were not seen in the complete list `list`.
    pub(super) fn missing_from(&self, list: u64) -> Vec<PodUid> {
        let ours = self.by_uid.iter().filter(|(_, row)| !row.left && row.list != list).map(|(uid, _)| uid);
        let strangers = self.strangers.iter().filter(|(_, (_, seen))| *seen != list).map(|(uid, _)| uid);
        let mut missing: Vec<PodUid> = ours.chain(strangers).cloned().collect();
        // The order of a hash map would make each run of a simulation another one.
        missing.sort_unstable();
        missing
    }

    /// Takes the addresses of `pod` for a worker.
    pub(super) fn occupy(&mut self, pod: &Pod) -> Result<(), Conflict> {
        if let Some(conflict) = self.conflict(pod) {
            return Err(conflict);
        }
        self.busy.extend(&pod.ips);
        Ok(())
    }

    /// Why `pod` cannot be dialled now.
    pub(super) fn conflict(&self, pod: &Pod) -> Option<Conflict> {
        let uid = &pod.reference.uid;
        if !pod.host_network {
            let shared = |ip: &&IpAddr| self.shown.get(ip).is_some_and(|pods| pods.iter().any(|other| other != uid));
            if let Some(ip) = pod.ips.iter().find(shared) {
                return Some(Conflict::Shared(*ip));
            }
        }
        pod.ips.iter().any(|ip| self.busy.contains(ip)).then_some(Conflict::Busy)
    }

    /// Gives back what [`Rows::occupy`] took.
    pub(super) fn release(&mut self, addresses: &[IpAddr]) {
        for ip in addresses {
            self.busy.remove(ip);
        }
    }

    fn addresses_of(&self, uid: &PodUid) -> Vec<IpAddr> {
        if let Some((addresses, _)) = self.strangers.get(uid) {
            return addresses.to_vec();
        }
        let Some(row) = self.by_uid.get(uid) else { return Vec::new() };
        row.pod.ips.iter().copied().filter(|ip| self.shown.get(ip).is_some_and(|pods| pods.contains(uid))).collect()
    }

    fn hide(&mut self, ip: IpAddr, uid: &PodUid) {
        if let Some(pods) = self.shown.get_mut(&ip) {
            pods.retain(|other| other != uid);
            if pods.is_empty() {
                self.shown.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::fixtures::pod;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    // Bad-input table: an IP that went to another pod.
    #[test]
    fn an_address_that_two_live_pods_show_is_not_dialled_until_one_goes() {
        let mut rows = Rows::default();
        let (ours, mut other) = (pod("a", "10.0.0.9"), pod("b", "10.0.0.9"));
        other.wish = None;
        rows.by_uid.insert(ours.reference.uid.clone(), Row::new(Arc::new(ours.clone()), 1));
        rows.show(&ours, 1);
        rows.show(&other, 1);
        assert_eq!(rows.occupy(&ours), Err(Conflict::Shared(ip("10.0.0.9"))));
        rows.forget(&other.reference.uid);
        assert_eq!(rows.occupy(&ours), Ok(()));
        assert_eq!(rows.occupy(&ours), Err(Conflict::Busy));
        rows.release(&ours.ips);
        assert_eq!(rows.occupy(&ours), Ok(()));
    }

    #[test]
    fn a_pod_that_is_being_deleted_shows_no_address() {
        let mut rows = Rows::default();
        let (ours, mut other) = (pod("a", "10.0.0.9"), pod("b", "10.0.0.9"));
        other.deleting = true;
        rows.show(&other, 1);
        assert_eq!(rows.occupy(&ours), Ok(()));
    }

    #[test]
    fn a_pod_that_a_complete_list_lacks_is_missing() {
        let mut rows = Rows::default();
        let ours = pod("a", "10.0.0.1");
        let mut stranger = pod("b", "10.0.0.2");
        stranger.wish = None;
        rows.by_uid.insert(ours.reference.uid.clone(), Row::new(Arc::new(ours.clone()), 1));
        rows.show(&stranger, 1);
        assert!(rows.missing_from(1).is_empty());
        assert_eq!(rows.missing_from(2).len(), 2);
    }
}
