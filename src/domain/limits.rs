//! Limits on what is delivered at once and a second: their defaults, and the token bucket that keeps one.
//!
//! Pure: time is the milliseconds that the caller counts, so that a limit can be replayed. Numbers are whole: what a
//! bucket lets through in an hour is exact to one.

/// What may keep a pod waiting although it could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `limits.inFlight`: as many deliveries as may be under way are.
    InFlight,
    /// `limits.vaultRequestsPerSecond`.
    Vault,
    /// `limits.perRolePerSecond`.
    Role,
    /// `limits.perNamespacePerSecond`.
    Namespace,
    /// Its own init container has failed several times in a row.
    Pod,
}

impl Limit {
    /// All of them: each is a label of one metric.
    pub const ALL: [Self; 5] = [Self::InFlight, Self::Vault, Self::Role, Self::Namespace, Self::Pod];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Vault => "vault",
            Self::Role => "role",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
        }
    }

    /// Why a pod waits because of it, and what may be done: a sentence without its end, fit for an Event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::InFlight => {
                "as many deliveries as limits.inFlight allows are under way; do many init containers accept \
                 connections and then hang?"
            }
            Self::Vault => "more pods start than limits.vaultRequestsPerSecond lets through",
            Self::Role => "more pods of this AppRole start than limits.perRolePerSecond lets through",
            Self::Namespace => "more pods of this namespace start than limits.perNamespacePerSecond lets through",
            Self::Pod => {
                "its init container has failed several times in a row, and each of its starts would cost a secret_id; \
                 its log says why it fails"
            }
        }
    }
}

/// One token, in the unit in which buckets count: a rate in thousandths a second is then that many of them a
/// millisecond.
const TOKEN: u64 = 1_000_000;

/// A bucket holds what comes in so many seconds. A cluster that starts anew has every pod ask at once, and is served
/// at 500 to 1,000 a second: 10 s is as long as 5,000 pods are on their way.
const BURST_SECONDS: u64 = 10;

/// How often something may happen, in thousandths a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// The lowest rate: once in a hundred seconds. An init container waits for 5 minutes.
    pub const MIN: Self = Self(10);

    /// The highest rate: no limit in practice, and far from the end of the numbers here.
    pub const MAX: Self = Self::per_second(1_000_000);

    /// So many a second.
    pub const fn per_second(times: u64) -> Self {
        Self(times * 1_000)
    }

    /// So many thousandths a second; `None` outside of [`Self::MIN`] to [`Self::MAX`].
    pub fn from_thousandths(thousandths: u64) -> Option<Self> {
        let rate = Self(thousandths);
        (Self::MIN..=Self::MAX).contains(&rate).then_some(rate)
    }

    /// How many may happen at once after a rest: what comes in ten seconds, and one at least.
    pub fn burst(self) -> u64 {
        self.full() / TOKEN
    }

    fn full(self) -> u64 {
        (self.0 * 1_000 * BURST_SECONDS).max(TOKEN)
    }
}

/// What is limited beside each pod's own back-off. The rates count requests for a `secret_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.inFlight`: deliveries that are under way at once, from the claim to the answer.
    pub in_flight: usize,
    /// `limits.vaultRequestsPerSecond`: for all pods together.
    pub vault: Rate,
    /// `limits.perRolePerSecond`: for each AppRole.
    pub role: Rate,
    /// `limits.perNamespacePerSecond`: for each namespace of pods.
    pub namespace: Rate,
}

impl Limits {
    /// The most that [`Self::in_flight`] may be. Each is a connection and some 30 KiB of its buffers.
    pub const IN_FLIGHT_MOST: usize = 10_000;
}

impl Default for Limits {
    /// What 5,000 pods that start at once never meet.
    ///
    /// In flight: our init container answers in a fraction of a second, so that 1,000 deliveries a second have a few
    /// hundred under way; only receivers that hang, for 30 s each, fill 2,048, and that many still leave the others
    /// their turn. Rates: one replica delivers 500 to 1,000 a second, and a bucket holds ten seconds' worth: 5,000 pods
    /// of one role in one namespace find 5,000 tokens, and as many again come in while they are served.
    fn default() -> Self {
        Self {
            in_flight: 2_048,
            vault: Rate::per_second(1_000),
            role: Rate::per_second(500),
            namespace: Rate::per_second(500),
        }
    }
}

/// A token bucket, full at first.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    level: u64,
    /// Until when what has come in is in `level`.
    filled: u64,
}

