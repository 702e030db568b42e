//! What a store stands on: ordered keys in a few families, atomic batches, and a sync that is asked for by name.
//!
//! Two engines answer it: RocksDB, and one in memory whose `crash()` drops what was not synced. A write is readable at
//! once and durable only after the next [`Engine::sync`]: that is the whole contract, so that a forgotten sync shows
//! in a simulation, where a killed process would still find its page cache.

use std::ops::Range;

/// Groups of keys. Each has its own order and its own memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Few small records: the marker, the vote, where the log begins, which snapshot is the current one.
    Meta,
    /// The Raft log: big-endian index to entry.
    Log,
    /// Snapshots, in pieces.
    Snapshot,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Log, Self::Snapshot];

    /// Its name on disk. Never change one after a release.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Snapshot => "snapshot",
        }
    }
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Family, Vec<u8>),
    /// Removes all keys from the start, inclusive, to the end, exclusive.
    DeleteRange(Family, Range<Vec<u8>>),
}

/// Changes that happen all at once or not at all, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.0.push(Change::Put(family, key.into(), value.into()));
        self
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) -> &mut Self {
        self.0.push(Change::Delete(family, key.into()));
        self
    }

    /// Removes all keys of `range`.
    pub fn delete_range(&mut self, family: Family, range: Range<Vec<u8>>) -> &mut Self {
        self.0.push(Change::DeleteRange(family, range));
        self
    }
}

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// The engine could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed")]
pub struct EngineError {
    /// What was asked for.
    pub operation: &'static str,
    /// What the engine says.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// An ordered store of records. Calls block: they belong on a thread of their own, or to start-up.
pub trait Engine: Send + Sync + 'static {
    /// Makes `batch` readable, whole and after all earlier ones. Not durable before [`Engine::sync`] returns.
    ///
    /// # Errors
    /// Nothing is known of the batch then: the store must not be used any further.
    fn write(&self, batch: Batch) -> Result<(), EngineError>;

    /// Returns once everything that was written survives a power cut.
    ///
    /// # Errors
    /// Nothing is known of what is durable then (after a failed fsync a later one may lie): as for a write.
    fn sync(&self) -> Result<(), EngineError>;

    /// One value.
    ///
    /// # Errors
    /// The engine cannot read, or the record's checksum does not match.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// The first `limit` records of `range`, in the order of keys.
    ///
    /// # Errors
    /// As for [`Engine::get`].
    fn scan(&self, family: Family, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Record>, EngineError>;

    /// The record with the greatest key.
    ///
    /// # Errors
    /// As for [`Engine::get`].
    fn last(&self, family: Family) -> Result<Option<Record>, EngineError>;
}
