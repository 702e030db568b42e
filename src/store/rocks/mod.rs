//! The engine on disk: RocksDB, one column family for each family, one write-ahead log for all of them.
//!
//! Owns the folder while it is open (RocksDB's lock keeps others out). A write reaches the page cache, in one piece with
//! all its families; a sync reaches the disk. Must never open a folder that it cannot fully trust: damage, a newer
//! format and a second process are refused, each with what to do.

mod options;
mod tidy;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rocksdb::statistics::Ticker;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, ReadOptions, WriteBatch};

use super::engine::{Batch, Change, Engine, EngineError, Family, Record};
use super::trouble::Trouble;
use crate::seeded::{self, Bug};
use tidy::Tidy;

/// Bytes that the system counts as one block, whatever the size of those on the disk.
const STAT_BLOCK_BYTES: u64 = 512;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the storage {}: {trouble}", folder.display())]
pub struct OpenError {
    /// Which folder.
    pub folder: PathBuf,
    /// Why, and what to do.
    pub trouble: Trouble,
}

/// RocksDB in a folder.
pub struct RocksEngine {
    // Before `db`: its thread holds the database, and fields are dropped in this order.
    tidy: Tidy,
    db: Arc<DB>,
}

/// The count of syncs that RocksDB itself keeps. Does not keep the folder open.
#[derive(Clone)]
pub struct WalSyncs(Arc<Options>);

impl WalSyncs {
    /// How often RocksDB has synced its write-ahead log. It does so of its own, too, before it flushes a table.
    pub fn count(&self) -> u64 {
        self.0.get_ticker_count(Ticker::WalFileSynced)
    }
}

impl RocksEngine {
    /// Opens `folder`, and makes it where it is missing.
    ///
    /// # Errors
    /// The folder cannot be used; nothing in it has changed then.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, false).map(|(engine, _)| engine)
    }

    /// As [`RocksEngine::open`], with RocksDB's own count of its syncs: for tests, since it takes 75 kB for each core.
    ///
    /// # Errors
    /// As for [`RocksEngine::open`].
    pub fn open_counted(folder: &Path) -> Result<(Self, WalSyncs), OpenError> {
        Self::open_with(folder, true)
    }

    fn open_with(folder: &Path, statistics: bool) -> Result<(Self, WalSyncs), OpenError> {
        let refused = |trouble| OpenError { folder: folder.to_owned(), trouble };
        let failed = |error: io::Error| refused(Trouble::read(&error.to_string(), None));
        create_durably(folder).map_err(failed)?;
        // RocksDB's error says that a log is damaged; which file, and how much of it, is in a warning before it.
        let warning = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&warning);
        let options = options::database(statistics, move |line| {
            tracing::debug!(rocksdb = line, "RocksDB warns");
            if line.contains("dropping") {
                *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.to_owned());
            }
        });
        let cache = options::cache();
        let families =
            Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), options::family(family, &cache)));
        let db = DB::open_cf_descriptors(&options, folder, families).map_err(|error| {
            let context = warning.lock().unwrap_or_else(PoisonError::into_inner);
            refused(Trouble::read(error.as_ref(), context.as_deref()))
        })?;
        let db = Arc::new(db);
        let tidy = Tidy::start(&db).map_err(failed)?;
        Ok((Self { tidy, db }, WalSyncs(Arc::new(options))))
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, EngineError> {
        self.db.cf_handle(family.name()).ok_or_else(|| EngineError {
            operation: "a look-up of a family",
            cause: Box::new(Trouble::read("Corruption: a column family is missing", None)),
        })
    }
}

impl Drop for RocksEngine {
    fn drop(&mut self) {
        // A merge that is under way ends early: it would be done again, and the folder is wanted by the next process.
        self.db.cancel_all_background_work(true);
    }
}

/// What is on disk in `folder`, in blocks of the disk: logs are allocated ahead of what is written.
///
/// # Errors
/// The folder cannot be read.
pub fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        // RocksDB removes files all the time.
        sum += entry?.metadata().map_or(0, |metadata| metadata.blocks() * STAT_BLOCK_BYTES);
    }
    Ok(sum)
}

/// Makes `folder` so that it survives a power cut: a folder's name is part of its parent, and RocksDB syncs its own
/// content only.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(parent)?.sync_all(),
    }
}

fn failed(operation: &'static str) -> impl Fn(rocksdb::Error) -> EngineError {
    move |error| EngineError { operation, cause: Box::new(Trouble::read(error.as_ref(), None)) }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut writes = WriteBatch::default();
        let mut deleted = Vec::new();
        for change in batch.0 {
            match change {
                Change::Put(family, key, value) => writes.put_cf(self.family(family)?, key, value),
                Change::Delete(family, key) => writes.delete_cf(self.family(family)?, key),
                // RocksDB refuses a range that ends before it starts.
                Change::DeleteRange(_, range) if range.start >= range.end => {}
                Change::DeleteRange(family, range) => {
                    writes.delete_range_cf(self.family(family)?, &range.start, &range.end);
                    if family == Family::Snapshot {
                        deleted.push(range);
                    }
                }
            }
        }
        self.db.write(writes).map_err(failed("a write to the storage"))?;
        deleted.into_iter().for_each(|range| self.tidy.deleted(range));
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        // SEEDED BUG: written, and not synced.
        self.db.flush_wal(!seeded::on(Bug::NoSyncInRocks)).map_err(failed("a sync of the storage"))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.db.get_cf(self.family(family)?, key).map_err(failed("a read of the storage"))
    }

    fn scan(&self, family: Family, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Record>, EngineError> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.end);
        // A snapshot is read once, and would push all else out of the cache.
        options.fill_cache(family != Family::Snapshot);
        let from = IteratorMode::From(&range.start, Direction::Forward);
        let records = self.db.iterator_cf_opt(self.family(family)?, options, from);
        let records = records.take(limit).map(|record| record.map(|(key, value)| (key.into_vec(), value.into_vec())));
        records.collect::<Result<_, _>>().map_err(failed("a read of the storage"))
    }

    fn last(&self, family: Family) -> Result<Option<Record>, EngineError> {
        let last = self.db.iterator_cf(self.family(family)?, IteratorMode::End).next().transpose();
        let last = last.map_err(failed("a read of the storage"))?;
        Ok(last.map(|(key, value)| (key.into_vec(), value.into_vec())))
    }
}
