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

/// A snapshot writes the whole ledger. It is worth it once the log has grown by an entry for so many of the ledger's:
/// then snapshots write a few times what the log writes, however large the ledger is. A full one
/// ([`crate::domain::ledger::MAX_ENTRIES`]) lets the log grow to 8 MiB, replayed in a fraction of a second.
const ENTRIES_PER_LOGGED: u64 = 2;

/// See the module.
pub(super) struct Machine {
    shared: SharedLedger,
    shelf: Shelf,
    /// The last entry that is in the newest snapshot.
    snapshot: u64,
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
        let snapshot = index(applied.log_id.as_ref());
        let shared = SharedLedger(Arc::new(RwLock::new(applied)));
        Ok((Self { shared: shared.clone(), shelf, snapshot }, shared))
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

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let worth = self.shared.read(|applied| {
            let since = index(applied.log_id.as_ref()).saturating_sub(self.snapshot);
            since >= applied.ledger.len() as u64 / ENTRIES_PER_LOGGED
        });
        match force || worth {
            true => Some(self.get_snapshot_builder().await),
            false => None,
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Nothing is applied meanwhile: ledger, entry and configuration are of one moment.
        let applied = self.shared.read(Applied::clone);
        self.snapshot = index(applied.log_id.as_ref());
        Builder::new(self.shelf.clone(), applied)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), io::Error> {
        let applied = self.shelf.install(meta, data).await?;
        self.snapshot = index(applied.log_id.as_ref());
        self.shared.write(|current| *current = applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let shelf = self.shelf.clone();
        self.shelf.store().aside(move || shelf.get()).await?
    }
}

fn index(log_id: Option<&LogId>) -> u64 {
    log_id.map_or(0, LogId::index)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use openraft::RaftSnapshotBuilder;
    use openraft::impls::leader_id_std::LeaderId;
    use openraft::vote::RaftLeaderId;

    use super::super::types::Entry;
    use super::*;
    use crate::domain::ids::{
        AttemptId, BootId, ContainerId, InstanceKey, NodeId, PodRef, PodUid, RoleName, Timestamp,
    };
    use crate::domain::ledger::{Author, Claim, Command};
    use crate::store::mem::MemEngine;

    fn claim(index: u64) -> Entry {
        let uid = PodUid::from(format!("pod-{index}").as_str());
        let container_id = ContainerId::from("c");
        let command = Command::Claim(Claim {
            key: InstanceKey { pod: uid.clone(), container: "install".into(), container_id, generation: 0 },
            attempt: AttemptId::from("a"),
            pod: PodRef { namespace: "n".into(), name: "p".into(), uid },
            role: RoleName::parse("r").unwrap(),
            by: Author { term: term_of(&log_id(index)), boot: BootId(1) },
            at: Timestamp(1),
        });
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(command) }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId::new(1, NodeId(1)).to_committed(), index)
    }

    async fn apply(machine: &mut Machine, through: u64) {
        let from = index(machine.shared.read(|applied| applied.log_id).as_ref()) + 1;
        let entries: Vec<_> = (from..=through).map(|index| Ok((claim(index), None))).collect();
        machine.apply(stream::iter(entries)).await.unwrap();
    }

    #[tokio::test]
    async fn a_large_ledger_is_written_when_the_log_has_grown_with_it() {
        let (mut machine, ledger) = Machine::load(Store::inline(MemEngine::new())).unwrap();
        apply(&mut machine, 1_000).await;
        let mut builder = machine.try_create_snapshot_builder(false).await.expect("the first one is worth it");
        builder.build_snapshot().await.unwrap();
        apply(&mut machine, 1_100).await;
        assert_eq!(ledger.read(|applied| applied.ledger.len()), 1_100);
        assert!(machine.try_create_snapshot_builder(false).await.is_none(), "100 entries for 1,100");
        assert!(machine.try_create_snapshot_builder(true).await.is_some(), "somebody needs it");
        apply(&mut machine, 3_000).await;
        assert!(machine.try_create_snapshot_builder(false).await.is_some(), "1,900 entries for 3,000");
        // A restart knows what the snapshot on the shelf holds.
        let (mut machine, _) = Machine::load(machine.shelf.store().clone()).unwrap();
        assert!(machine.try_create_snapshot_builder(false).await.is_none(), "nothing is newer than the snapshot");
    }
}
