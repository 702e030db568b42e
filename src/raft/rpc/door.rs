//! The way in for those who dial one of the peers' ports.
//!
//! Owns the limits on who shakes hands and how long, how many peers there may be at once, and what is logged of those
//! who are not let in. A stranger costs a handshake that fails, and a log line a minute; it takes no place of those who
//! have shown the cluster's identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::network::{Connection, Incoming, Network};
use crate::places::{Crowd, LogLimit, Seat};

/// Those who still shake hands. A peer needs a place for milliseconds; there are enough for it to keep one so long
/// while strangers come from more addresses than there are places.
const MAX_HANDSHAKES: usize = 256;

/// A handshake in one network takes milliseconds.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);

/// See the module.
pub struct Door {
    /// As it is called in the log.
    port: &'static str,
    network: Arc<dyn Network>,
    strangers: Arc<Crowd>,
    peers: Arc<Crowd>,
    told: LogLimit,
}

/// Why somebody was not let in. It was logged.
pub enum Refused {
    /// No handshake, or none in time.
    Stranger,
    /// More came, and its place was wanted.
    CrowdedOut,
}

impl Door {
    /// Of the port that is called so, for `peers` connections at once.
    pub fn new(port: &'static str, network: Arc<dyn Network>, peers: usize) -> Self {
        let (strangers, peers) = (Crowd::new(MAX_HANDSHAKES), Crowd::new(peers));
        Self { port, network, strangers, peers, told: LogLimit::default() }
    }

    /// A place to shake hands at, for one that has just dialled.
    pub fn enter(&self, from: IpAddr) -> Seat {
        self.strangers.enter(from)
    }

    /// Shakes hands at `seat`: a connection, and its place among the peers.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn admit(&self, incoming: Incoming, seat: Seat) -> Result<(Connection, Seat), Refused> {
        let from = incoming.from;
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_LIMIT, incoming.handshake) => shaken,
            () = seat.wanted() => return Err(self.crowded_out(from)),
        };
        let why = match shaken {
            Ok(Ok(connection)) => return Ok((connection, self.peers.enter(from))),
            Ok(Err(error)) => format!("no handshake: {}", self.network.explain(&error)),
            Err(_) => "no handshake in time".to_owned(),
        };
        self.tell(from, "stranger", &why);
        Err(Refused::Stranger)
    }

    /// Logs that a place was wanted by others.
    pub fn crowded_out(&self, from: IpAddr) -> Refused {
        self.tell(from, "crowded", "too many connections, and most of them from there");
        Refused::CrowdedOut
    }

    /// Once per address, cause and minute.
    pub fn tell(&self, from: IpAddr, cause: &'static str, what: &str) {
        if self.told.due(from, cause) {
            tracing::warn!(peer = %from, "refused on the {} port: {what}", self.port);
        }
    }
}
