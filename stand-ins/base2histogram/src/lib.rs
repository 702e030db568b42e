//! Histograms that count nothing, in place of the crate of this name (`[patch.crates-io]` in the workspace).
//!
//! openraft counts into such histograms how large its batches are, and we never read them. The original builds tables
//! for all of its sixteen resolutions at the first use, 25 MiB that stay resident, where openraft uses one of a kilobyte.
//! Ours has the interface that openraft wants, and no more: whatever else a newer openraft asks for fails to compile.
//! It goes away when upstream builds only the table that is used (`LOG_SCALES` in its `log_scale.rs`).

use std::fmt;
use std::marker::PhantomData;

/// Takes values, and forgets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    _slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty one. Each is.
    pub fn new() -> Self {
        Self { _slots: PhantomData }
    }

    /// Forgets `value`.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets `value`, as often as it is told.
    pub fn record_n(&mut self, _value: u64, _times: u64) {}

    /// Those of no values.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles; all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}

/// A chart of nothing.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        Self
    }

    /// Adds nothing.
    #[must_use]
    pub fn add<T>(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}
