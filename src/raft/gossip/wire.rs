//! What is said on the gossip port, in frames.
//!
//! Owns the wire's types: fields and variants keep their order. A connection begins with a greeting in both directions,
//! so that the one who dialled an address knows which node has it now; packets go from the one who dialled only.

use foca::{Codec, PostcardCodec};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::domain::ids::{ClusterId, Epoch, NodeId};

/// Largest body of a frame: a packet of foca's (1,400 bytes) and what is around it.
pub(super) const MAX_FRAME: usize = 2 << 10;

/// Which cluster, in which epoch. Nothing is said to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Home {
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
}

/// The first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) home: Home,
    pub(super) identity: Identity,
}

/// Each further frame of the one who dialled.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packet {
    pub(super) home: Home,
    pub(super) source: NodeId,
    pub(super) target: NodeId,
    pub(super) said: Said,
}

/// See [`Packet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// A packet of foca's.
    Swim(Vec<u8>),
    /// That one is about to go.
    Leaving(Identity),
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it belongs to another cluster ({0})")]
    Cluster(ClusterId),
    #[error("it belongs to another epoch of this cluster")]
    Epoch,
    #[error("it speaks in the name of another node")]
    Source,
    #[error("it takes us for another node")]
    Target,
    #[error("what it says cannot be understood")]
    Garbage,
    #[error("it is this very node")]
    Ourselves,
}

impl Refusal {
    /// A key for log lines, of a bounded set.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Cluster(_) => "cluster",
            Self::Epoch => "epoch",
            Self::Source => "source",
            Self::Target => "target",
            Self::Garbage => "garbage",
            Self::Ourselves => "ourselves",
        }
    }
}

impl Home {
    /// Whether something that is said in `other` is for us.
    fn is(self, other: Self) -> Result<(), Refusal> {
        if other.cluster != self.cluster {
            return Err(Refusal::Cluster(other.cluster));
        }
        if other.epoch == self.epoch { Ok(()) } else { Err(Refusal::Epoch) }
    }
}

impl Hello {
    /// Whether we talk to `other`.
    pub(super) fn welcomes(&self, other: &Self) -> Result<(), Refusal> {
        self.home.is(other.home)?;
        if other.identity.node == self.identity.node { Err(Refusal::Ourselves) } else { Ok(()) }
    }

    /// Whether `packet` is for us, from the node that said `hello` on this connection.
    pub(super) fn accepts(&self, hello: &Self, packet: &Packet) -> Result<(), Refusal> {
        self.home.is(packet.home)?;
        if packet.target != self.identity.node {
            return Err(Refusal::Target);
        }
        let source = hello.identity.node;
        if packet.source != source || packet.said.speaker()? != source {
            return Err(Refusal::Source);
        }
        Ok(())
    }
}

impl Said {
    /// In whose name it is said.
    fn speaker(&self) -> Result<NodeId, Refusal> {
        match self {
            Self::Leaving(identity) => Ok(identity.node),
            Self::Swim(bytes) => {
                let header: Result<foca::Header<Identity>, _> = PostcardCodec.decode_header(bytes.as_slice());
                Ok(header.map_err(|_| Refusal::Garbage)?.src.node)
            }
        }
    }
}
