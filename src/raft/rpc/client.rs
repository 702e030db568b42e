//! Asking a peer: one connection, one request at a time; and Raft's way to one member on top of it.
//!
//! Owns the connection. A request that was given up leaves an answer under way, so its connection is never used
//! again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::frame::{self, FrameError};
use super::message::{Address, RaftRequest, RaftResponse, Request, Response};
use super::network::{Connection, Network};
use crate::domain::ids::{ClusterId, Epoch, NodeId};
use crate::domain::membership::Member;
use crate::raft::types::{Snapshot, TypeConfig, Vote};

/// A snapshot goes out in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// A snapshot of [`crate::raft::snapshot::MAX_BYTES`] takes seconds on a slow link; the peer that it is for can do
/// nothing else meanwhile.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);

/// A dial and its handshake: milliseconds on a quiet network. An address that nobody has is given up after this.
const DIAL_LIMIT: Duration = Duration::from_secs(1);

/// Entries have to be synced over there before they are acknowledged: a disk that stalls is slow, not dead.
const APPEND_LIMIT: Duration = Duration::from_secs(1);

/// A peer that cannot be reached is tried again after this. Short: a restarted peer should not wait for its leader.
const RETRY: Duration = Duration::from_millis(100);

/// The other end closes a connection that says nothing for longer.
const IDLE: Duration = Duration::from_secs(90);

/// How a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or no handshake.
    #[error("{0} cannot be reached")]
    Connect(SocketAddr, #[source] io::Error),
    /// The connection broke, or what came is no frame.
    #[error("{0} gave no answer")]
    Frame(SocketAddr, #[source] FrameError),
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Late(SocketAddr),
}

/// The way to one address.
pub struct Link {
    network: Arc<dyn Network>,
    address: SocketAddr,
    connection: Option<Connection>,
    /// When an answer came last, or the connection was made.
    used: Instant,
    /// A dial that is under way. It goes on when the request that began it is given up: on a busy machine a handshake
    /// takes longer than a heartbeat may, and would else be begun again for ever.
    dialling: Option<AbortOnDropHandle<io::Result<Connection>>>,
}

impl Link {
    /// A way to `address`; it is dialled when it is needed.
    pub fn new(network: Arc<dyn Network>, address: SocketAddr) -> Self {
        Self { network, address, connection: None, used: Instant::now(), dialling: None }
    }

    /// Sends `request` and waits for the answer, `limit` at most.
    ///
    /// # Errors
    /// As [`CallError`]. The request may have been carried out all the same.
    pub async fn call(&mut self, request: &Request, limit: Duration) -> Result<Response, CallError> {
        let address = self.address;
        timeout(limit, self.exchange(request, &[])).await.unwrap_or(Err(CallError::Late(address)))
    }

    /// Dropped half-way, it leaves no connection behind: that one is put back only when the answer is complete.
    async fn exchange(&mut self, request: &Request, pieces: &[u8]) -> Result<Response, CallError> {
        let fresh = self.connection.is_none();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let mut answered = ask(&mut connection, request, pieces).await;
        // The other end may have closed an idle connection (its process was restarted): that says nothing of now.
        if matches!(answered, Err(FrameError::Closed | FrameError::Io(_))) && !fresh {
            connection = self.dial().await?;
            answered = ask(&mut connection, request, pieces).await;
        }
        let response = answered.map_err(|error| CallError::Frame(self.address, error))?;
        if !matches!(response, Response::Misdirected { .. } | Response::NotMember { .. }) {
            self.connection = Some(connection);
            self.used = Instant::now();
        }
        Ok(response)
    }

    /// Dials, if it has no connection. Who needs it later finds out what became of it.
    async fn prepare(&mut self) {
        if self.connection.is_none() || self.used.elapsed() >= IDLE {
            self.connection = self.dial().await.ok();
            self.used = Instant::now();
        }
    }

    async fn dial(&mut self) -> Result<Connection, CallError> {
        let (network, address) = (self.network.clone(), self.address);
        let dialling = self.dialling.get_or_insert_with(|| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                let late = || io::Error::from(io::ErrorKind::TimedOut);
                timeout(DIAL_LIMIT, network.connect(address)).await.unwrap_or_else(|_| Err(late()))
            }))
        });
        let dialled = dialling.await;
        self.dialling = None;
        dialled.map_err(io::Error::other).flatten().map_err(|error| CallError::Connect(address, error))
    }
}

