//! The handle by which all others use the store.
//!
//! Owns the two ways to run it: with threads, and inline for simulations, where a thread of the system would make every
//! run another one. Both go through the same [`Core`]. Must never reorder: the order of all writes is that of the calls
//! (of their first polls, where they are futures).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::engine::{Batch, Engine, Family, Record};
use super::writer::{Core, Job, OnDurable, StoreError, Threads};

/// The store. Clones are cheap, and all of them are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    mode: Mode,
}

enum Mode {
    /// Everything is done by the caller, at once.
    Inline,
    /// None once it is closed.
    Threads(Mutex<Option<(mpsc::Sender<Job>, Threads)>>),
}

impl Store {
    /// A store with its own threads, which do all writing.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(engine: impl Engine) -> std::io::Result<Self> {
        let core = Arc::new(Core::new(engine));
        let threads = Threads::start(&core)?;
        Ok(Self(Arc::new(Inner { core, mode: Mode::Threads(Mutex::new(Some(threads))) })))
    }

    /// A store that does everything in the calling task, each commit with its own sync: for simulations, whose every
    /// step must be the same in each run, and for commands that run once. With a disk it would block the runtime.
    pub fn inline(engine: impl Engine) -> Self {
        Self(Arc::new(Inner { core: Arc::new(Core::new(engine)), mode: Mode::Inline }))
    }

    /// Returns once `batch` can be read. It is durable with the next batch that is, not before.
    ///
    /// # Errors
    /// The write failed, or an earlier one did.
    pub async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.submit(batch, None).await
    }

    /// Returns once `batch` is durable. A caller that stops waiting stops nothing.
    ///
    /// # Errors
    /// The write or the sync failed, or an earlier one did. Whether `batch` is on disk is unknown then.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (answer, durable) = oneshot::channel();
        // Who does not wait any more does not hear it.
        self.submit(batch, Some(Box::new(move |outcome| drop(answer.send(outcome))))).await?;
        durable.await.unwrap_or_else(|_| Err(self.0.core.unanswered()))
    }

    /// Returns once `batch` can be read, and calls `on_durable` once it is durable, or cannot be: exactly once, in the
    /// order of the calls, on the thread that syncs (inline: before this returns). It must not block.
    ///
    /// # Errors
    /// The write failed, or an earlier one did; `on_durable` hears of it too.
    pub async fn append(
        &self,
        batch: Batch,
        on_durable: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.submit(batch, Some(Box::new(on_durable))).await
    }

    /// Computes what takes long (a whole ledger written or read) on another thread; inline, here and now.
    ///
    /// # Errors
    /// It panicked, or the runtime ends.
    pub async fn aside<R: Send + 'static>(&self, compute: impl FnOnce() -> R + Send + 'static) -> std::io::Result<R> {
        match self.0.mode {
            Mode::Inline => Ok(compute()),
            Mode::Threads(_) => tokio::task::spawn_blocking(compute).await.map_err(std::io::Error::other),
        }
    }

    async fn submit(&self, batch: Batch, durable: Option<OnDurable>) -> Result<(), StoreError> {
        let core = &self.0.core;
        let Mode::Threads(threads) = &self.0.mode else {
            let written = core.write(batch);
            if let Some(durable) = durable {
                durable(written.clone().and_then(|()| core.sync()));
            }
            return written;
        };
        let queue = lock(threads).as_ref().map(|(queue, _)| queue.clone());
        let (readable, answer) = oneshot::channel();
        let unsent = match queue {
            Some(queue) => queue.send(Job { batch, readable, durable }).await.err().map(|unsent| unsent.0.durable),
            None => Some(durable),
        };
        if let Some(durable) = unsent {
            let error = core.unanswered();
            durable.into_iter().for_each(|durable| durable(Err(error.clone())));
            return Err(error);
        }
        answer.await.unwrap_or_else(|_| Err(core.unanswered()))
    }

    /// One value. Blocks, at the speed of memory: what is read often lies in RocksDB's cache or the page cache.
    ///
    /// # Errors
    /// It cannot be read, or the store has failed.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.core.read(|engine| engine.get(family, key))
    }

    /// The first `limit` records of `range`, in order. Blocks, as [`Store::get`].
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub fn scan(&self, family: Family, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.0.core.read(|engine| engine.scan(family, range, limit))
    }

    /// The record with the greatest key. Blocks, as [`Store::get`].
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub fn last(&self, family: Family) -> Result<Option<Record>, StoreError> {
        self.0.core.read(|engine| engine.last(family))
    }

    /// Waits for the first failed write or sync: the process has to end then. Never returns while there is none.
    pub async fn failed(&self) -> StoreError {
        self.0.core.failed().await
    }

    /// How many syncs have succeeded.
    pub fn syncs(&self) -> u64 {
        self.0.core.syncs()
    }

    /// Finishes what was asked for, ends the threads and lets go of the folder, for all clones. Later calls fail with
    /// [`StoreError::Closed`]. Dropping the last clone does the same, and blocks until it is done.
    pub async fn close(&self) {
        match &self.0.mode {
            Mode::Inline => self.0.core.close(),
            Mode::Threads(threads) => {
                let threads = lock(threads).take();
                if let Some((queue, threads)) = threads {
                    drop(queue);
                    self.0.core.closed().await;
                    // They have nothing left to do but to end.
                    threads.join();
                }
                // Another clone may have begun to close it.
                self.0.core.closed().await;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Mode::Threads(threads) = &self.mode else { return };
        let threads = lock(threads).take();
        if let Some((queue, threads)) = threads {
            drop(queue);
            threads.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
