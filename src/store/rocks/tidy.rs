//! Gives the space of deleted snapshots back to the disk.
//!
//! RocksDB marks what a range deletion covers, and drops it when it merges the files that hold it: for a log that goes
//! on, by itself; for a snapshot of 20 MiB that was replaced, only with the next one. So it is asked to merge that
//! range, on a thread of its own, since it takes as long as reading it. Merging never changes what is readable, which
//! removing files (`delete_files_in_range`) would, had somebody written there again.
//!
//! Owns that thread. Must never keep the database open when the engine has gone.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rocksdb::{CompactOptions, DB};

use crate::store::engine::Family;

/// One wake-up waits at most: it takes all that was deleted until then.
const WAKE_UPS: usize = 1;

/// The thread and what it has to do.
pub(super) struct Tidy {
    deleted: Arc<Mutex<Option<Range<Vec<u8>>>>>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tidy {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(db: &Arc<DB>) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(WAKE_UPS);
        let deleted = Arc::new(Mutex::new(None));
        let (db, ranges) = (Arc::clone(db), Arc::clone(&deleted));
        let thread = std::thread::Builder::new().name("store-tidy".into()).spawn(move || run(&db, &ranges, &woken))?;
        Ok(Self { deleted, wake: Some(wake), thread: Some(thread) })
    }

    /// Tells that snapshots in `range` were deleted.
    pub(super) fn deleted(&self, range: Range<Vec<u8>>) {
        let mut deleted = lock(&self.deleted);
        *deleted = Some(match deleted.take() {
            Some(earlier) => earlier.start.min(range.start)..earlier.end.max(range.end),
            None => range,
        });
        drop(deleted);
        // Full means that the thread will wake anyway.
        let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(deleted: &Mutex<Option<Range<Vec<u8>>>>) -> MutexGuard<'_, Option<Range<Vec<u8>>>> {
    deleted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(db: &DB, deleted: &Mutex<Option<Range<Vec<u8>>>>, woken: &Receiver<()>) {
    let mut options = CompactOptions::default();
    // Others may be merged meanwhile.
    options.set_exclusive_manual_compaction(false);
    while woken.recv().is_ok() {
        let range = lock(deleted).take();
        if let (Some(range), Some(family)) = (range, db.cf_handle(Family::Snapshot.name())) {
            db.compact_range_cf_opt(family, Some(range.start), Some(range.end), &options);
        }
    }
}
