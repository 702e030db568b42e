//! Small memories with a limit: what was learned of roles, and which log lines were written lately.
//!
//! Owns nothing else. Role names come from pod authors, so neither may grow with them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// More roles than one controller serves in practice; each costs some hundred bytes.
const MAX_REMEMBERED: usize = 1024;

/// What is known by key, for a while.
pub(super) struct Memory<K, V> {
    for_long: Duration,
    known: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Memory<K, V> {
    pub(super) fn new(for_long: Duration) -> Self {
        Self { for_long, known: Mutex::new(HashMap::new()) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, _)| at.elapsed() < self.for_long).map(|(_, value)| value.clone())
    }

    /// Remembers, and forgets what is too old; if that is not enough, the oldest.
    pub(super) fn put(&self, key: K, value: V) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED && !known.contains_key(&key) {
            known.retain(|_, (at, _)| at.elapsed() < self.for_long);
            if known.len() >= MAX_REMEMBERED
                && let Some(oldest) = known.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone())
            {
                known.remove(&oldest);
            }
        }
        known.insert(key, (Instant::now(), value));
    }

    pub(super) fn forget(&self, key: &K) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// How often one cause is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Lets each cause through once a minute.
pub(super) struct Quiet(Memory<String, ()>);

impl Default for Quiet {
    fn default() -> Self {
        Self(Memory::new(LOG_EVERY))
    }
}

impl Quiet {
    /// Whether a line about `cause` may be written now.
    pub(super) fn allows(&self, cause: &str) -> bool {
        let cause = cause.to_owned();
        let quiet = self.0.get(&cause).is_some();
        if !quiet {
            self.0.put(cause, ());
        }
        !quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_forgets_with_time_and_never_grows_beyond_its_limit() {
        let memory = Memory::new(Duration::from_secs(10));
        for key in 0..3 * MAX_REMEMBERED {
            tokio::time::advance(Duration::from_millis(1)).await;
            memory.put(key, key);
        }
        assert_eq!(memory.known.lock().unwrap().len(), MAX_REMEMBERED);
        assert_eq!(memory.get(&0), None);
        assert_eq!(memory.get(&(3 * MAX_REMEMBERED - 1)), Some(3 * MAX_REMEMBERED - 1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.get(&(3 * MAX_REMEMBERED - 1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_for_each_cause() {
        let quiet = Quiet::default();
        assert!(quiet.allows("sealed"));
        assert!(!quiet.allows("sealed"));
        assert!(quiet.allows("unreachable"));
        tokio::time::advance(LOG_EVERY).await;
        assert!(quiet.allows("sealed"));
    }
}
