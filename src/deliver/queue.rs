//! What is due when: a queue keyed by pod, so that a pod is in it once.
//!
//! Owns no task and no timer. Its length is bounded by its owner: one entry for each pod that is watched.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// Keys, each with the moment it is due. First due, first out; equal moments in the order of arrival.
#[derive(Debug)]
pub(super) struct Queue<K> {
    due: BTreeMap<(Instant, u64), K>,
    place: HashMap<K, (Instant, u64)>,
    arrivals: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), place: HashMap::new(), arrivals: 0 }
    }

    /// Makes `key` due at `at`, wherever it was before.
    pub(super) fn put(&mut self, key: K, at: Instant) {
        self.remove(&key);
        self.arrivals += 1;
        let place = (at, self.arrivals);
        self.due.insert(place, key.clone());
        self.place.insert(key, place);
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(place) = self.place.remove(key) {
            self.due.remove(&place);
        }
    }

    /// Takes out the first key that is due at `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        let (place, _) = self.due.first_key_value()?;
        if place.0 > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.place.remove(&key);
        Some(key)
    }

    /// When `key` is due.
    pub(super) fn due(&self, key: &K) -> Option<Instant> {
        self.place.get(key).map(|(at, _)| *at)
    }

    /// When the next key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// How many keys are due at `now`.
    pub(super) fn backlog(&self, now: Instant) -> usize {
        self.due.range(..=(now, u64::MAX)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_in_the_queue_once_at_its_latest_place() {
        let start = Instant::now();
        let mut queue = Queue::new();
        queue.put("a", start + Duration::from_secs(9));
        queue.put("b", start + Duration::from_secs(1));
        queue.put("a", start);
        assert_eq!(queue.next_due(), Some(start));
        assert_eq!(queue.backlog(start), 1);
        assert_eq!(queue.pop(start), Some("a"));
        assert_eq!(queue.pop(start), None);
        assert_eq!(queue.pop(start + Duration::from_secs(10)), Some("b"));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn equal_moments_keep_the_order_of_arrival() {
        let start = Instant::now();
        let mut queue = Queue::new();
        for key in 0..100 {
            queue.put(key, start);
        }
        let out: Vec<i32> = std::iter::from_fn(|| queue.pop(start)).collect();
        assert_eq!(out, (0..100).collect::<Vec<_>>());
    }
}