async fn ask(connection: &mut Connection, request: &Request, pieces: &[u8]) -> Result<Response, FrameError> {
    frame::write(connection, request).await?;
    for piece in pieces.chunks(PIECE_BYTES) {
        frame::write_bytes(connection, piece).await?;
    }
    frame::read(connection).await
}

/// Makes Raft's ways to members.
#[derive(Clone)]
pub struct Links {
    /// The network.
    pub network: Arc<dyn Network>,
    /// Us.
    pub node: NodeId,
    /// Our cluster.
    pub cluster: ClusterId,
    /// And how often it was formed anew.
    pub epoch: Epoch,
    /// Where members listen, all on the same.
    pub port: u16,
    /// Where they are now.
    pub places: MemberPlaces,
    /// One for each member, for votes and transfers of the lead.
    pub elections: Elections,
}

/// Where members are, by the newest configuration. openraft keeps its way to a member for as long as that is one, and
/// knows nothing of another address: it has to be looked up here before each request.
#[derive(Clone, Default)]
pub struct MemberPlaces(Arc<Mutex<BTreeMap<NodeId, IpAddr>>>);

impl MemberPlaces {
    /// Notes where `node` is.
    pub fn note(&self, node: NodeId, address: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, address);
    }

    /// Forgets those who are no members.
    pub fn keep(&self, is_member: impl Fn(NodeId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| is_member(*node));
    }

    fn of(&self, node: NodeId) -> Option<IpAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// The ways by which elections are held. openraft makes a client for each vote anew: with connections of their own, an
/// election would begin with handshakes, and on a busy machine, where a handshake takes longer than a vote may, there
/// would never be one.
#[derive(Clone, Default)]
pub struct Elections(Arc<Mutex<HashMap<SocketAddr, SharedLink>>>);

type SharedLink = Arc<tokio::sync::Mutex<Link>>;

impl Elections {
    fn link(&self, network: &Arc<dyn Network>, address: SocketAddr) -> SharedLink {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(tokio::sync::Mutex::new(Link::new(network.clone(), address)));
        links.entry(address).or_insert_with(new).clone()
    }

    /// Drops the ways to others than `addresses`, and dials those that are not connected.
    pub async fn keep(&self, network: &Arc<dyn Network>, addresses: &[SocketAddr]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| addresses.contains(address));
        let links = addresses.iter().map(|address| self.link(network, *address));
        let dialled = links.map(|link| async move {
            // Somebody uses it just now: it is connected, or about to be.
            if let Ok(mut link) = link.try_lock() {
                link.prepare().await;
            }
        });
        futures::future::join_all(dialled).await;
    }
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = MemberLink;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> MemberLink {
        self.places.note(target, member.address);
        let address = SocketAddr::new(member.address, self.port);
        MemberLink {
            links: self.clone(),
            link: Link::new(self.network.clone(), address),
            address: Address { cluster: self.cluster, epoch: self.epoch, source: self.node, target },
        }
    }
}

/// Raft's way to one member.
pub struct MemberLink {
    links: Links,
    link: Link,
    address: Address,
}

impl MemberLink {
    async fn call(&mut self, request: RaftRequest, kind: RPCTypes, ttl: Duration) -> Result<RaftResponse, RpcError> {
        self.follow();
        let request = Request::Raft(self.address, request);
        let answer = self.link.call(&request, ttl).await;
        self.understand(answer, kind, ttl)
    }

    /// Goes where the member is now.
    fn follow(&mut self) {
        let Some(place) = self.links.places.of(self.address.target) else { return };
        let address = SocketAddr::new(place, self.links.port);
        if address != self.link.address {
            self.link = Link::new(self.links.network.clone(), address);
        }
    }

