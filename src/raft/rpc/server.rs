//! Answering peers: accepts, shakes hands, reads requests, answers.
//!
//! Owns how many peers there may be at once, and how long each may take; see [`Door`] for those who are none.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::PIECE_BYTES;
use super::door::{Door, Refused};
use super::frame::{self, FrameError};
use super::message::{Address, RaftRequest, Request, Response};
use super::network::{Acceptor, Connection, Incoming, Network};
use crate::domain::ids::NodeId;
use crate::places::Seat;
use crate::raft::snapshot;
use crate::raft::types::{SnapshotMeta, Vote};

/// Peers' connections at once: five voters and a few learners hold three or four each.
const MAX_CONNECTIONS: usize = 128;

/// The rest of a frame, or a snapshot's next piece, arrives within this.
const FRAME_LIMIT: Duration = Duration::from_secs(10);

/// A connection that says nothing is closed after this. Heartbeats come many times a second; a standby's ways to other
/// standbys are used now and then.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// After `accept` failed (out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What peers are answered.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    async fn answer(&self, from: IpAddr, request: Request) -> Response;

    /// Answers a snapshot, whole.
    async fn install(&self, address: Address, vote: Vote, meta: SnapshotMeta, data: Vec<u8>) -> Response;

    /// A connection over which `source` sent Raft's requests has ended.
    fn hung_up(&self, source: NodeId);
}

/// What happened on the peers' port, by label.
#[derive(Debug, Default)]
pub struct Counts {
    /// Handshakes that failed.
    pub strangers: AtomicU64,
    /// Connections that were dropped because there were too many.
    pub crowded_out: AtomicU64,
    /// Frames that could not be read.
    pub bad_frames: AtomicU64,
    /// Frames for another cluster, epoch or node.
    pub misdirected: AtomicU64,
    /// Frames of nodes that are no members.
    pub not_members: AtomicU64,
}

/// The peers' port.
pub struct Server {
    door: Door,
    handler: Arc<dyn Handler>,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Server {
    /// Answers with `handler` until `stop`.
    pub fn new(
        network: Arc<dyn Network>,
        handler: Arc<dyn Handler>,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let door = Door::new("peers'", network, MAX_CONNECTIONS);
        Arc::new(Self { door, handler, counts, stop })
    }

    /// Serves those who dial `acceptor`; ends with `stop`.
    pub async fn run(self: Arc<Self>, mut acceptor: Box<dyn Acceptor>) {
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = acceptor.accept() => accepted,
            };
            let incoming = match accepted {
                Ok(incoming) => incoming,
                Err(error) => {
                    tracing::debug!(%error, "a peer's connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (server, seat) = (self.clone(), self.door.enter(incoming.from));
            tasks.spawn(async move {
                tokio::select! {
                    () = server.stop.cancelled() => {}
                    () = server.serve(incoming, seat) => {}
                }
            });
        }
    }

    async fn serve(&self, incoming: Incoming, seat: Seat) {
        let from = incoming.from;
        let (mut connection, seat) = match self.door.admit(incoming, seat).await {
            Ok(admitted) => admitted,
            Err(refused) => return self.count(&refused),
        };
        let mut raft_source = None;
        let ended = tokio::select! {
            ended = self.converse(from, &mut connection, &mut raft_source) => ended,
            () = seat.wanted() => {
                self.count(&self.door.crowded_out(from));
                Ok(())
            }
        };
        if let Err(error) = ended
            && !matches!(error, FrameError::Closed | FrameError::Io(_))
        {
            self.counts.bad_frames.fetch_add(1, Ordering::Relaxed);
            self.door.tell(from, error.label(), &error.to_string());
        }
        drop(connection);
        if let Some(source) = raft_source {
            self.handler.hung_up(source);
        }
    }

    async fn converse(
        &self,
        from: IpAddr,
        connection: &mut Connection,
        raft_source: &mut Option<NodeId>,
    ) -> Result<(), FrameError> {
        loop {
            let Ok(request) = timeout(IDLE_LIMIT, frame::read(connection)).await else { return Ok(()) };
            let request: Request = request?;
            if let Request::Raft(address, _) = &request {
                *raft_source = Some(address.source);
            }
            let response = match request {
                Request::Raft(address, RaftRequest::Snapshot { vote, meta, bytes }) => {
                    let data = read_pieces(connection, bytes).await?;
                    self.handler.install(address, vote, meta, data).await
                }
                request => self.handler.answer(from, request).await,
            };
            frame::write(connection, &response).await?;
            match response {
                Response::Misdirected { .. } => {
                    self.counts.misdirected.fetch_add(1, Ordering::Relaxed);
                    self.door.tell(from, "misdirected", "a frame for another cluster, epoch or node");
                    return Ok(());
                }
                Response::NotMember { .. } => {
                    self.counts.not_members.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn count(&self, refused: &Refused) {
        let counter = match refused {
            Refused::Stranger => &self.counts.strangers,
            Refused::CrowdedOut => &self.counts.crowded_out,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read_pieces(connection: &mut Connection, bytes: u64) -> Result<Vec<u8>, FrameError> {
    let total = usize::try_from(bytes).ok().filter(|total| *total <= snapshot::MAX_BYTES);
    let total = total.ok_or(FrameError::Oversized(usize::try_from(bytes).unwrap_or(usize::MAX)))?;
    // The memory grows with what has arrived, not with what was promised.
    let mut data = Vec::new();
    while data.len() < total {
        let piece = timeout(FRAME_LIMIT, frame::read_bytes(connection)).await.map_err(|_| FrameError::Closed)??;
        if piece.is_empty() || piece.len() > PIECE_BYTES || data.len() + piece.len() > total {
            return Err(FrameError::Oversized(piece.len()));
        }
        data.extend(piece);
    }
    Ok(data)
}
