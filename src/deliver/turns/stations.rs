//! Token buckets by name, each with a line before it that is fair between namespaces.
//!
//! Owns no timer. Remembers only buckets that somebody waits at, or that are not full: anybody may make up names.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::domain::fair::{Fair, Place};
use crate::domain::ids::PodUid;
use crate::domain::limits::{Bucket, Rate};

/// With so many buckets, those that are as good as new are forgotten. Half a MiB or so.
pub(super) const TIDY_AT: usize = 2_048;

/// Buckets of one rate, one for each name.
pub(super) struct Stations<N> {
    rate: Rate,
    all: HashMap<N, Station>,
    /// The millisecond at which a bucket that somebody waits at has a token.
    wakes: BTreeSet<(u64, N)>,
    tidy_at: usize,
}

struct Station {
    bucket: Bucket,
    line: Fair<Arc<str>, PodUid>,
    /// Its place in `wakes`, while somebody waits.
    wake: Option<u64>,
}

impl<N: Clone + Eq + Hash + Ord> Stations<N> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, all: HashMap::new(), wakes: BTreeSet::new(), tidy_at: TIDY_AT }
    }

    /// Takes a token of `name` for a pod of `namespace`. Where there is none, or others wait already, the pod waits: at
    /// that place.
    pub(super) fn enter(&mut self, name: &N, namespace: &Arc<str>, uid: &PodUid, now: u64) -> Option<Place> {
        if self.all.len() >= self.tidy_at {
            self.all.retain(|_, station| station.wake.is_some() || !station.bucket.is_full(now));
            // So that this costs each newcomer a constant share.
            self.tidy_at = TIDY_AT.max(2 * self.all.len());
        }
        if !self.all.contains_key(name) {
            let station = Station { bucket: Bucket::new(self.rate, now), line: Fair::default(), wake: None };
            self.all.insert(name.clone(), station);
        }
        let station = self.all.get_mut(name)?;
        if station.wake.is_none() {
            let Err(wait) = station.bucket.take(now) else { return None };
            station.wake = Some(now + wait);
            self.wakes.insert((now + wait, name.clone()));
        }
        Some(station.line.push(namespace, uid.clone()))
    }

    /// Takes out the next pod whose token has come in by `now`.
    pub(super) fn released(&mut self, now: u64) -> Option<PodUid> {
        while self.next_due().is_some_and(|at| at <= now) {
            let (_, name) = self.wakes.pop_first()?;
            let station = self.all.get_mut(&name)?;
            station.wake = None;
            let released = station.bucket.take(now).ok().and_then(|()| station.line.pop());
            if !station.line.is_empty() {
                let at = now + station.bucket.wait(now).unwrap_or(0);
                station.wake = Some(at);
                self.wakes.insert((at, name));
            }
            if released.is_some() {
                return released;
            }
        }
        None
    }

    /// Takes out a pod that waits at `name`.
    pub(super) fn remove(&mut self, name: &N, namespace: &Arc<str>, place: Place) {
        let Some(station) = self.all.get_mut(name) else { return };
        station.line.remove(namespace, place);
        if station.line.is_empty()
            && let Some(at) = station.wake.take()
        {
            self.wakes.remove(&(at, name.clone()));
        }
    }

    /// Gives back a token of `name`.
    pub(super) fn give_back(&mut self, name: &N) {
        // One that was forgotten is full.
        let Some(station) = self.all.get_mut(name) else { return };
        station.bucket.give_back();
        if let Some(at) = &mut station.wake {
            self.wakes.remove(&(*at, name.clone()));
            self.wakes.insert((0, name.clone()));
            *at = 0;
        }
    }

    /// How many buckets are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The millisecond at which somebody may be released; 0: now.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }
}
