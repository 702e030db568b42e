//! Log lines limited by cause: the first at once, then one a minute that says how many were left out.
//!
//! Pure but for the clock of tokio. Must never suppress a cause that was not logged a short while ago.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// One line a minute and cause: enough to see that it lasts, too little to fill a disk.
const QUIET: Duration = Duration::from_secs(60);

/// Which causes were logged when. Causes are constants, so that the table cannot grow.
#[derive(Default)]
pub(super) struct LogLimit {
    causes: HashMap<&'static str, (Instant, u64)>,
}

impl LogLimit {
    /// Whether a line for `cause` is due; if so, how many were left out since the last.
    pub(super) fn admit(&mut self, cause: &'static str) -> Option<u64> {
        let now = Instant::now();
        let Some((last, omitted)) = self.causes.get_mut(cause) else {
            self.causes.insert(cause, (now, 0));
            return Some(0);
        };
        if now.duration_since(*last) < QUIET {
            *omitted += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_logged_at_once_and_then_once_a_minute_with_a_count() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.admit("gone"), Some(0));
        assert_eq!(limit.admit("gone"), None);
        assert_eq!(limit.admit("gone"), None);
        assert_eq!(limit.admit("refused"), Some(0), "another cause has its own limit");
        tokio::time::advance(QUIET).await;
        assert_eq!(limit.admit("gone"), Some(2));
        assert_eq!(limit.admit("gone"), None);
    }
}
