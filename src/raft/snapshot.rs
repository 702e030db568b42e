//! Snapshots: the ledger as bytes, and how they lie in the store.
//!
//! Owns the record that says which snapshot is the current one. A snapshot's pieces are written first; that record and
//! the removal of the predecessor are one synced batch: after a crash there is the old one or the new one, whole.

use std::io;
use std::sync::Arc;

use openraft::storage::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::state_machine::Applied;
use super::types::{Snapshot, SnapshotMeta, TypeConfig};
use crate::domain::ledger::Ledger;
use crate::store::{Batch, Family, Store, codec, keys};

/// The record of the current snapshot.
const CURRENT: &[u8] = b"snapshot";

/// Largest snapshot that is written, sent or taken: a full ledger ([`crate::domain::ledger::MAX_ENTRIES`]) of
/// ordinary entries is 20 MiB.
pub(super) const MAX_BYTES: usize = 256 << 20;

/// The record of the current snapshot.
#[derive(Serialize, Deserialize)]
struct Current {
    meta: SnapshotMeta,
    /// Counts snapshots of this store: the prefix of the pieces' keys.
    serial: u64,
    pieces: u32,
    bytes: u64,
}

/// Takes one snapshot.
pub(super) struct Builder {
    shelf: Shelf,
    applied: Option<Applied>,
}

impl Builder {
    pub(super) fn new(shelf: Shelf, applied: Applied) -> Self {
        Self { shelf, applied: Some(applied) }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let applied = self.applied.take().ok_or_else(|| io::Error::other("a snapshot builder builds once"))?;
        let meta = SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership };
        let encoded = self.shelf.store.aside(move || codec::encode(&applied.ledger)).await?;
        let snapshot = encoded.map_err(io::Error::other)?;
        self.shelf.put(&meta, &snapshot).await?;
        Ok(Snapshot { meta, snapshot })
    }
}

/// The ledger that a snapshot holds.
pub(super) fn decode(meta: &SnapshotMeta, data: &[u8]) -> io::Result<Applied> {
    let ledger: Ledger = codec::decode(Family::Snapshot, CURRENT, data).map_err(io::Error::other)?;
    Ok(Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone(), ledger })
}

/// Where the current snapshot lies.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Store,
    /// One is put there at a time: one that was built here and one that the leader sent can meet.
    putting: Arc<Mutex<()>>,
}

impl Shelf {
    pub(super) fn new(store: Store) -> Self {
        Self { store, putting: Arc::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes `data`, which came from the leader, the current snapshot. What it holds.
    pub(super) async fn install(&self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<Applied> {
        let of = meta.clone();
        let (applied, data) = self.store.aside(move || (decode(&of, &data), data)).await?;
        let applied = applied?;
        self.put(meta, &data).await?;
        Ok(applied)
    }

    /// Makes `data` the current snapshot, unless there is a newer one. Durable when it returns.
    pub(super) async fn put(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        if data.len() > MAX_BYTES {
            return Err(invalid(&format!("it has {} bytes; at most {MAX_BYTES} are kept", data.len())));
        }
        let _putting = self.putting.lock().await;
        let before = self.current()?;
        if before.as_ref().is_some_and(|before| before.meta.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let batch = self.replacement(meta, data).await?;
        self.store.commit(batch).await.map_err(io::Error::other)
    }

    /// Lays the pieces of `data` beside the current snapshot; what is returned makes them the current one, once it is
    /// committed.
    pub(super) async fn replacement(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<Batch> {
        let serial = self.current()?.map_or(0, |current| current.serial + 1);
        let mut pieces = 0;
        for piece in data.chunks(keys::SNAPSHOT_PIECE_BYTES) {
            let mut batch = Batch::default();
            batch.put(Family::Snapshot, keys::snapshot_piece(serial, pieces), piece);
            self.store.write(batch).await.map_err(io::Error::other)?;
            pieces += 1;
        }
        let record = Current { meta: meta.clone(), serial, pieces, bytes: data.len() as u64 };
        let mut batch = Batch::default();
        batch.put(Family::Meta, CURRENT, codec::encode(&record).map_err(io::Error::other)?);
        batch.delete_range(Family::Snapshot, keys::snapshots_before(serial));
        Ok(batch)
    }

    /// The current snapshot, if there is one.
    ///
    /// # Errors
    /// A piece is missing or too short, or a record cannot be read: with its place.
    pub(super) fn get(&self) -> io::Result<Option<Snapshot>> {
        let Some(current) = self.current()? else { return Ok(None) };
        let mut data = Vec::new();
        for number in 0..current.pieces {
            let key = keys::snapshot_piece(current.serial, number);
            let piece = self.store.get(Family::Snapshot, &key).map_err(io::Error::other)?;
            let piece = piece.ok_or_else(|| invalid(&format!("piece {number} of {} is missing", current.pieces)))?;
            data.extend(piece);
        }
        if data.len() as u64 != current.bytes {
            return Err(invalid(&format!("it ends after {} of {} bytes", data.len(), current.bytes)));
        }
        Ok(Some(Snapshot { meta: current.meta, snapshot: data }))
    }

    fn current(&self) -> io::Result<Option<Current>> {
        let Some(bytes) = self.store.get(Family::Meta, CURRENT).map_err(io::Error::other)? else { return Ok(None) };
        codec::decode(Family::Meta, CURRENT, &bytes).map(Some).map_err(io::Error::other)
    }
}

fn invalid(what: &str) -> io::Error {
    let advice = "empty raftDir, and this replica joins as a new member";
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot cannot be used: {what}; {advice}"))
}
