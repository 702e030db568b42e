//! Whose turn it is: pods wait here until they are due, until their namespace, their role and Vault have room for
//! them, and until a hand is free. Fair between namespaces at each of these steps.
//!
//! Owns all waiting of pods, and the token buckets. No task and no timer: its owner asks when to look again. Who waits
//! here costs a few hundred bytes, no worker, and no claim. Its length is bounded by its owner: one entry for each pod
//! that is watched.
//!
//! A pod pays its namespace and its role at the door, and Vault when its turn comes; an attempt that then asked nothing
//! of Vault has [`Turns::give_back`] return all of it.

mod stations;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::stations::Stations;
use super::queue::Queue;
use crate::domain::fair::{Fair, Place};
use crate::domain::ids::{PodUid, RoleName};
use crate::domain::limits::{Bucket, Limit, Limits};

/// What a turn is for, and so whose tokens it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) namespace: Arc<str>,
    /// Of a delivery: the role that Vault is asked for. `None`: a look at an init container, which asks Vault for
    /// nothing.
    pub(super) role: Option<RoleName>,
}

/// Whether there is somebody to do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hands {
    Free,
    /// As many deliveries are under way as `limits.inFlight` allows. A look may be had all the same.
    InFlight,
    /// All are busy between a claim and Vault's answer. They are as many as can be of use there, so that this is no
    /// limit: it passes as fast as work is done.
    Busy,
}

/// Where a pod waits.
#[derive(Clone, Copy, Debug)]
enum Spot {
    Timer,
    Namespace(Place),
    Role(Place),
    Ready(Place),
    Look(Place),
}

struct Entry {
    errand: Errand,
    spot: Spot,
}

/// See the module.
pub(super) struct Turns {
    begun: Instant,
    entries: HashMap<PodUid, Entry>,
    timers: Queue<PodUid>,
    namespaces: Stations<Arc<str>>,
    roles: Stations<RoleName>,
    vault: Bucket,
    /// Deliveries that wait for a hand and for Vault's bucket.
    ready: Fair<Arc<str>, PodUid>,
    looks: Fair<Arc<str>, PodUid>,
    /// Who came into `ready` since somebody there was last kept waiting, in order. Who is gone goes when it is seen.
    fresh: VecDeque<(PodUid, Place)>,
    /// Who is kept waiting by what, since this was last asked.
    limited: Vec<(PodUid, Limit)>,
}

