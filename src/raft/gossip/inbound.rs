//! Those who dial us: accepts, shakes hands, greets, and reads.
//!
//! Owns the limits on them. Whatever is not of this cluster, not for this node or not understood closes its
//! connection; a peer that says more than we can take in is not waited for, its packets are dropped. Members of two
//! clusters behind one service say nothing to each other but this greeting: here, and nowhere else, each learns that
//! there is another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{Hello, MAX_FRAME, Packet, Refusal};
use super::{Event, GossipMeter};
use crate::places::Seat;
use crate::raft::rpc::door::Door;
use crate::raft::rpc::frame::{self, FrameError};
use crate::raft::rpc::network::{Acceptor, Connection, Incoming, Network};

/// Peers' connections at once: each peer dials us once.
const MAX_CONNECTIONS: usize = 64;

/// The greeting follows the handshake at once.
const HELLO_LIMIT: Duration = Duration::from_secs(2);

/// A connection that says nothing is closed after this. A member says something every few seconds.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// After `accept` failed (out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Inbound {
    door: Door,
    me: Hello,
    events: mpsc::Sender<Event>,
    meter: Arc<dyn GossipMeter>,
    stop: CancellationToken,
}

/// How a conversation ended before its time.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Inbound {
    pub(super) fn new(
        network: Arc<dyn Network>,
        me: Hello,
        events: mpsc::Sender<Event>,
        meter: Arc<dyn GossipMeter>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { door: Door::new("gossip", network, MAX_CONNECTIONS), me, events, meter, stop })
    }

    /// Serves those who dial `acceptor`; ends with the token, and gives the port back then.
    pub(super) async fn run(self: Arc<Self>, mut acceptor: Box<dyn Acceptor>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = acceptor.accept() => accepted,
            };
            let incoming = match accepted {
                Ok(incoming) => incoming,
                Err(error) => {
                    tracing::debug!(%error, "a gossip connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (inbound, seat) = (self.clone(), self.door.enter(incoming.from));
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = inbound.stop.cancelled() => {}
                    () = inbound.serve(incoming, seat) => {}
                }
            });
        }
    }

    async fn serve(&self, incoming: Incoming, seat: Seat) {
        let from = incoming.from;
        // What was refused is logged, and counted at Raft's port alone.
        let Ok((mut connection, seat)) = self.door.admit(incoming, seat).await else { return };
        let ended = tokio::select! {
            ended = self.converse(&mut connection) => ended,
            () = seat.wanted() => {
                self.door.crowded_out(from);
                return;
            }
        };
        match ended {
            Ok(())
            | Err(Broken::Frame(FrameError::Closed | FrameError::Io(_)) | Broken::Refused(Refusal::Ourselves)) => {}
            Err(Broken::Frame(error)) => self.door.tell(from, error.label(), &error.to_string()),
            Err(Broken::Refused(why @ Refusal::Cluster(theirs))) => {
                self.meter.met_another_cluster();
                let ours = self.me.home.cluster;
                let what = format!(
                    "several clusters are behind this service, that peer is in {theirs} and this replica in {ours}; they do \
                     not merge: decide which one stays, and empty raftDir of the rest"
                );
                self.door.tell(from, why.label(), &what);
            }
            Err(Broken::Refused(why)) => self.door.tell(from, why.label(), &why.to_string()),
        }
    }

    async fn converse(&self, connection: &mut Connection) -> Result<(), Broken> {
        let greeting = timeout(HELLO_LIMIT, frame::read_within(connection, MAX_FRAME)).await;
        let hello: Hello = greeting.map_err(|_| FrameError::Closed)??;
        self.me.welcomes(&hello)?;
        frame::write(connection, &self.me).await?;
        loop {
            let Ok(read) = timeout(IDLE_LIMIT, frame::read_within(connection, MAX_FRAME)).await else { return Ok(()) };
            let packet: Packet = read?;
            self.me.accepts(&hello, &packet)?;
            // Full: SWIM does without a packet now and then.
            let _ = self.events.try_send(Event::Said(packet.said));
        }
    }
}
