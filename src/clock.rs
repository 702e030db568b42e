//! The only reader of wall-clock time, and the only source of random numbers that are not keys.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::ids::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Draws random numbers: attempt ids and jitter. Never keys.
#[derive(Clone)]
pub struct Dice(std::sync::Arc<dyn Fn() -> u64 + Send + Sync>);

impl Dice {
    /// The operating system's, through the thread's own generator.
    pub fn fair() -> Self {
        Self(std::sync::Arc::new(rand::random))
    }

    /// One that a test has loaded.
    pub fn loaded(roll: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(roll))
    }

    /// A random number.
    pub fn roll(&self) -> u64 {
        (self.0)()
    }
}
