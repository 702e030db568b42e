//! An engine in memory, for tests and simulations: what is readable, and apart from it what is durable.
//!
//! Owns both images. A killed process finds its page cache again, so that only this engine shows a missing sync:
//! [`MemEngine::crash`] drops whatever was not synced. Must never let a handle from before a crash write after it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{Batch, Change, Engine, EngineError, Family, Record};

/// The records of each family, in order.
type Image = BTreeMap<Family, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A disk in memory. Clones are handles of one process; [`MemEngine::reopen`] is how the next process gets its own.
#[derive(Clone, Debug, Default)]
pub struct MemEngine {
    disk: Arc<Mutex<Disk>>,
    /// How many crashes this handle's process was started after.
    boot: u64,
}

#[derive(Debug, Default)]
struct Disk {
    readable: Image,
    durable: Image,
    /// Written since the last sync, in order.
    unsynced: Vec<Batch>,
    boots: u64,
    writes: u64,
    syncs: u64,
    fail_write: bool,
    fail_sync: bool,
}

/// Why the engine in memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemFailure {
    /// A test asked for it.
    #[error("a failure was injected")]
    Injected,
    /// The process of this handle has crashed.
    #[error("this handle is from before the crash: a restarted node takes reopen()")]
    Crashed,
}

impl MemEngine {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A power cut: everything that was not synced is gone, and so is the process: its handles fail.
    pub fn crash(&self) {
        self.crash_torn(0);
    }

    /// A power cut that came in the middle of writing back: of the `n` writes that were not synced the first
    /// `roll % (n + 1)` are found again. Returns how many.
    pub fn crash_torn(&self, roll: u64) -> usize {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let unsynced = std::mem::take(&mut disk.unsynced);
        let kept = usize::try_from(roll % (unsynced.len() as u64 + 1)).unwrap_or(0);
        for batch in unsynced.into_iter().take(kept) {
            apply(&mut disk.durable, batch);
        }
        disk.readable = disk.durable.clone();
        disk.boots += 1;
        kept
    }

