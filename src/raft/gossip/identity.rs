//! Who speaks: a node, where it is, and which start of its process.
//!
//! Owns what makes two members one and the same. A restarted process is another member: the one before it is found dead
//! like any other, and never revived by its successor's answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{BootId, NodeId};

/// A member, as gossip knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its gossip port.
    pub address: SocketAddr,
    /// This start of its process.
    pub boot: BootId,
    /// Raised each time the others took it for dead and it was not.
    renewed: u32,
}

impl Identity {
    /// A member that nobody has taken for dead yet.
    pub fn new(node: NodeId, address: SocketAddr, boot: BootId) -> Self {
        Self { node, address, boot, renewed: 0 }
    }
}

impl foca::Identity for Identity {
    type Addr = (NodeId, BootId);

    fn renew(&self) -> Option<Self> {
        Some(Self { renewed: self.renewed.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> Self::Addr {
        (self.node, self.boot)
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.renewed, self.address) > (adversary.renewed, adversary.address)
    }
}