impl Turns {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            begun: now,
            entries: HashMap::new(),
            timers: Queue::new(),
            namespaces: Stations::new(limits.namespace),
            roles: Stations::new(limits.role),
            vault: Bucket::new(limits.vault, 0),
            ready: Fair::default(),
            looks: Fair::default(),
            fresh: VecDeque::new(),
            limited: Vec::new(),
        }
    }

    /// Makes the pod due at `at` for `errand`, wherever it was before.
    pub(super) fn put(&mut self, uid: PodUid, errand: Errand, at: Instant) {
        self.remove(&uid);
        self.timers.put(uid.clone(), at);
        self.entries.insert(uid, Entry { errand, spot: Spot::Timer });
    }

    /// Takes the pod out, and gives back what it has paid.
    pub(super) fn remove(&mut self, uid: &PodUid) {
        let Some(Entry { errand: Errand { namespace, role }, spot }) = self.entries.remove(uid) else { return };
        match spot {
            Spot::Timer => self.timers.remove(uid),
            Spot::Namespace(place) => self.namespaces.remove(&namespace, &namespace, place),
            Spot::Look(place) => drop(self.looks.remove(&namespace, place)),
            Spot::Role(place) => {
                if let Some(role) = &role {
                    self.roles.remove(role, &namespace, place);
                }
                self.namespaces.give_back(&namespace);
            }
            Spot::Ready(place) => {
                self.ready.remove(&namespace, place);
                self.give_back_at_the_door(&namespace, role.as_ref());
            }
        }
    }

    /// Takes out the pod whose turn it is now, if there is a hand for it.
    pub(super) fn next(&mut self, now: Instant, hands: Hands) -> Option<(PodUid, Errand)> {
        self.admit(now);
        while self.fresh.front().is_some_and(|(uid, place)| !self.is_ready(uid, *place)) {
            self.fresh.pop_front();
        }
        if hands == Hands::Busy {
            return None;
        }
        if let Some(uid) = self.looks.pop() {
            return self.entries.remove(&uid).map(|entry| (uid, entry.errand));
        }
        if self.ready.is_empty() {
            return None;
        }
        if hands == Hands::InFlight {
            self.all_wait_for(Limit::InFlight);
            return None;
        }
        if self.vault.take(self.millis(now)).is_err() {
            self.all_wait_for(Limit::Vault);
            return None;
        }
        let uid = self.ready.pop()?;
        self.entries.remove(&uid).map(|entry| (uid, entry.errand))
    }

    /// Returns what [`Turns::next`] took for a delivery that has asked nothing of Vault.
    pub(super) fn give_back(&mut self, errand: &Errand) {
        if errand.role.is_some() {
            self.vault.give_back();
            self.give_back_at_the_door(&errand.namespace, errand.role.as_ref());
        }
    }

    /// When to ask for the next turn: nothing changes before by itself. May be in the past.
    pub(super) fn next_due(&mut self, now: Instant, hands: Hands) -> Option<Instant> {
        let millis = self.millis(now);
        let vault =
            (hands == Hands::Free && !self.ready.is_empty()).then(|| millis + self.vault.wait(millis).unwrap_or(0));
        let counted = [self.namespaces.next_due(), self.roles.next_due(), vault].into_iter().flatten().min();
        let counted = counted.map(|at| self.begun + Duration::from_millis(at));
        self.timers.next_due().into_iter().chain(counted).min()
    }

    /// When the pod is due; in the past, where it waits only for its turn.
    pub(super) fn due(&self, uid: &PodUid) -> Option<Instant> {
        match self.entries.get(uid)?.spot {
            Spot::Timer => self.timers.due(uid),
            _ => Some(self.begun),
        }
    }

    /// Who is kept waiting by which limit, since this was last asked; each once for each time it is put.
    pub(super) fn take_limited(&mut self) -> Vec<(PodUid, Limit)> {
        std::mem::take(&mut self.limited)
    }

    /// How many pods are due at `now` and wait only for their turn.
    pub(super) fn backlog(&self, now: Instant) -> usize {
        self.entries.len() - self.timers.len() + self.timers.backlog(now)
    }

    /// Lets everybody through who is due and whose bucket has a token.
    fn admit(&mut self, now: Instant) {
        let millis = self.millis(now);
        while let Some(uid) = self.namespaces.released(millis) {
            self.ask_role(uid, millis);
        }
        while let Some(uid) = self.roles.released(millis) {
            self.make_ready(uid);
        }
        while let Some(uid) = self.timers.pop(now) {
            let Some(entry) = self.entries.get_mut(&uid) else { continue };
            let namespace = &entry.errand.namespace;
            if entry.errand.role.is_none() {
                entry.spot = Spot::Look(self.looks.push(namespace, uid));
                continue;
            }
            match self.namespaces.enter(namespace, namespace, &uid, millis) {
                None => self.ask_role(uid, millis),
                Some(place) => {
                    entry.spot = Spot::Namespace(place);
                    self.limited.push((uid, Limit::Namespace));
                }
            }
        }
    }

    fn ask_role(&mut self, uid: PodUid, millis: u64) {
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        let Errand { namespace, role: Some(role) } = &entry.errand else { return };
        match self.roles.enter(role, namespace, &uid, millis) {
            None => self.make_ready(uid),
            Some(place) => {
                entry.spot = Spot::Role(place);
                self.limited.push((uid, Limit::Role));
            }
        }
    }

    fn make_ready(&mut self, uid: PodUid) {
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        let place = self.ready.push(&entry.errand.namespace, uid.clone());
        entry.spot = Spot::Ready(place);
        self.fresh.push_back((uid, place));
    }

    fn all_wait_for(&mut self, limit: Limit) {
        for (uid, place) in std::mem::take(&mut self.fresh) {
            if self.is_ready(&uid, place) {
                self.limited.push((uid, limit));
            }
        }
    }

    fn is_ready(&self, uid: &PodUid, place: Place) -> bool {
        self.entries.get(uid).is_some_and(|entry| matches!(entry.spot, Spot::Ready(at) if at == place))
    }

    fn give_back_at_the_door(&mut self, namespace: &Arc<str>, role: Option<&RoleName>) {
        self.namespaces.give_back(namespace);
        if let Some(role) = role {
            self.roles.give_back(role);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}
