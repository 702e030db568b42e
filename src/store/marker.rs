//! The marker: whose storage this is. The first record of a new storage, and the first that is read of an old one.
//!
//! Owns the rule who may use which storage. A member's id stands for its vote and its log, so that two processes with
//! one id, or one whose storage was another's, could elect two leaders: storage is refused whenever it may not be ours,
//! and nothing in it is changed then. Must never give an id to a storage that has one.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError, EncodeError};
use super::engine::{Batch, Family};
use super::handle::Store;
use super::keys;
use super::writer::StoreError;
use crate::domain::ids::{ClusterId, Epoch, NodeId, PodUid, Timestamp};

/// The layout of the whole storage: which families and keys there are, and what they mean. Raised by a change that an
/// older version must not touch.
pub const FORMAT: u32 = 1;

/// Who wants to use the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The id for a new storage: random. An old one keeps its own.
    pub fresh: NodeId,
    /// Our pod; none outside of Kubernetes.
    pub pod: Option<PodUid>,
    /// Whether the storage goes with the pod (`emptyDir`, the container's own layer), or outlives it.
    pub bound_to_pod: bool,
    /// `namespace/service/clusterName`.
    pub owner: String,
    /// Now.
    pub now: Timestamp,
}

/// Whose storage it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// See [`FORMAT`]. First, and never moved.
    format: u32,
    /// The member.
    pub node: NodeId,
    /// The pod that used it last.
    pub pod: Option<PodUid>,
    /// Whether it goes with that pod.
    pub bound_to_pod: bool,
    /// `namespace/service/clusterName`.
    pub owner: String,
    /// The cluster, once there is one.
    pub cluster: Option<(ClusterId, Epoch)>,
    /// When it was made.
    pub made: Timestamp,
}

/// The storage cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It belongs to a pod, and we are another one.
    #[error(
        "the storage in raftDir belongs to pod {theirs} and this is pod {ours}: that pod may still run with the same \
         member id ({node}); give each replica a folder of its own, or empty this one, and it joins as a new member"
    )]
    OtherPod {
        /// Its pod.
        theirs: PodUid,
        /// Ours.
        ours: PodUid,
        /// Its member.
        node: NodeId,
    },
    /// It belongs to another service or cluster.
    #[error(
        "the storage in raftDir belongs to {theirs} and this is {ours} (namespace/service/raft.clusterName): set what \
         it belongs to, or another raftDir, or empty this one, and it joins as a new member"
    )]
    OtherCluster {
        /// Its owner.
        theirs: String,
        /// Us.
        ours: String,
    },
    /// It was written by a newer version.
    #[error(
        "the storage in raftDir has the format {found} and this version knows {known} at most: run the newer version \
         again, or empty the folder, and it joins as a new member"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It has records, and does not say whose they are.
    #[error(
        "the storage in raftDir has records but no marker: it is not ours, or it is damaged; set another raftDir, or \
         empty this one, and it joins as a new member"
    )]
    Unmarked,
    /// Its marker cannot be read.
    #[error("the storage in raftDir is damaged: empty it, and it joins as a new member")]
    Damaged(#[source] DecodeError),
    /// A marker cannot be written.
    #[error("the storage's marker cannot be written")]
    Encode(#[from] EncodeError),
    /// The store failed.
    #[error("the storage's marker cannot be read or written")]
    Store(#[from] StoreError),
}

/// The marker, if there is one. Checks its format only: for commands that look at a storage.
///
/// # Errors
/// It cannot be read.
pub fn read(store: &Store) -> Result<Option<Marker>, MarkerError> {
    let Some(bytes) = store.get(Family::Meta, keys::MARKER)? else { return Ok(None) };
    match codec::decode::<Marker>(Family::Meta, keys::MARKER, &bytes) {
        Ok(marker) if marker.format > FORMAT => Err(MarkerError::Newer { found: marker.format, known: FORMAT }),
        Ok(marker) => Ok(Some(marker)),
        Err(DecodeError::Newer { found, .. }) => {
            Err(MarkerError::Newer { found: found.into(), known: codec::FORMAT.into() })
        }
        Err(damaged) => Err(MarkerError::Damaged(damaged)),
    }
}

/// Takes the storage for `claimant`: makes the marker of an empty one, checks that of another.
///
/// # Errors
/// It is not ours; see [`MarkerError`].
pub async fn claim(store: &Store, claimant: Claimant) -> Result<Marker, MarkerError> {
    let Some(found) = read(store)? else {
        for family in Family::ALL {
            if store.last(family)?.is_some() {
                return Err(MarkerError::Unmarked);
            }
        }
        return save(store, Batch::default(), made_by(claimant)).await;
    };
    check(&found, &claimant)?;
    let marker =
        Marker { pod: claimant.pod.or(found.pod.clone()), bound_to_pod: claimant.bound_to_pod, ..found.clone() };
    if marker == found { Ok(found) } else { save(store, Batch::default(), marker).await }
}

/// Remembers the cluster, once it is known, and its epoch.
///
/// # Errors
/// The store failed.
pub async fn join(store: &Store, marker: Marker, cluster: ClusterId, epoch: Epoch) -> Result<Marker, MarkerError> {
    join_with(store, Batch::default(), marker, cluster, epoch).await
}

/// The same, together with other changes: a crash leaves all of it or nothing.
///
/// # Errors
/// The store failed.
pub async fn join_with(
    store: &Store,
    changes: Batch,
    marker: Marker,
    cluster: ClusterId,
    epoch: Epoch,
) -> Result<Marker, MarkerError> {
    save(store, changes, Marker { cluster: Some((cluster, epoch)), ..marker }).await
}

/// Forgets everything and begins as a new member, in one batch: a crash leaves the old storage or the new one.
///
/// # Errors
/// The store failed.
pub async fn start_over(store: &Store, claimant: Claimant) -> Result<Marker, MarkerError> {
    let mut batch = Batch::default();
    for family in Family::ALL {
        batch.delete_range(family, keys::all());
    }
    save(store, batch, made_by(claimant)).await
}

/// The rule who may use which storage.
fn check(found: &Marker, claimant: &Claimant) -> Result<(), MarkerError> {
    if found.owner != claimant.owner {
        return Err(MarkerError::OtherCluster { theirs: found.owner.clone(), ours: claimant.owner.clone() });
    }
    match (&found.pod, &claimant.pod) {
        // Either side's word is enough: bound storage that came to another pod is a copy, and a copy's original may run.
        (Some(theirs), Some(ours)) if theirs != ours && (found.bound_to_pod || claimant.bound_to_pod) => {
            Err(MarkerError::OtherPod { theirs: theirs.clone(), ours: ours.clone(), node: found.node })
        }
        _ => Ok(()),
    }
}

fn made_by(claimant: Claimant) -> Marker {
    let Claimant { fresh, pod, bound_to_pod, owner, now } = claimant;
    Marker { format: FORMAT, node: fresh, pod, bound_to_pod, owner, cluster: None, made: now }
}

async fn save(store: &Store, mut batch: Batch, marker: Marker) -> Result<Marker, MarkerError> {
    batch.put(Family::Meta, keys::MARKER, codec::encode(&marker)?);
    store.commit(batch).await?;
    Ok(marker)
}
