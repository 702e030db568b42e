//! Why a node waits: one line for the log for each peer, with its address.

use std::fmt;

use super::{Answer, Listed, PodState, PodUid, Silence, Standing};
use crate::domain::ids::ClusterId;

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No fresh read lists us yet.
    NotListed,
    /// The list is just changing.
    ListChanged,
    /// A peer is silent, and may exist.
    Silent {
        /// Who.
        peer: Listed,
        /// Why, as far as we can tell.
        silence: Silence,
        /// What the API server says of it.
        pod: PodState,
        /// It has asked us, so it is not absent whatever its status says.
        asked: bool,
    },
    /// A peer is silent, and by the API server's word it is not there: it is left out.
    Absent {
        /// Who.
        peer: Listed,
        /// Why, as far as we can tell.
        silence: Silence,
        /// What the API server says of it.
        pod: PodState,
    },
    /// A peer compares another list.
    OtherList {
        /// Who.
        peer: Listed,
        /// Its list.
        theirs: Option<Vec<PodUid>>,
        /// How many are in ours.
        ours: usize,
    },
    /// A peer is bound to a node outside of its list.
    Held {
        /// Who.
        peer: Listed,
    },
    /// We are bound to a peer by another list than the present one.
    Promised {
        /// To whom.
        to: Listed,
    },
    /// A peer is just initialising.
    Initialising {
        /// Who.
        peer: Listed,
    },
    /// A peer remembers a cluster that it is no member of.
    PeerRemembers {
        /// Who.
        peer: Listed,
        /// Which cluster.
        cluster: ClusterId,
        /// It was a voter there, and does not start over.
        ever_voter: bool,
    },
    /// All agree, and a peer of a smaller id initialises.
    LeftToSmallest {
        /// Who.
        peer: Listed,
    },
    /// Nobody answers as a member of the cluster that our storage belongs to.
    NoMemberAnswers {
        /// Which cluster.
        cluster: ClusterId,
    },
    /// Nobody knows a voter of our storage's cluster, but storage outlives pods here: one may return.
    VoterMayReturn {
        /// Which cluster.
        cluster: ClusterId,
    },
}

impl Reason {
    /// Whether initialising has to wait for this.
    pub fn keeps_waiting(&self) -> bool {
        !matches!(self, Self::Absent { .. })
    }

    /// Why an answer is not yet a vote for our initialising under `list`.
    pub(super) fn of_answer(peer: &Listed, answer: &Answer, list: &[PodUid]) -> Option<Self> {
        let peer = peer.clone();
        match answer.standing {
            Standing::Initialising => Some(Self::Initialising { peer }),
            Standing::Remembers { cluster, ever_voter, .. } | Standing::Member { cluster, ever_voter, .. } => {
                Some(Self::PeerRemembers { peer, cluster, ever_voter })
            }
            Standing::Uninitialised if answer.list.as_deref() != Some(list) => {
                Some(Self::OtherList { peer, theirs: answer.list.clone(), ours: list.len() })
            }
            Standing::Uninitialised if answer.held => Some(Self::Held { peer }),
            Standing::Uninitialised => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed => f.write_str("this pod is not among the endpoints of the service yet"),
            Self::ListChanged => f.write_str("the list of peers has just changed"),
            Self::Silent { peer, silence, pod, asked } => {
                write!(f, "peer {peer} is silent: {silence}; {pod}")?;
                if *asked && *pod == PodState::NotRunning {
                    f.write_str(", but it has asked this node, so it may run: waiting for it, or for its pod to go")?;
                }
                Ok(())
            }
            Self::Absent { peer, silence, pod } => {
                write!(f, "peer {peer} is silent: {silence}; {pod}, so it counts as absent")
            }
            Self::OtherList { peer, theirs: Some(theirs), ours } => {
                write!(f, "peer {peer} sees another list of peers ({} in its, {ours} in ours)", theirs.len())
            }
            Self::OtherList { peer, theirs: None, .. } => write!(f, "peer {peer} is not listed by its own reads yet"),
            Self::Held { peer } => write!(f, "peer {peer} is bound to a node that is not in its list"),
            Self::Promised { to } => write!(f, "this node is bound to peer {to} by an earlier list"),
            Self::Initialising { peer } => write!(f, "peer {peer} is initialising a cluster"),
            Self::PeerRemembers { peer, cluster, ever_voter: true } => write!(
                f,
                "peer {peer} was a voter of cluster {cluster}, of which no member answers: if its other voters are lost, run `kubernetes-vault recover` there"
            ),
            Self::PeerRemembers { peer, cluster, ever_voter: false } => {
                write!(f, "peer {peer} remembers cluster {cluster} and has to start over first")
            }
            Self::LeftToSmallest { peer } => write!(f, "all peers agree; {peer} initialises the cluster"),
            Self::NoMemberAnswers { cluster } => write!(f, "no member of cluster {cluster} answers"),
            Self::VoterMayReturn { cluster } => write!(
                f,
                "no peer knows a voter of cluster {cluster}, but storage outlives pods here: waiting for one to return; if all are lost, empty this node's raftDir"
            ),
        }
    }
}
