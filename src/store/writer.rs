//! The one writer: what is written in which order, and who hears of it when.
//!
//! Two threads, so that a slow disk delays only those who wait for it: the first writes each batch and says that it can
//! be read; the second syncs, and says so to all whose batches were written before that sync began. While one sync is
//! under way the next ones' callers gather, and share the next sync.
//!
//! Owns the engine and the order. Must never say "durable" without a sync after the write, nor go on after the first
//! failure: what is on disk is unknown then, and a later sync may succeed without what an earlier one lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};

use super::engine::{Batch, Engine, EngineError};

/// Batches that wait for the writer. With a full queue callers wait: a slow disk slows Raft, and takes no memory.
pub const QUEUE: usize = 64;

/// Batches that are written and wait for a sync. With as many, the writer waits for the sync.
pub const UNSYNCED: usize = 256;

/// The store cannot do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A write or a sync has failed, this one or an earlier one. Nothing more is taken: the process has to start anew.
    #[error("the storage has failed, and takes nothing more")]
    Poisoned(#[source] Arc<EngineError>),
    /// A read has failed.
    #[error("the storage cannot be read")]
    Read(#[source] Arc<EngineError>),
    /// It was closed.
    #[error("the storage is closed")]
    Closed,
}

/// Hears whether a batch is durable.
pub(super) type OnDurable = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One call.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) readable: oneshot::Sender<Result<(), StoreError>>,
    pub(super) durable: Option<OnDurable>,
}

/// The engine and its health: what both modes of the store share.
pub(super) struct Core {
    /// None once it is closed: then the folder is free.
    engine: RwLock<Option<Box<dyn Engine>>>,
    failure: watch::Sender<Option<Arc<EngineError>>>,
    closed: watch::Sender<bool>,
    syncs: AtomicU64,
}

impl Core {
    pub(super) fn new(engine: impl Engine) -> Self {
        Self {
            engine: RwLock::new(Some(Box::new(engine))),
            failure: watch::Sender::new(None),
            closed: watch::Sender::new(false),
            syncs: AtomicU64::new(0),
        }
    }

    /// Makes `batch` readable.
    pub(super) fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.change(|engine| engine.write(batch))
    }

    /// Makes durable what was written. The only sync there is.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.change(<dyn Engine>::sync)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&dyn Engine) -> Result<(), EngineError>) -> Result<(), StoreError> {
        self.with(change)?.map_err(|error| self.poison(error))
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&dyn Engine) -> Result<T, EngineError>) -> Result<T, StoreError> {
        self.with(read)?.map_err(|error| StoreError::Read(Arc::new(error)))
    }

    fn with<T>(&self, work: impl FnOnce(&dyn Engine) -> T) -> Result<T, StoreError> {
        if let Some(cause) = &*self.failure.borrow() {
            return Err(StoreError::Poisoned(Arc::clone(cause)));
        }
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        engine.as_deref().map(work).ok_or(StoreError::Closed)
    }

    /// The first cause is the one that is told from now on.
    fn poison(&self, cause: EngineError) -> StoreError {
        let mut first = Arc::new(cause);
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            first = Arc::clone(failure.get_or_insert_with(|| Arc::clone(&first)));
            is_first
        });
        StoreError::Poisoned(first)
    }

    /// Waits for the first failure.
    pub(super) async fn failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        let cause = failure.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
        match cause {
            Some(cause) => StoreError::Poisoned(cause),
            // Its sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// The error for a caller whom nobody answers.
    pub(super) fn unanswered(&self) -> StoreError {
        self.failure.borrow().as_ref().map_or(StoreError::Closed, |cause| StoreError::Poisoned(Arc::clone(cause)))
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Lets go of the engine, once nobody reads any more.
    pub(super) fn close(&self) {
        drop(self.engine.write().unwrap_or_else(PoisonError::into_inner).take());
        self.closed.send_replace(true);
    }

    pub(super) async fn closed(&self) {
        // Its sender lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// What is done when a thread ends, in whatever way: a panic is a failure like another.
struct Ending {
    core: Arc<Core>,
    /// The syncer is the last to need the engine.
    closes: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.core.poison(EngineError { operation: "the storage's thread", cause: "it panicked".into() });
        }
        if self.closes {
            self.core.close();
        }
    }
}

/// Both threads.
pub(super) struct Threads([JoinHandle<()>; 2]);

impl Threads {
    /// Starts them. They end when the senders of the queue are gone and everything in it is done; then the core is
    /// closed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(core: &Arc<Core>) -> std::io::Result<(mpsc::Sender<Job>, Self)> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (written, waiting) = sync_channel(UNSYNCED);
        let ending = Ending { core: Arc::clone(core), closes: true };
        let syncer = Builder::new().name("store-sync".into()).spawn(move || sync_all(&ending.core, &waiting))?;
        let ending = Ending { core: Arc::clone(core), closes: false };
        let writer =
            Builder::new().name("store-write".into()).spawn(move || write_all(&ending.core, jobs, &written))?;
        Ok((queue, Self([writer, syncer])))
    }

    /// Waits until they have ended. Does nothing on one of them, which may hold the last handle in a callback.
    pub(super) fn join(self) {
        let here = std::thread::current().id();
        if self.0.iter().all(|thread| thread.thread().id() != here) {
            // One that panicked has poisoned the core.
            self.0.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}

/// The writer: each batch in its order.
fn write_all(core: &Core, mut jobs: mpsc::Receiver<Job>, written: &SyncSender<OnDurable>) {
    while let Some(job) = jobs.blocking_recv() {
        // Who does not wait any more does not hear it.
        let _ = job.readable.send(core.write(job.batch));
        // A failed write, too, is told through the syncer, so that callers hear in the order of their calls.
        if let Some(Err(unheard)) = job.durable.map(|durable| written.send(durable)) {
            // The syncer has panicked.
            (unheard.0)(Err(core.unanswered()));
        }
    }
}

/// The syncer: one sync for all that wait.
fn sync_all(core: &Core, waiting: &Receiver<OnDurable>) {
    while let Ok(first) = waiting.recv() {
        // Those in the channel now were written before the sync begins.
        let group: Vec<OnDurable> = std::iter::once(first).chain(waiting.try_iter().take(UNSYNCED)).collect();
        let outcome = core.sync();
        group.into_iter().for_each(|durable| durable(outcome.clone()));
    }
}