    /// The handle of the process that starts now. Without a crash before, everything written is still there: that is
    /// a kill, after which the page cache is written back.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), boot: self.lock().boots }
    }

    /// Lets the next write fail, and changes nothing.
    pub fn fail_next_write(&self) {
        self.lock().fail_write = true;
    }

    /// Lets the next sync fail, and makes nothing durable.
    pub fn fail_next_sync(&self) {
        self.lock().fail_sync = true;
    }

    /// How many batches were written.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many batches a crash would drop.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Damages a record on both images: `with` changes its bytes. Returns whether there was one.
    pub fn damage(&self, family: Family, key: &[u8], with: impl Fn(&mut Vec<u8>)) -> bool {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let mut found = false;
        for image in [&mut disk.readable, &mut disk.durable] {
            if let Some(value) = image.get_mut(&family).and_then(|records| records.get_mut(key)) {
                with(value);
                found = true;
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // A panic of another test thread leaves whole images: each change of one is made at once.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, for a process that is still alive.
    fn alive(&self, operation: &'static str) -> Result<MutexGuard<'_, Disk>, EngineError> {
        let disk = self.lock();
        if disk.boots == self.boot { Ok(disk) } else { Err(failure(operation, MemFailure::Crashed)) }
    }
}

fn failure(operation: &'static str, cause: MemFailure) -> EngineError {
    EngineError { operation, cause: Box::new(cause) }
}

/// Makes the changes of `batch` in their order.
fn apply(image: &mut Image, batch: Batch) {
    for change in batch.0 {
        match change {
            Change::Put(family, key, value) => {
                image.entry(family).or_default().insert(key, value);
            }
            Change::Delete(family, key) => {
                image.entry(family).or_default().remove(&key);
            }
            // A map panics where a range ends before it starts.
            Change::DeleteRange(_, range) if range.start >= range.end => {}
            Change::DeleteRange(family, range) => {
                image.entry(family).or_default().extract_if(range, |_, _| true).for_each(drop);
            }
        }
    }
}

impl Engine for MemEngine {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut disk = self.alive("a write")?;
        if std::mem::take(&mut disk.fail_write) {
            return Err(failure("a write", MemFailure::Injected));
        }
        disk.writes += 1;
        disk.unsynced.push(batch.clone());
        apply(&mut disk.readable, batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut guard = self.alive("a sync")?;
        let disk = &mut *guard;
        if std::mem::take(&mut disk.fail_sync) {
            return Err(failure("a sync", MemFailure::Injected));
        }
        disk.syncs += 1;
        for batch in disk.unsynced.drain(..) {
            apply(&mut disk.durable, batch);
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let disk = self.alive("a read")?;
        Ok(disk.readable.get(&family).and_then(|records| records.get(key)).cloned())
    }

    fn scan(&self, family: Family, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Record>, EngineError> {
        let disk = self.alive("a read")?;
        let records = disk.readable.get(&family).filter(|_| range.start < range.end);
        let found = records.into_iter().flat_map(|records| records.range(range.clone()));
        Ok(found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, family: Family) -> Result<Option<Record>, EngineError> {
        let disk = self.alive("a read")?;
        let last = disk.readable.get(&family).and_then(BTreeMap::last_key_value);
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys;

    fn put(index: u64) -> Batch {
        let mut batch = Batch::default();
        batch.put(Family::Log, keys::log(index), [1]);
        batch
    }

    fn indexes(engine: &MemEngine) -> Vec<u64> {
        let records = engine.scan(Family::Log, keys::all(), usize::MAX).unwrap();
        records.iter().filter_map(|(key, _)| keys::log_index(key)).collect()
    }

    #[test]
    fn a_crash_drops_exactly_what_was_not_synced() {
        let engine = MemEngine::new();
        for index in 1..=3 {
            engine.write(put(index)).unwrap();
        }
        engine.sync().unwrap();
        engine.write(put(4)).unwrap();
        let mut purge = Batch::default();
        engine.write(purge.delete_range(Family::Log, keys::log_through(2)).clone()).unwrap();
        assert_eq!((indexes(&engine), engine.unsynced()), (vec![3, 4], 2));
        engine.crash();
        assert_eq!(indexes(&engine.reopen()), [1, 2, 3]);
    }

    #[test]
    fn a_torn_tail_is_a_prefix_of_the_unsynced_writes() {
        for (roll, expected) in [(0, vec![]), (1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3]), (4, vec![])] {
            let engine = MemEngine::new();
            for index in 1..=3 {
                engine.write(put(index)).unwrap();
            }
            assert_eq!(engine.crash_torn(roll), expected.len());
            assert_eq!(indexes(&engine.reopen()), expected, "{roll}");
        }
    }

    #[test]
    fn a_kill_loses_nothing_and_a_later_power_cut_does() {
        let engine = MemEngine::new();
        engine.write(put(1)).unwrap();
        let restarted = engine.reopen();
        assert_eq!(indexes(&restarted), [1]);
        restarted.crash();
        assert_eq!(indexes(&engine.reopen()), Vec::<u64>::new());
    }

    #[test]
    fn a_crashed_process_writes_nothing_any_more() {
        let old = MemEngine::new();
        let clone = old.clone();
        old.crash();
        for handle in [&old, &clone] {
            assert!(handle.write(put(1)).is_err() && handle.sync().is_err() && handle.last(Family::Log).is_err());
        }
        old.reopen().write(put(1)).unwrap();
    }

    #[test]
    fn an_injected_failure_changes_nothing() {
        let engine = MemEngine::new();
        engine.fail_next_write();
        engine.write(put(1)).unwrap_err();
        engine.write(put(2)).unwrap();
        engine.fail_next_sync();
        engine.sync().unwrap_err();
        assert_eq!((indexes(&engine), engine.syncs(), engine.unsynced()), (vec![2], 0, 1));
    }
}
