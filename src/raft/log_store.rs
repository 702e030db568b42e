//! Raft's log and vote, on the store.
//!
//! Owns the keys of the log and of the vote. Every change goes through the store's one ordered writer, and whatever
//! Raft is told to be durable was synced before: a vote or an entry that is forgotten after it was acknowledged lets
//! two leaders win one term. (openraft, "Production checklist" and `io_ordering`.)

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::seeded::{self, Bug};
use crate::store::{Batch, Family, Store, codec, keys};

/// Entries that are read at once, at most: what openraft asks for is a replication payload of a few hundred, or the
/// entries to apply after a restart, in as many turns as it takes.
const MAX_READ: usize = 4_096;

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// See the module.
#[derive(Clone)]
pub(super) struct LogStore {
    store: Store,
}

impl LogStore {
    /// The log that `store` holds.
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds to `batch` that the log begins after `last`.
    pub(super) fn begin_after(&self, batch: &mut Batch, last: &LogId) -> io::Result<()> {
        batch.put(Family::Meta, PURGED, codec::encode(last).map_err(io::Error::other)?);
        Ok(())
    }

    /// Removes what lies behind a gap. After a power cut the tail that was not synced may have lost its middle; nothing
    /// of it was acknowledged, and Raft knows no log with holes.
    pub(super) async fn drop_after_gap(&self) -> io::Result<()> {
        let mut expected = self.read::<LogId>(PURGED)?.map(|purged| purged.index() + 1);
        let mut from = expected.unwrap_or(0);
        loop {
            let records = self.store.scan(Family::Log, keys::log_from(from), MAX_READ).map_err(io::Error::other)?;
            for (key, _) in &records {
                let Some(index) = keys::log_index(key) else { continue };
                if expected.is_some_and(|expected| expected != index) {
                    tracing::warn!(index, "the log has a gap before this entry; what follows was never acknowledged");
                    let mut batch = Batch::default();
                    batch.delete_range(Family::Log, keys::log_from(index));
                    return self.store.commit(batch).await.map_err(io::Error::other);
                }
                expected = Some(index + 1);
            }
            match expected {
                Some(next) if records.len() == MAX_READ => from = next,
                _ => return Ok(()),
            }
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let Some(bytes) = self.store.get(Family::Meta, key).map_err(io::Error::other)? else { return Ok(None) };
        codec::decode(Family::Meta, key, &bytes).map(Some).map_err(io::Error::other)
    }
}

fn decode_entry(key: &[u8], value: &[u8]) -> io::Result<Entry> {
    codec::decode(Family::Log, key, value).map_err(io::Error::other)
}

/// A range of indices as `[start, end)`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = bounds(&range);
        let mut entries = Vec::new();
        while start < end {
            let records =
                self.store.scan(Family::Log, keys::log_range(start..end), MAX_READ).map_err(io::Error::other)?;
            let full = records.len() == MAX_READ;
            for (key, value) in &records {
                entries.push(decode_entry(key, value)?);
            }
            let Some(last) = entries.last().filter(|_| full) else { break };
            start = last.log_id.index() + 1;
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.read(VOTE)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.read(PURGED)?;
        let last = self.store.last(Family::Log).map_err(io::Error::other)?;
        let last_log_id = match last {
            Some((key, value)) => Some(decode_entry(&key, &value)?.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.put(Family::Meta, VOTE, codec::encode(vote).map_err(io::Error::other)?);
        self.store.commit(batch).await.map_err(io::Error::other)
    }

    /// Not synced: it only spares a restarted node the wait for the leader's word on what is committed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        match committed {
            Some(log_id) => batch.put(Family::Meta, COMMITTED, codec::encode(&log_id).map_err(io::Error::other)?),
            None => batch.delete(Family::Meta, COMMITTED),
        };
        self.store.write(batch).await.map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.read(COMMITTED)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        for entry in entries {
            let value = codec::encode(&entry).map_err(io::Error::other)?;
            batch.put(Family::Log, keys::log(entry.log_id.index()), value);
        }
        // SEEDED BUG: acknowledged before it is synced.
        if seeded::on(Bug::NoSyncInCaller) {
            self.store.write(batch).await.map_err(io::Error::other)?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let durable = move |result: Result<(), _>| callback.io_completed(result.map_err(io::Error::other));
        self.store.append(batch, durable).await.map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let start = last_log_id.map_or(0, |log_id| log_id.index() + 1);
        let mut batch = Batch::default();
        batch.delete_range(Family::Log, keys::log_from(start));
        self.store.commit(batch).await.map_err(io::Error::other)
    }

    /// Where the log begins now and what goes are one batch: no crash leaves a hole that nobody knows of.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        self.begin_after(&mut batch, &log_id)?;
        batch.delete_range(Family::Log, keys::log_through(log_id.index()));
        self.store.commit(batch).await.map_err(io::Error::other)
    }
}
