//! What this replica told the authors of pods lately.
//!
//! `explain` needs the last word on a pod, and the API server gives it only to who may list Events. Owns that memory and
//! its limits. It passes every announcement on, and never waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::deliver::ports::Announcer;
use crate::domain::announcement::Announcement;
use crate::domain::ids::{PodRef, PodUid};

/// Pods that are remembered, the ones told of first go first. People ask about a pod that waits, which is told again and
/// again; 300 bytes each.
const MOST_PODS: usize = 1_024;

/// Different things that are remembered of one pod: there are a dozen reasons in all.
const MOST_OF_ONE: usize = 6;

/// One thing that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) what: Announcement,
    /// How often in a row of its reason.
    pub(super) count: u64,
    at: Instant,
}

impl Told {
    pub(super) fn ago(&self) -> Duration {
        self.at.elapsed()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_pod: HashMap<PodUid, Vec<Told>>,
    order: VecDeque<PodUid>,
}

impl Memory {
    fn note(&self, pod: &PodUid, what: &Announcement) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !memory.by_pod.contains_key(pod) {
            if memory.order.len() >= MOST_PODS
                && let Some(oldest) = memory.order.pop_front()
            {
                memory.by_pod.remove(&oldest);
            }
            memory.order.push_back(pod.clone());
        }
        let told = memory.by_pod.entry(pod.clone()).or_default();
        let before = told.iter().position(|told| told.what.reason() == what.reason());
        let count = before.map_or(0, |at| told.remove(at).count) + 1;
        if told.len() >= MOST_OF_ONE {
            told.remove(0);
        }
        told.push(Told { what: what.clone(), count, at: Instant::now() });
    }

    /// What was told of a pod, the last of each reason, oldest first.
    pub(super) fn of(&self, pod: &PodUid) -> Vec<Told> {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.by_pod.get(pod).cloned().unwrap_or_default()
    }
}

/// Passes on what is announced, and remembers it.
pub(super) struct Remembering<A> {
    pub(super) inner: A,
    pub(super) memory: Arc<Memory>,
}

impl<A: Announcer> Announcer for Remembering<A> {
    fn announce(&self, pod: &PodRef, what: Announcement) {
        self.memory.note(&pod.uid, &what);
        self.inner.announce(pod, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Announcement {
        Announcement::VaultUnavailable("Vault is sealed; unseal it".to_owned())
    }

    #[test]
    fn the_last_of_each_reason_is_kept_in_order_and_counted() {
        let (memory, pod) = (Memory::default(), PodUid::from("a"));
        for what in [sealed(), Announcement::LedgerFull, sealed()] {
            memory.note(&pod, &what);
        }
        let told: Vec<_> = memory.of(&pod).into_iter().map(|told| (told.what, told.count)).collect();
        assert_eq!(told, [(Announcement::LedgerFull, 1), (sealed(), 2)]);
        assert!(memory.of(&PodUid::from("b")).is_empty());
    }

    #[test]
    fn it_never_grows_beyond_its_limits_and_forgets_the_oldest() {
        let memory = Memory::default();
        for n in 0..3 * MOST_PODS {
            memory.note(&PodUid::from(format!("{n}").as_str()), &sealed());
        }
        let remembered = memory.0.lock().unwrap();
        assert_eq!((remembered.by_pod.len(), remembered.order.len()), (MOST_PODS, MOST_PODS));
        assert!(remembered.by_pod.contains_key(&PodUid::from(format!("{}", 3 * MOST_PODS - 1).as_str())));
        assert!(!remembered.by_pod.contains_key(&PodUid::from("0")));
    }
}