impl Bucket {
    /// A full one, at the millisecond `now`.
    pub fn new(rate: Rate, now: u64) -> Self {
        Self { rate, level: rate.full(), filled: now }
    }

    /// Takes one token at the millisecond `now`.
    ///
    /// # Errors
    /// There is none: in how many milliseconds there will be one (never 0).
    pub fn take(&mut self, now: u64) -> Result<(), u64> {
        self.wait(now).map_or(Ok(()), Err)?;
        self.level -= TOKEN;
        Ok(())
    }

    /// In how many milliseconds from `now` there is a token; `None` where there is one.
    pub fn wait(&mut self, now: u64) -> Option<u64> {
        self.fill(now);
        (self.level < TOKEN).then(|| (TOKEN - self.level).div_ceil(self.rate.0))
    }

    /// Gives back a token that was not used.
    pub fn give_back(&mut self) {
        self.level = (self.level + TOKEN).min(self.rate.full());
    }

    /// Whether it is as good as a new one.
    pub fn is_full(&mut self, now: u64) -> bool {
        self.fill(now);
        self.level == self.rate.full()
    }

    fn fill(&mut self, now: u64) {
        let gained = now.saturating_sub(self.filled).saturating_mul(self.rate.0);
        self.level = self.level.saturating_add(gained).min(self.rate.full());
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(bucket: &mut Bucket, at: u64) -> u64 {
        let mut taken = 0;
        while bucket.take(at).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_is_free_and_the_rest_comes_at_its_rate() {
        let mut bucket = Bucket::new(Rate::per_second(5), 0);
        assert_eq!(taken(&mut bucket, 0), 50);
        assert_eq!(bucket.take(0), Err(200));
        assert_eq!(bucket.take(199), Err(1));
        assert_eq!(bucket.take(200), Ok(()));
        assert_eq!(taken(&mut bucket, 60_000), 50, "it holds no more than a burst");
    }

    #[test]
    fn a_rate_below_one_a_burst_still_lets_one_through() {
        let mut bucket = Bucket::new(Rate::MIN, 0);
        assert_eq!((Rate::MIN.burst(), taken(&mut bucket, 0)), (1, 1));
        assert_eq!(bucket.take(0), Err(100_000));
        assert_eq!(taken(&mut bucket, 100_000), 1);
    }

    #[test]
    fn a_token_that_is_given_back_can_be_taken_and_makes_no_bucket_overflow() {
        let mut bucket = Bucket::new(Rate::per_second(1), 0);
        bucket.give_back();
        assert_eq!(taken(&mut bucket, 0), 10);
        bucket.give_back();
        assert_eq!(taken(&mut bucket, 0), 1);
    }

    #[test]
    fn rates_out_of_bounds_are_none() {
        for thousandths in [0, 9, 1_000_000_001, u64::MAX] {
            assert_eq!(Rate::from_thousandths(thousandths), None, "{thousandths}");
        }
        assert_eq!(Rate::from_thousandths(500), Some(Rate(500)));
    }

    #[test]
    fn five_thousand_pods_at_once_fit_into_each_default() {
        let Limits { in_flight, vault, role, namespace } = Limits::default();
        assert!([vault, role, namespace].iter().all(|rate| rate.burst() >= 5_000));
        assert!(in_flight <= Limits::IN_FLIGHT_MOST);
    }

    #[test]
    fn each_limit_has_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<&str> = Limit::ALL.iter().map(|limit| limit.label()).collect();
        assert_eq!(labels.len(), Limit::ALL.len());
    }

    proptest! {
        // Whatever the order of events: never more than a burst and the rate allow, and a wait that was told is enough.
        #[test]
        fn a_bucket_never_lets_through_more_than_its_rate_and_keeps_its_word(
            thousandths in 10u64..10_000_000,
            steps in proptest::collection::vec(0u64..5_000, 1..200),
        ) {
            let rate = Rate::from_thousandths(thousandths).unwrap();
            let mut bucket = Bucket::new(rate, 0);
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                match bucket.take(now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        prop_assert!(wait > 0);
                        prop_assert!(bucket.take(now + wait - 1).is_err(), "it could have been sooner");
                        prop_assert!(bucket.take(now + wait).is_ok());
                        (now, taken) = (now + wait, taken + 1);
                    }
                }
                prop_assert!(taken * TOKEN <= rate.full() + now * thousandths);
            }
        }
    }
}
