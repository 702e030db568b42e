//! How the watch is: what readiness and metrics ask.
//!
//! Owns counters and times only. Written by the watch, read by anybody; must never block either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A watch that lost its connection is still fresh for this long: an API server that restarts, or a load balancer
/// that moves, must not make replicas unready.
const GRACE: Duration = Duration::from_secs(60);

/// How the watch is. One per [`super::watch::Feed`].
pub struct WatchHealth {
    begun: Instant,
    synced: AtomicBool,
    connected: AtomicBool,
    /// Milliseconds from `begun` to the last word of the API server.
    contact: AtomicU64,
    restarts: AtomicU64,
    errors: AtomicU64,
    undecodable: AtomicU64,
    last_error: Mutex<Option<Arc<str>>>,
}

/// What the watch has counted since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Complete lists begun; the first is one of them.
    pub restarts: u64,
    /// Failures: connections lost or refused, answers that were errors, silence.
    pub errors: u64,
    /// Pods that could not be decoded, each time that one was met.
    pub undecodable: u64,
}

impl WatchHealth {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            synced: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            contact: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// Whether a complete list was seen and nothing was lost since.
    pub fn synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    /// Since when the API server has said nothing (a bookmark counts: some send one a minute).
    pub fn silent_for(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.contact.load(Relaxed)))
    }

    /// Whether what the workflow knows of pods is current: synced, and connected or hardly disconnected.
    ///
    /// A connection that says nothing is given up by the watch itself, so `connected` cannot last on a dead one.
    pub fn fresh(&self) -> bool {
        self.synced() && (self.connected.load(Relaxed) || self.silent_for() < GRACE)
    }

    /// Why it failed last. `None`: never, or it has recovered.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted.
    pub fn counts(&self) -> WatchCounts {
        WatchCounts {
            restarts: self.restarts.load(Relaxed),
            errors: self.errors.load(Relaxed),
            undecodable: self.undecodable.load(Relaxed),
        }
    }

    pub(super) fn heard(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.contact.store(since, Relaxed);
    }

    pub(super) fn connected(&self) {
        self.heard();
        self.connected.store(true, Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connected.store(false, Relaxed);
    }

    pub(super) fn restarted(&self) {
        self.synced.store(false, Relaxed);
        self.restarts.fetch_add(1, Relaxed);
    }

    pub(super) fn is_synced(&self) {
        self.heard();
        self.synced.store(true, Relaxed);
    }

    pub(super) fn failed(&self, why: &str) {
        self.errors.fetch_add(1, Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    pub(super) fn recovered(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn met_undecodable(&self) {
        self.undecodable.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fresh_means_synced_and_not_disconnected_for_long() {
        let health = WatchHealth::new();
        assert!(!health.fresh(), "nothing was seen yet");
        health.connected();
        assert!(!health.fresh(), "the list is not complete yet");
        health.is_synced();
        tokio::time::advance(GRACE * 3).await;
        assert!(health.fresh(), "an idle cluster says nothing for minutes");
        health.disconnected();
        assert!(!health.fresh());
        health.connected();
        health.disconnected();
        assert!(health.fresh(), "a moment without connection changes nothing");
        tokio::time::advance(GRACE).await;
        assert!(!health.fresh());
    }
}
