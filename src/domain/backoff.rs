//! How long to wait before the next try: exponential, with jitter, capped.
//!
//! Pure: the caller brings the random number, so that a schedule can be replayed.

use std::time::Duration;

/// A schedule of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter.
    pub first: Duration,
    /// No wait is longer.
    pub most: Duration,
}

/// Redialling an init container that does not listen yet. It listens some 7 ms after its start, and the status
/// "running" follows its start: the first waits are short. One that does not come up costs one connection in 5 s.
pub const DIAL: Backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_secs(5) };

/// A fresh attempt after one that the init container refused or left without an answer.
pub const ATTEMPT: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// Vault as a whole cannot serve: one request in 15 s is enough to see that it can again.
pub const VAULT: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(15) };

/// Vault refuses one role: somebody has to create it or to change a policy.
pub const ROLE: Backoff = Backoff { first: Duration::from_secs(5), most: Duration::from_secs(60) };

/// An init container that crashes: each start of it would cost a `secret_id`.
pub const CRASH_LOOP: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };

/// The ledger did not take a fact: an election takes half a second.
pub const RECORD: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(2) };

impl Backoff {
    /// The wait after `failures` failures in a row (at least one), with `random` in `0.0..1.0`.
    ///
    /// Between half of the exponential step and the whole of it: never zero, so that no loop is busy.
    pub fn wait(self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let step = self.first.saturating_mul(1 << doublings).min(self.most);
        step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_zero_never_over_the_cap_and_never_shrinks(failures in 1u32..10_000, random in 0.0f64..1.0) {
            for schedule in [DIAL, ATTEMPT, VAULT, ROLE, CRASH_LOOP, RECORD] {
                let wait = schedule.wait(failures, random);
                prop_assert!(wait >= schedule.first / 2);
                prop_assert!(wait <= schedule.most);
                prop_assert!(schedule.wait(failures + 1, random) >= wait);
            }
        }
    }
}
