//! When a token is renewed, and when it is replaced.
//!
//! Pure: the caller brings the time. Owns the reference's schedule (half of the TTL; retries that end 10 s before
//! the next due time; a minute's rest after a failure) and what it lacks: a rest that the token survives.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backoff::Backoff;

/// Between two tries of one renewal: the reference's first step and its longest.
pub(super) const RETRY: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(60) };

/// How long before the next due time the tries of one renewal end.
const END_BEFORE_NEXT: Duration = Duration::from_secs(10);

/// The rest after a renewal that failed.
const REST: Duration = Duration::from_secs(60);

/// No rest or interval is shorter, whatever a TTL says: that would be a busy loop.
const LEAST: Duration = Duration::from_secs(1);

/// A TTL that falls short of an earlier one by no more was rounded, not capped.
const ROUNDING: Duration = Duration::from_secs(2);

/// What is to be done with a token next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Renew it.
    Renew,
    /// Get another one.
    Replace,
    /// Nothing can be done: somebody else has to bring another one.
    Wait,
}

/// What is known of a token's life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// When we got it.
    issued: Instant,
    /// When `ttl` was granted.
    granted: Instant,
    ttl: Duration,
    /// The longest TTL that it was ever granted.
    full: Duration,
    /// Its whole life since `issued`, once Vault has shown it.
    max: Option<Duration>,
    renewable: bool,
}

impl Lease {
    /// Of a token that is seen now for the first time. `max` is its whole life, if Vault limits it.
    pub(super) fn new(now: Instant, ttl: Duration, max: Option<Duration>, renewable: bool) -> Self {
        Self { issued: now, granted: now, ttl, full: ttl, max, renewable }
    }

    /// After a renewal. A grant that is shorter than an earlier one shows where the token's life ends.
    pub(super) fn renewed(&mut self, now: Instant, ttl: Duration, renewable: bool) {
        if ttl + ROUNDING < self.full {
            self.max = Some(now - self.issued + ttl);
        }
        self.granted = now;
        self.ttl = ttl;
        self.full = self.full.max(ttl);
        self.renewable = renewable;
    }

    /// Vault will renew it no more.
    pub(super) fn cannot_be_renewed(&mut self) {
        self.renewable = false;
    }

    /// What is left of its life at `now`.
    pub(super) fn left(&self, now: Instant) -> Duration {
        (self.granted + self.ttl).saturating_duration_since(now)
    }

    /// Its TTL as it was granted last.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether renewals do not bring back what it once had.
    pub(super) fn is_capped(&self) -> bool {
        self.ttl + ROUNDING < self.full
    }

    /// Half of the TTL.
    pub(super) fn interval(&self) -> Duration {
        (self.ttl / 2).max(LEAST)
    }

    /// What to do next, and when. `can_replace`: we can get another one by ourselves.
    pub(super) fn next(&self, can_replace: bool) -> (Instant, Step) {
        if self.renewable {
            let rest = self.max.map(|max| (max, (self.issued + max).saturating_duration_since(self.granted)));
            return match rest {
                Some((max, rest)) if can_replace && rest < max / 3 => (self.granted, Step::Replace),
                _ => (self.granted + self.interval(), Step::Renew),
            };
        }
        if can_replace {
            // Its TTL is its whole life: the last third begins here.
            return (self.granted + (self.ttl * 2 / 3).max(LEAST), Step::Replace);
        }
        (self.granted + self.interval(), Step::Wait)
    }
}

/// How long one renewal is tried, retries included.
pub(super) fn series_limit(interval: Duration) -> Duration {
    match interval.checked_sub(END_BEFORE_NEXT) {
        Some(limit) if !limit.is_zero() => limit,
        _ => interval / 2,
    }
}

/// The rest after a renewal that failed, of a token with `left` to live: the reference's minute, but never longer
/// than half of what is left, else a minute's outage at the end of the tries would cost a token of any TTL.
pub(super) fn rest(left: Duration) -> Duration {
    if left.is_zero() { REST } else { (left / 2).clamp(LEAST, REST) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewable_token_is_renewed_at_half_of_its_ttl() {
        let now = Instant::now();
        for (ttl, half) in [(secs(3600), secs(1800)), (secs(10), secs(5)), (secs(1), secs(1))] {
            let lease = Lease::new(now, ttl, None, true);
            assert_eq!(lease.next(false), (now + half, Step::Renew));
            assert_eq!(lease.next(true), (now + half, Step::Renew));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_third_of_the_whole_life_means_another_token() {
        let now = Instant::now();
        // Known from the start: an explicit max TTL.
        let mut lease = Lease::new(now, secs(600), Some(secs(1800)), true);
        lease.renewed(now + secs(1199), secs(600), true);
        assert_eq!(lease.next(true).1, Step::Renew, "601 s of 1800 s are left");
        lease.renewed(now + secs(1201), secs(599), true);
        assert_eq!(lease.next(true), (now + secs(1201), Step::Replace));
        assert_eq!(lease.next(false).1, Step::Renew, "who cannot replace it renews as long as possible");
        // Learned from a grant that was cut: the max TTL of the mount or the role.
        let mut lease = Lease::new(now, secs(600), None, true);
        lease.renewed(now + secs(2700), secs(600), true);
        assert!(!lease.is_capped());
        lease.renewed(now + secs(3000), secs(300), true);
        assert!(lease.is_capped());
        assert_eq!(lease.next(true), (now + secs(3000), Step::Replace));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_renewed_is_replaced_in_its_last_third_or_waited_for() {
        let now = Instant::now();
        let lease = Lease::new(now, secs(900), None, false);
        assert_eq!(lease.next(true), (now + secs(600), Step::Replace));
        assert_eq!(lease.next(false).1, Step::Wait);
    }

    #[test]
    fn the_tries_end_ten_seconds_before_the_next_due_time() {
        assert_eq!(series_limit(secs(1800)), secs(1790));
        assert_eq!(series_limit(secs(11)), secs(1));
        assert_eq!(series_limit(secs(10)), secs(5));
        assert_eq!(series_limit(secs(5)), Duration::from_millis(2500));
    }

    #[test]
    fn after_a_failure_a_minute_or_what_the_token_survives() {
        assert_eq!(rest(secs(1800)), secs(60));
        assert_eq!(rest(secs(20)), secs(10));
        assert_eq!(rest(Duration::from_millis(10)), secs(1));
        assert_eq!(rest(Duration::ZERO), secs(60));
    }

    proptest! {
        #[test]
        fn no_schedule_is_busy_and_none_comes_too_late(ttl in 0u64..100_000_000, left in 0u64..100_000_000) {
            let now = Instant::now();
            let ttl = secs(ttl);
            for renewable in [true, false] {
                for can_replace in [true, false] {
                    let lease = Lease::new(now, ttl, None, renewable);
                    let (at, step) = lease.next(can_replace);
                    prop_assert!(at >= now + LEAST);
                    prop_assert!(step == Step::Wait || ttl < secs(2) || at < now + ttl);
                    prop_assert!(series_limit(lease.interval()) < lease.interval());
                }
            }
            let left = secs(left);
            prop_assert!(rest(left) >= LEAST && rest(left) <= REST);
            prop_assert!(left < secs(2) || rest(left) <= left / 2);
        }
    }
}
