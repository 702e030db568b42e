//! Peers of another cluster behind our own service: when one was met last.
//!
//! Gossip meets them, `status` tells of them. Owns how long a meeting counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Members of another cluster greet every few seconds for as long as the service lists both: a minute without a word means
/// that they are gone.
const RECENT: Duration = Duration::from_secs(60);

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Encounters(Arc<Mutex<Option<Instant>>>);

impl Encounters {
    /// One was met now.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago one was met, if that is not long ago.
    pub(super) fn recent(&self) -> Option<Duration> {
        let met = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.map(|at| at.elapsed()).filter(|ago| *ago < RECENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_meeting_counts_for_a_minute() {
        let encounters = Encounters::default();
        assert_eq!(encounters.recent(), None);
        encounters.clone().note();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(encounters.recent(), Some(Duration::from_secs(59)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(encounters.recent(), None);
    }
}
