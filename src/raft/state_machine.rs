//! Raft's state machine: the pure [`Ledger`], and how much of the log is in it.
//!
//! Owns the ledger in memory. What is on disk is a snapshot, and the log since: a restart loads the one and applies
//! the other again. `apply` is a pure function of the log, so every replica comes to the same ledger.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use super::snapshot::{self, Builder, Shelf};
use super::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term_of};
use crate::domain::ledger::{Ledger, Reply};
use crate::store::Store;

/// The ledger, and the last entry that is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    /// The last entry.
    pub(super) log_id: Option<LogId>,
    /// The last configuration.
    pub(super) membership: StoredMembership,
    /// What all entries made.
    pub(super) ledger: Ledger,
}

/// The applied ledger, shared with whoever reads it. Only [`Machine`] writes.
#[derive(Clone, Default)]
pub(super) struct SharedLedger(Arc<RwLock<Applied>>);

impl SharedLedger {
    /// Reads it. `read` must not take long: entries wait meanwhile.
    pub(super) fn read<R>(&self, read: impl FnOnce(&Applied) -> R) -> R {
        // A writer that panicked half-way has taken its node down with it; what is read here decides nothing then.
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, write: impl FnOnce(&mut Applied) -> R) -> R {
        write(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See the module.
pub(super) struct Machine {
    shared: SharedLedger,
    shelf: Shelf,
}

impl Machine {
    /// The machine as the newest snapshot in `store` left it.
    ///
    /// # Errors
    /// The snapshot cannot be read: with the place, and what is wrong there.
    pub(super) fn load(store: Store) -> io::Result<(Self, SharedLedger)> {
        let shelf = Shelf::new(store);
        let applied = match shelf.get()? {
            Some(found) => snapshot::decode(&found.meta, &found.snapshot)?,
            None => Applied::default(),
        };
        let shared = SharedLedger(Arc::new(RwLock::new(applied)));
        Ok((Self { shared: shared.clone(), shelf }, shared))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.shared.read(|applied| (applied.log_id, applied.membership.clone())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = self.shared.write(|applied| {
                applied.log_id = Some(entry.log_id);
                match &entry.payload {
                    EntryPayload::Blank => Reply::Done,
                    EntryPayload::Normal(command) => applied.ledger.apply(command, term_of(&entry.log_id)),
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                        Reply::Done
                    }
                }
            });
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Nothing is applied meanwhile: ledger, entry and configuration are of one moment.
        Builder::new(self.shelf.clone(), self.shared.read(Applied::clone))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        let applied = self.shelf.install(meta, data).await?;
        self.shared.write(|current| *current = applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.shelf.get()
    }
}
