//! Snapshots: the ledger as bytes, and how they lie in the store.
//!
//! Owns the record that says which snapshot is the current one. A snapshot is written with that record and the
//! removal of its predecessor in one synced batch: after a crash there is the old one or the new one, whole.

use std::io;

use openraft::storage::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};

use super::state_machine::Applied;
use super::types::{Snapshot, SnapshotMeta, TypeConfig};
use crate::domain::ledger::Ledger;
use crate::store::codec;
use crate::store::engine::{Batch, Family};
use crate::store::keys;
use crate::store::writer::Store;

/// Snapshots lie in pieces of this size: RocksDB copies each value a few times.
const PIECE_BYTES: usize = 256 << 10;

/// Largest snapshot that is written, sent or taken: a full ledger ([`crate::domain::ledger::MAX_ENTRIES`]) of
/// ordinary entries is 20 MiB.
pub const MAX_BYTES: usize = 256 << 20;

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
pub struct Builder {
    store: Store,
    applied: Option<Applied>,
}

impl Builder {
    pub(super) fn new(store: Store, applied: Applied) -> Self {
        Self { store, applied: Some(applied) }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let applied = self.applied.take().ok_or_else(|| io::Error::other("a snapshot builder builds once"))?;
        let meta = SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership };
        let data = codec::encode(&applied.ledger).map_err(io::Error::other)?;
        save(&self.store, &meta, &data).await?;
        Ok(Snapshot { meta, snapshot: data })
    }
}

/// The ledger that a snapshot holds.
pub(super) fn decode(meta: &SnapshotMeta, data: &[u8]) -> io::Result<Applied> {
    let ledger: Ledger = codec::decode(data).map_err(|error| invalid(format!("its ledger cannot be read: {error}")))?;
    Ok(Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone(), ledger })
}

/// Makes `data` the current snapshot. Durable when it returns.
pub(super) async fn save(store: &Store, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
    if data.len() > MAX_BYTES {
        return Err(invalid(format!("it has {} bytes; at most {MAX_BYTES} are kept", data.len())));
    }
    let before = current(store)?;
    let serial = before.as_ref().map_or(0, |current| current.serial + 1);
    let mut batch = Batch::default();
    let mut pieces = 0;
    for piece in data.chunks(PIECE_BYTES) {
        batch.put(Family::Snapshot, keys::piece(serial, pieces), piece);
        pieces += 1;
    }
    let record = Current { meta: meta.clone(), serial, pieces, bytes: data.len() as u64 };
    batch.put(Family::Meta, keys::SNAPSHOT, codec::encode(&record).map_err(io::Error::other)?);
    batch.delete_range(Family::Snapshot, keys::piece(0, 0).to_vec()..keys::piece(serial, 0).to_vec());
    store.commit(batch).await.map_err(io::Error::other)
}

/// The current snapshot, if there is one.
///
/// # Errors
/// A piece is missing or too short, or a record cannot be read: with its place.
pub(super) fn load(store: &Store) -> io::Result<Option<Snapshot>> {
    let Some(current) = current(store)? else { return Ok(None) };
    let mut data = Vec::with_capacity(usize::try_from(current.bytes).unwrap_or(0).min(MAX_BYTES));
    for number in 0..current.pieces {
        let key = keys::piece(current.serial, number);
        let piece = store.get(Family::Snapshot, &key).map_err(io::Error::other)?;
        let piece = piece.ok_or_else(|| invalid(format!("piece {number} of {} is missing", current.pieces)))?;
        data.extend(piece);
    }
    if data.len() as u64 != current.bytes {
        return Err(invalid(format!("it ends after {} of {} bytes", data.len(), current.bytes)));
    }
    Ok(Some(Snapshot { meta: current.meta, snapshot: data }))
}

fn current(store: &Store) -> io::Result<Option<Current>> {
    let Some(bytes) = store.get(Family::Meta, keys::SNAPSHOT).map_err(io::Error::other)? else { return Ok(None) };
    let current = codec::decode(&bytes).map_err(|error| invalid(format!("its record cannot be read: {error}")))?;
    Ok(Some(current))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot cannot be used: {what}"))
}
