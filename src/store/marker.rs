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
use crate::seeded::{self, Bug};

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
    // SEEDED BUG: an id that follows from the pod comes back with it.
    let reused = pod.as_ref().filter(|_| seeded::on(Bug::NodeIdReused));
    let fresh = reused.map_or(fresh, |pod| NodeId(crc32fast::hash(pod.as_str().as_bytes()).into()));
    Marker { format: FORMAT, node: fresh, pod, bound_to_pod, owner, cluster: None, made: now }
}

async fn save(store: &Store, mut batch: Batch, marker: Marker) -> Result<Marker, MarkerError> {
    batch.put(Family::Meta, keys::MARKER, codec::encode(&marker)?);
    store.commit(batch).await?;
    Ok(marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::{Engine, Record};
    use crate::store::mem::MemEngine;

    const CLUSTER: (ClusterId, Epoch) = (ClusterId(7), Epoch(1));

    fn pod(uid: &str, bound_to_pod: bool) -> Claimant {
        let owner = "vault/kubernetes-vault/main".to_owned();
        Claimant { fresh: NodeId(1), pod: Some(uid.into()), bound_to_pod, owner, now: Timestamp(5) }
    }

    fn everything(engine: &MemEngine) -> Vec<Vec<Record>> {
        Family::ALL.iter().map(|family| engine.scan(*family, keys::all(), usize::MAX).unwrap()).collect()
    }

    /// A storage of pod `a`, with a cluster and some log.
    async fn used(bound_to_pod: bool) -> (MemEngine, Store) {
        let engine = MemEngine::new();
        let store = Store::inline(engine.clone());
        let marker = claim(&store, pod("a", bound_to_pod)).await.unwrap();
        join(&store, marker, CLUSTER.0, CLUSTER.1).await.unwrap();
        let mut batch = Batch::default();
        store.commit(batch.put(Family::Log, keys::log(1), "x").clone()).await.unwrap();
        (engine, store)
    }

    /// The refusal's line, for a storage that must not change by it.
    async fn refused(engine: &MemEngine, store: &Store, claimant: Claimant) -> String {
        let (before, writes) = (everything(engine), engine.writes());
        let line = claim(store, claimant).await.unwrap_err().to_string();
        assert_eq!((everything(engine), engine.writes()), (before, writes));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains("raftDir"), "{line}");
        line
    }

    #[tokio::test]
    async fn an_id_is_given_once_and_found_again_after_a_power_cut() {
        let (engine, _) = used(true).await;
        engine.crash();
        let store = Store::inline(engine.reopen());
        let marker = claim(&store, Claimant { fresh: NodeId(2), now: Timestamp(9), ..pod("a", true) }).await.unwrap();
        assert_eq!((marker.node, marker.made, marker.cluster), (NodeId(1), Timestamp(5), Some(CLUSTER)));
        assert_eq!(read(&store).unwrap(), Some(marker));
    }

    #[tokio::test]
    async fn bound_storage_of_another_pod_is_refused() {
        for (made, claimed) in [(true, true), (true, false), (false, true)] {
            let (engine, store) = used(made).await;
            let line = refused(&engine, &store, pod("b", claimed)).await;
            assert!(line.contains("belongs to pod a and this is pod b") && line.contains("0000000000000001"), "{line}");
        }
    }

    #[tokio::test]
    async fn storage_that_outlives_its_pod_goes_to_the_next_one() {
        let (_, store) = used(false).await;
        let marker = claim(&store, pod("b", false)).await.unwrap();
        assert_eq!((marker.node, marker.pod, marker.cluster), (NodeId(1), Some("b".into()), Some(CLUSTER)));
        assert_eq!(read(&store).unwrap().and_then(|marker| marker.pod), Some("b".into()));
    }

    #[tokio::test]
    async fn storage_of_another_cluster_is_refused() {
        let (engine, store) = used(false).await;
        let line = refused(&engine, &store, Claimant { owner: "vault/other/main".into(), ..pod("a", false) }).await;
        assert!(line.contains("belongs to vault/kubernetes-vault/main and this is vault/other/main"), "{line}");
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused() {
        let (engine, store) = used(false).await;
        let newer = Marker { format: FORMAT + 1, ..read(&store).unwrap().unwrap() };
        save(&store, Batch::default(), newer).await.unwrap();
        let line = refused(&engine, &store, pod("a", false)).await;
        assert!(line.contains("has the format 2 and this version knows 1 at most: run the newer version"), "{line}");
    }

    #[tokio::test]
    async fn a_damaged_marker_and_a_missing_one_are_refused() {
        let (engine, store) = used(false).await;
        engine.damage(Family::Meta, keys::MARKER, |bytes| bytes[2] ^= 1);
        let error = read(&store).unwrap_err();
        assert!(crate::causes::with_causes(&error).contains("record `marker` of meta is damaged"), "{error}");
        refused(&engine, &store, pod("a", false)).await;
        let mut batch = Batch::default();
        store.commit(batch.delete(Family::Meta, keys::MARKER).clone()).await.unwrap();
        assert!(refused(&engine, &store, pod("a", false)).await.contains("no marker"));
    }

    #[tokio::test]
    async fn to_start_over_is_a_new_member_and_nothing_else() {
        let (engine, store) = used(true).await;
        let marker = start_over(&store, Claimant { fresh: NodeId(2), ..pod("a", true) }).await.unwrap();
        assert_eq!((marker.node, marker.cluster), (NodeId(2), None));
        let counts: Vec<_> = everything(&engine).iter().map(Vec::len).collect();
        assert_eq!((counts, engine.unsynced()), (vec![1, 0, 0], 0));
    }
}
