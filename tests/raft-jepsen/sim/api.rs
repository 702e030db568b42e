//! The API server: pods as their kubelets reported them, watches that lag, lists that are stale, and our own service.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::task::Waker;

use kubernetes_vault::deliver::ports::PodEvent;
use kubernetes_vault::domain::ids::PodUid;
use kubernetes_vault::domain::peers::{Listed, PodState};
use kubernetes_vault::domain::pod::{Phase, Pod};
use tokio::sync::watch;

use super::world::{Site, World};
use crate::history::Millis;

/// A watch of one controller.
pub(crate) struct Watch {
    node: IpAddr,
    cursor: usize,
    lag: Millis,
    known: BTreeMap<PodUid, Pod>,
    queue: VecDeque<PodEvent>,
    waker: Option<Waker>,
    /// The next thing that it hears is that its place is too old.
    too_old: bool,
    began: bool,
}

/// See the module.
pub(crate) struct Api {
    /// Every version of every pod.
    versions: Vec<(Millis, PodUid, Pod)>,
    pub(crate) pods: BTreeMap<PodUid, Pod>,
    watches: BTreeMap<u64, Watch>,
    next: u64,
    /// Our own service's endpoints, and how those pods are.
    pub(crate) listed: BTreeMap<u8, Listed>,
    pub(crate) states: BTreeMap<PodUid, PodState>,
    changes: watch::Sender<u64>,
    /// New watches begin with a list that is up to this old, and lag up to this much.
    pub(crate) stale: Millis,
    pub(crate) lag: Millis,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            versions: Vec::new(),
            pods: BTreeMap::new(),
            watches: BTreeMap::new(),
            next: 0,
            listed: BTreeMap::new(),
            states: BTreeMap::new(),
            changes: watch::Sender::new(0),
            stale: 0,
            lag: 0,
        }
    }
}

impl Api {
    /// A kubelet reports.
    pub(crate) fn report(&mut self, now: Millis, pod: &Pod) {
        self.pods.insert(pod.reference.uid.clone(), pod.clone());
        self.versions.push((now, pod.reference.uid.clone(), pod.clone()));
    }

    /// Our own service has changed.
    pub(crate) fn relisted(&mut self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Every watch has to begin anew, as after a 410.
    pub(crate) fn forget_places(&mut self) {
        self.watches.values_mut().for_each(|watch| watch.too_old = true);
    }

    /// A controller's watches end with it.
    pub(crate) fn forget_watches(&mut self, node: IpAddr) {
        self.watches.retain(|_, watch| watch.node != node);
    }

    pub(crate) fn next_event(&mut self, id: u64, waker: &Waker) -> Option<PodEvent> {
        let watch = self.watches.get_mut(&id)?;
        let event = watch.queue.pop_front();
        if event.is_none() {
            watch.waker = Some(waker.clone());
        }
        event
    }
}

impl Watch {
    /// A complete list, of the first `upto` versions.
    fn list(&mut self, versions: &[(Millis, PodUid, Pod)], upto: usize) {
        self.known.clear();
        for (_, uid, pod) in &versions[..upto] {
            if pod.phase == Phase::Pending {
                self.known.insert(uid.clone(), pod.clone());
            } else {
                self.known.remove(uid);
            }
        }
        self.cursor = upto;
        self.queue.push_back(PodEvent::Restarted);
        self.queue.extend(self.known.values().cloned().map(|pod| PodEvent::Seen(pod.into())));
        self.queue.push_back(PodEvent::Synced);
    }

    fn go_on(&mut self, now: Millis, versions: &[(Millis, PodUid, Pod)]) {
        while let Some((at, uid, pod)) = versions.get(self.cursor) {
            if at + self.lag > now {
                break;
            }
            self.cursor += 1;
            if pod.phase == Phase::Pending {
                self.known.insert(uid.clone(), pod.clone());
                self.queue.push_back(PodEvent::Seen(pod.clone().into()));
            } else if let Some(before) = self.known.remove(uid) {
                self.queue.push_back(PodEvent::Left(before.into()));
            }
        }
    }
}

impl World {
    /// A new watch of the controller at `node`.
    pub(crate) fn watch(&mut self, node: IpAddr) -> u64 {
        let stale = self.rng.between(0, self.api.stale);
        let lag = self.rng.between(0, self.api.lag);
        self.api.next += 1;
        let watch = Watch {
            node,
            cursor: self.api.versions.partition_point(|(at, ..)| at + stale <= self.now),
            lag,
            known: BTreeMap::new(),
            queue: VecDeque::new(),
            waker: None,
            too_old: false,
            began: false,
        };
        if watch.cursor < self.api.versions.len() {
            self.cover("stale list");
        }
        self.api.watches.insert(self.api.next, watch);
        self.api.next
    }

    /// Brings every watch up to where it may be.
    pub(crate) fn flush_watches(&mut self) {
        let mut relisted = 0;
        for watch in self.api.watches.values_mut() {
            if self.net.is_cut(Site::Api, Site::Node(watch.node)) || self.net.is_cut(Site::Node(watch.node), Site::Api)
            {
                continue;
            }
            if !watch.began {
                watch.began = true;
                watch.list(&self.api.versions, watch.cursor);
            } else if std::mem::take(&mut watch.too_old) {
                relisted += 1;
                watch.list(&self.api.versions, self.api.versions.len());
            } else {
                watch.go_on(self.now, &self.api.versions);
            }
            if !watch.queue.is_empty() {
                watch.waker.take().into_iter().for_each(Waker::wake);
            }
        }
        for _ in 0..relisted {
            self.fault("relist after 410", "");
        }
    }
}
