//! Forming a cluster anew out of what one survivor of a lost quorum has.
//!
//! Owns the one place that writes a configuration past Raft. Everything in the survivor's log counts as committed: it
//! has the greatest log of all that are left, so whatever was acknowledged and is not lost is in it. The new epoch,
//! the ledger and the configuration are one batch: a crash leaves the old cluster or the new one. Must never run while
//! openraft does, nor while a quorum of the old configuration could still answer; the caller has made sure of both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::storage::RaftLogReader;
use openraft::{EntryPayload, Membership};

use super::log_store::LogStore;
use super::snapshot::Shelf;
use super::state_machine::Machine;
use super::types::{SnapshotMeta, StoredMembership, term_of};
use crate::domain::ids::{Epoch, NodeId};
use crate::domain::membership::Member;
use crate::store::marker::{self, Marker};
use crate::store::{Family, Store, codec, keys};

/// Makes `node` the only voter of its cluster, under a new epoch, with the ledger that it has.
///
/// # Errors
/// The store cannot be read or written, or holds no log to go on from. Nothing was changed then.
pub(super) async fn alone(store: &Store, marker: Marker, node: NodeId, member: Member) -> io::Result<Marker> {
    let (_, shared) = Machine::load(store.clone())?;
    let mut log = LogStore::new(store.clone());
    let mut applied = shared.read(Clone::clone);
    let next = applied.log_id.map_or(0, |log_id| log_id.index() + 1);
    for entry in log.try_get_log_entries(next..).await? {
        if let EntryPayload::Normal(command) = &entry.payload {
            applied.ledger.apply(command, term_of(&entry.log_id));
        }
        applied.log_id = Some(entry.log_id);
    }
    let last = applied.log_id.ok_or_else(|| io::Error::other("there is no log to go on from"))?;
    let membership =
        Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, member)])).map_err(io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), membership) };
    let ledger = codec::encode(&applied.ledger).map_err(io::Error::other)?;
    let mut batch = Shelf::new(store.clone()).replacement(&meta, &ledger).await?;
    batch.delete_range(Family::Log, keys::all());
    log.begin_after(&mut batch, &last)?;
    let Some((cluster, Epoch(epoch))) = marker.cluster else {
        return Err(io::Error::other("there is no cluster to form anew"));
    };
    marker::join_with(store, batch, marker, cluster, Epoch(epoch + 1)).await.map_err(io::Error::other)
}
