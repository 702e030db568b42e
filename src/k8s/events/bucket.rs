//! A token bucket: so many at once, then so many a second.
//!
//! Pure but for the clock of tokio.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that is full at first.
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), level: burst.into(), filled: Instant::now() }
    }

    /// Takes one token; says how long to wait before it may be used.
    pub(super) fn take(&mut self) -> Duration {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.burst) - 1.0;
        self.filled = now;
        Duration::from_secs_f64((-self.level / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_comes_at_its_rate() {
        let mut bucket = Bucket::new(100, 50);
        let begun = Instant::now();
        for _ in 0..600 {
            tokio::time::sleep(bucket.take()).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((9.5..11.0).contains(&took), "{took}");
    }
}