    /// The same by the way that outlives this client.
    async fn elect(&mut self, request: RaftRequest, kind: RPCTypes, ttl: Duration) -> Result<RaftResponse, RpcError> {
        self.follow();
        let request = Request::Raft(self.address, request);
        let election = self.links.elections.link(&self.links.network, self.link.address);
        let asked = async { election.lock().await.exchange(&request, &[]).await };
        let answer = timeout(ttl, asked).await.unwrap_or(Err(CallError::Late(self.link.address)));
        self.understand(answer, kind, ttl)
    }

    fn understand(
        &self,
        answer: Result<Response, CallError>,
        kind: RPCTypes,
        ttl: Duration,
    ) -> Result<RaftResponse, RpcError> {
        let text = |text: String| AnyError::error(text);
        match answer {
            Ok(Response::Raft(response)) => Ok(*response),
            Ok(Response::NotMember { .. }) => {
                Err(Unreachable::new(&text("it does not take us for a member".into())).into())
            }
            Ok(Response::Misdirected { node, .. }) => {
                Err(Unreachable::new(&text(format!("its address belongs to node {node}"))).into())
            }
            Ok(Response::Unable(why)) => Err(NetworkError::new(&text(why)).into()),
            Ok(other) => Err(NetworkError::new(&text(format!("an answer of another kind: {other:?}"))).into()),
            Err(CallError::Late(_)) => {
                Err(Timeout { action: kind, id: self.address.source, target: self.address.target, timeout: ttl }.into())
            }
            Err(error @ CallError::Connect(..)) => Err(Unreachable::new(&error).into()),
            Err(error) => Err(NetworkError::new(&error).into()),
        }
    }

    fn odd(other: &RaftResponse) -> RpcError {
        NetworkError::new(&AnyError::error(format!("an answer of another kind: {other:?}"))).into()
    }
}

type RpcError = RPCError<TypeConfig>;

impl RaftNetworkV2<TypeConfig> for MemberLink {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let limit = if rpc.entries.is_empty() { option.hard_ttl() } else { APPEND_LIMIT };
        match self.call(RaftRequest::Append(rpc), RPCTypes::AppendEntries, limit).await? {
            RaftResponse::Append(response) => Ok(response),
            other => Err(Self::odd(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.elect(RaftRequest::Vote(rpc), RPCTypes::Vote, option.hard_ttl()).await? {
            RaftResponse::Vote(response) => Ok(response),
            other => Err(Self::odd(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.elect(RaftRequest::PreVote(rpc), RPCTypes::Vote, option.hard_ttl()).await? {
            RaftResponse::Vote(response) => Ok(response),
            other => Err(Self::odd(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.follow();
        let bytes = snapshot.snapshot.len() as u64;
        let request = Request::Raft(self.address, RaftRequest::Snapshot { vote, meta: snapshot.meta, bytes });
        let address = self.link.address;
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = timeout(SNAPSHOT_LIMIT, self.link.exchange(&request, &snapshot.snapshot)) => answer,
        };
        let answer = answer.unwrap_or(Err(CallError::Late(address)));
        match self.understand(answer, RPCTypes::InstallSnapshot, SNAPSHOT_LIMIT) {
            Ok(RaftResponse::Snapshot(response)) => Ok(response),
            Ok(other) => {
                Err(NetworkError::new(&AnyError::error(format!("an answer of another kind: {other:?}"))).into())
            }
            Err(RPCError::Timeout(late)) => Err(late.into()),
            Err(RPCError::Unreachable(error)) => Err(error.into()),
            Err(error) => Err(NetworkError::new(&error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.elect(RaftRequest::Transfer(request), RPCTypes::TransferLeader, option.hard_ttl()).await? {
            RaftResponse::Transfer(Ok(())) => Ok(Ok(())),
            RaftResponse::Transfer(Err(why)) => Err(NetworkError::new(&AnyError::error(why)).into()),
            other => Err(Self::odd(&other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}
