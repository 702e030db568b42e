//! What replicas tell each other before and beside Raft, and what the API server says of them: the words in which
//! `bootstrap`, `membership` and `quorum` decide.
//!
//! Owns the content of probes and answers and the wording of a peer's silence. Nothing here is secret. A list is a
//! list of pod uids: never of node ids, which change with storage, nor of addresses, which are reused.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{BootId, ClusterId, Epoch, NodeId, PodUid, Term};

/// One entry of a fresh read of our own service's endpoints, or of `raft.peers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// The target's uid. With `raft.peers` the address as written stands in for it.
    pub uid: PodUid,
    /// The pod's name, for humans.
    pub name: Arc<str>,
    /// Where it is reached.
    pub address: IpAddr,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// The position of an entry in the log: later means a greater term, then a greater index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its place.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} index {}", self.term.0, self.index)
    }
}

/// How far a member's log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The last entry.
    pub last: LogId,
    /// The entry of the last membership configuration that it has, committed or not.
    pub configuration: LogId,
}

/// What a node is to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Its storage has never seen a cluster.
    Uninitialised,
    /// It has decided to initialise one, and its own membership is not committed yet.
    Initialising,
    /// It has persisted a cluster id, and is not (yet, or any more) a member.
    Remembers {
        /// Which cluster.
        cluster: ClusterId,
        /// In which epoch.
        epoch: Epoch,
        /// It is or was a voter there: its log may hold what no other one does.
        ever_voter: bool,
    },
    /// Its own membership is committed.
    Member {
        /// Of which cluster.
        cluster: ClusterId,
        /// In which epoch.
        epoch: Epoch,
        /// It is or was a voter there.
        ever_voter: bool,
        /// It follows a leader now, or is the leader.
        leader: bool,
    },
}

impl Standing {
    /// The cluster that its storage belongs to.
    pub fn cluster(&self) -> Option<(ClusterId, Epoch)> {
        match self {
            Self::Uninitialised | Self::Initialising => None,
            Self::Remembers { cluster, epoch, .. } | Self::Member { cluster, epoch, .. } => Some((*cluster, *epoch)),
        }
    }

    /// Whether it is or ever was a voter.
    pub fn ever_voter(&self) -> bool {
        matches!(self, Self::Remembers { ever_voter: true, .. } | Self::Member { ever_voter: true, .. })
    }

    /// Whether it knows a leader now.
    pub fn knows_leader(&self) -> bool {
        matches!(self, Self::Member { leader: true, .. })
    }

    /// Whether Raft may be served. An uninitialised node would vote for anyone who asks.
    pub fn serves_raft(&self) -> bool {
        self.cluster().is_some()
    }

    /// Whether this answer says that `cluster` has, or had, a voter whose storage still exists.
    pub fn tells_of_voter(&self, cluster: ClusterId) -> bool {
        self.cluster().is_some_and(|(its, _)| its == cluster) && (self.ever_voter() || self.knows_leader())
    }
}

/// A node's question to a listed peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Who asks, as it is listed.
    pub from: Listed,
    /// Its node id.
    pub node: NodeId,
    /// Its incarnation.
    pub boot: BootId,
}

/// The answer to a [`Probe`]; from an uninitialised node with a list it is also a promise, see `bootstrap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The pod that answers. An address that was reused answers with another one than the listed.
    pub uid: PodUid,
    /// Its node id.
    pub node: NodeId,
    /// Its incarnation.
    pub boot: BootId,
    /// Its storage goes with its pod.
    pub bound_to_pod: bool,
    /// What it is to a cluster.
    pub standing: Standing,
    /// The list that it compares, sorted; `None`: it has none, since no fresh read lists it.
    pub list: Option<Vec<PodUid>>,
    /// It has a standing promise to a node outside of its list: nobody may rely on the list yet.
    pub held: bool,
    /// How far its log goes, once it has one.
    pub log: Option<LogState>,
}

/// Why a peer gave no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Silence {
    /// Nothing listens there.
    #[error("the connection is refused")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// No way to it, or a connection that broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// Its certificate is not of our authority.
    #[error(
        "its certificate is from another secret: both need the same raft.secrets, vault.token or raft.tls authority"
    )]
    OtherSecret,
    /// The handshake failed in another way.
    #[error("the TLS handshake failed: {0}")]
    HandshakeFailed(Arc<str>),
    /// It speaks the Go version's plain protocol.
    #[error("it speaks the Go version's plain protocol: migration from the Go version is by Recreate")]
    GoVersion,
    /// Another pod answers: the address was reused, and the list lags behind.
    #[error("another pod answers at its address")]
    OtherPod,
    /// We have no peer identity to show it.
    #[error(
        "this node has no identity for peers: set raft.secrets, or raft.tls (raft.tls.vaultCertBackend or raft.tls.certFile), on all replicas"
    )]
    NoIdentity,
    /// What came is not our protocol.
    #[error("what it sends cannot be read: {0}")]
    Garbled(Arc<str>),
}

/// What a fresh read of a silent peer's pod says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodState {
    /// Our container in it is running.
    Running,
    /// Our container in it is not running: not started yet, ended, or in a crash loop.
    NotRunning,
    /// There is no such pod any more, or one of another uid has its name.
    Gone,
    /// It could not be read: no right to, no API server, or `raft.peers`.
    Unknown,
}

impl fmt::Display for PodState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "its container is running",
            Self::NotRunning => "its container is not running",
            Self::Gone => "its pod is gone",
            Self::Unknown => "its pod cannot be read",
        })
    }
}

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered.
    Answer(Answer),
    /// It did not, and this is what its pod's fresh read says.
    Silent(Silence, PodState),
}

impl Heard {
    /// The answer of the very pod that was asked; the rest is silence.
    pub fn of(self, uid: &PodUid, pod: PodState) -> Self {
        match self {
            Self::Answer(answer) if answer.uid != *uid => Self::Silent(Silence::OtherPod, pod),
            heard => heard,
        }
    }
}

/// The uids of a read, sorted, each once: what is compared.
pub fn uids(listed: &[Listed]) -> Vec<PodUid> {
    let mut uids: Vec<PodUid> = listed.iter().map(|listed| listed.uid.clone()).collect();
    uids.sort();
    uids.dedup();
    uids
}
