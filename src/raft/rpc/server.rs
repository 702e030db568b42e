//! Answering peers: accepts, shakes hands, reads requests, answers.
//!
//! Owns the limits on who dials us: how many at once, and how long each may take. A stranger costs a handshake that
//! fails, and a log line a minute. It takes no place of those who have shown the cluster's identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::PIECE_BYTES;
use super::frame::{self, FrameError};
use super::message::{Address, RaftRequest, Request, Response};
use super::network::{Acceptor, Connection, Incoming, Network};
use crate::domain::ids::NodeId;
use crate::places::{Crowd, LogLimit, Seat};
use crate::raft::snapshot;
use crate::raft::types::{SnapshotMeta, Vote};

/// Peers' connections at once: five voters and a few learners hold three or four each.
const MAX_CONNECTIONS: usize = 128;

/// Those who still shake hands. A peer needs a place for milliseconds; there are enough for it to keep one so long
/// while strangers come from more addresses than there are places.
const MAX_HANDSHAKES: usize = 256;

/// A handshake in one network takes milliseconds.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);

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
    network: Arc<dyn Network>,
    handler: Arc<dyn Handler>,
    counts: Arc<Counts>,
    strangers: Arc<Crowd>,
    peers: Arc<Crowd>,
    told: LogLimit,
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
        Arc::new(Self {
            network,
            handler,
            counts,
            strangers: Crowd::new(MAX_HANDSHAKES),
            peers: Crowd::new(MAX_CONNECTIONS),
            told: LogLimit::default(),
            stop,
        })
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
            let (server, seat) = (self.clone(), self.strangers.enter(incoming.from));
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
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_LIMIT, incoming.handshake) => shaken,
            () = seat.wanted() => return self.crowd_out(from),
        };
        drop(seat);
        let mut connection = match shaken {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                self.counts.strangers.fetch_add(1, Ordering::Relaxed);
                self.tell(from, "stranger", &format!("no handshake: {}", self.network.explain(&error)));
                return;
            }
            Err(_) => {
                self.counts.strangers.fetch_add(1, Ordering::Relaxed);
                self.tell(from, "stranger", "no handshake in time");
                return;
            }
        };
        let (mut raft_source, seat) = (None, self.peers.enter(from));
        let ended = tokio::select! {
            ended = self.converse(from, &mut connection, &mut raft_source) => ended,
            () = seat.wanted() => {
                self.crowd_out(from);
                Ok(())
            }
        };
        if let Err(error) = ended
            && !matches!(error, FrameError::Closed | FrameError::Io(_))
        {
            self.counts.bad_frames.fetch_add(1, Ordering::Relaxed);
            self.tell(from, error.label(), &error.to_string());
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
                    self.tell(from, "misdirected", "a frame for another cluster, epoch or node");
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

    fn crowd_out(&self, from: IpAddr) {
        self.counts.crowded_out.fetch_add(1, Ordering::Relaxed);
        self.tell(from, "crowded", "too many connections, and most of them from there");
    }

    /// Once per address, cause and minute.
    fn tell(&self, from: IpAddr, cause: &'static str, what: &str) {
        if self.told.due(from, cause) {
            tracing::warn!(peer = %from, "refused on the peers' port: {what}");
        }
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
