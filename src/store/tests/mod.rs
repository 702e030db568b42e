//! The promises of the store, on both engines and in both modes.

mod damage;
mod disk;
mod engines;
mod order;
mod same;

use super::engine::{Batch, Engine, Family};
use super::keys;

/// A batch that sets log record `index`.
fn put(index: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Family::Log, keys::log(index), format!("record {index}"));
    batch
}

/// The log records that can be read.
fn indexes(engine: &impl Engine) -> Vec<u64> {
    let records = engine.scan(Family::Log, keys::all(), usize::MAX).unwrap();
    records.iter().filter_map(|(key, _)| keys::log_index(key)).collect()
}
