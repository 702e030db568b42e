//! One round: what it has found, and what follows from it, as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reason::Reason;
use super::{ClusterId, Epoch, Heard, Listed, PodUid, Silence, Standing};
use crate::domain::ids::{BootId, NodeId};

/// How often the reasons of a wait are logged.
pub const LOG_EVERY: Duration = Duration::from_secs(10);

/// After this long a node that fails on identity alone reports ready, so that a roll-out of a new secret goes on.
pub const READY_WITHOUT_IDENTITY_AFTER: Duration = Duration::from_secs(60);

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// Our own pod.
    pub uid: PodUid,
    /// Our storage's id.
    pub node: NodeId,
    /// This process.
    pub boot: BootId,
    /// Our storage goes with our pod.
    pub bound_to_pod: bool,
}

/// What one round has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The fresh read that [`begin`](super::Bootstrap::begin) was given.
    pub listed: Vec<Listed>,
    /// What became of the probe to each peer that `begin` named.
    pub heard: BTreeMap<PodUid, Heard>,
    /// The second fresh read, after [`Decision::ReadAgain`].
    pub second: Option<Vec<Listed>>,
    /// We have an identity for peers.
    pub identity: bool,
}

/// What to do after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A member with a leader, or one whose leader is Raft's to find: nothing to do.
    Stay,
    /// Another round, soon. The reasons say what for.
    Wait,
    /// A second fresh read, then decide again.
    ReadAgain,
    /// Draw a cluster id and initialise ourselves alone. From now on our answers say so.
    Initialise,
    /// Ask this member to let us join; once it agrees, persist the cluster's id.
    Join {
        /// Where to ask.
        at: Listed,
        /// Who is there.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
        /// The cluster's epoch.
        epoch: Epoch,
    },
    /// Several clusters behind one service: join none, and report.
    Conflict {
        /// Which.
        clusters: Vec<ClusterId>,
    },
    /// The remembered cluster is no more: wipe the storage, draw a new id, begin again.
    StartOver {
        /// Which one is forgotten.
        cluster: ClusterId,
    },
    /// There is a peer, and we have no identity to show it: exit with code 2 and name the keys.
    NeedIdentity,
}

/// A decision, and a line for the log for each peer that keeps us waiting or is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What to do.
    pub decision: Decision,
    /// Why, one line each.
    pub reasons: Vec<Reason>,
}

impl Ruling {
    /// Whether only another secret at each silent peer keeps an uninitialised node from a cluster.
    pub fn fails_on_identity_alone(&self) -> bool {
        let mut silent = self.reasons.iter().filter_map(|reason| match reason {
            Reason::Silent { silence, .. } => Some(silence),
            _ => None,
        });
        let first = silent.next();
        self.decision == Decision::Wait
            && first == Some(&Silence::OtherSecret)
            && silent.all(|s| *s == Silence::OtherSecret)
    }

    /// Whether a node with empty storage, which has had such rulings for `lasted`, is to report ready.
    pub fn ready_all_the_same(&self, standing: Standing, lasted: Duration) -> bool {
        standing == Standing::Uninitialised && self.fails_on_identity_alone() && lasted >= READY_WITHOUT_IDENTITY_AFTER
    }
}
