//! Glue between what Raft asks of its peers and who answers: certificates from `tls`, lists from `k8s`.
//!
//! Owns nothing but translations.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::node::PORT;
use crate::config::PeerAddr;
use crate::domain::ids::PodUid;
use crate::domain::peers::{Listed, PodState, Silence};
use crate::k8s::peers::{self, Peer, PeerDirectory};
use crate::raft::gossip;
use crate::raft::ports::Directory;
use crate::raft::rpc::network::{Acceptor, Connection, Incoming, Network};
use crate::tls::{Channel, ClusterIdentity, PeerTlsFailure, explain, speaks_go_version};

/// TCP under the cluster's identity.
pub struct TlsNetwork {
    /// What we show, and whom we believe.
    pub identity: ClusterIdentity,
    /// What is spoken.
    pub channel: Channel,
    /// What is dialled from.
    pub ip: IpAddr,
    /// Where those who dial us shake hands. Not on Raft's thread: strangers by the thousand would hold up its heartbeats.
    pub handshakes: Runtime,
}

struct TlsListener {
    listener: TcpListener,
    identity: ClusterIdentity,
    channel: Channel,
    handshakes: Runtime,
}

#[async_trait]
impl Acceptor for TlsListener {
    async fn accept(&mut self) -> io::Result<Incoming> {
        let (stream, from) = self.listener.accept().await?;
        // Heartbeats are small and must not wait for company.
        stream.set_nodelay(true)?;
        let (identity, channel, handshakes) = (self.identity.clone(), self.channel, self.handshakes.clone());
        let handshake = async move {
            let shaking = handshakes.spawn(async move { identity.accept(channel, stream).await });
            let shaken = AbortOnDropHandle::new(shaking).await.map_err(io::Error::other)?;
            Ok(Box::new(shaken?) as Connection)
        };
        Ok(Incoming { from: from.ip().to_canonical(), handshake: Box::pin(handshake) })
    }
}

#[async_trait]
impl Network for TlsNetwork {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let listener = super::pages::bind_any(address).await?;
        Ok(Box::new(TlsListener {
            listener,
            identity: self.identity.clone(),
            channel: self.channel,
            handshakes: self.handshakes.clone(),
        }))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let stream = dial(self.ip, address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(self.identity.connect(self.channel, stream).await?))
    }

    async fn diagnose(&self, address: SocketAddr, error: &io::Error) -> Silence {
        match error.kind() {
            ErrorKind::ConnectionRefused => return Silence::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                return Silence::Unreachable(error.to_string().into());
            }
            _ => {}
        }
        let failure = explain(error);
        if failure.may_be_go_version() && speaks_go_version(SocketAddr::new(address.ip(), gossip::PORT)).await {
            return Silence::GoVersion;
        }
        match failure {
            failure if failure.concerns_identity() => match failure {
                PeerTlsFailure::AnotherCa | PeerTlsFailure::NotAccepted(_) => Silence::OtherSecret,
                failure => Silence::HandshakeFailed(failure.to_string().into()),
            },
            PeerTlsFailure::Silent => Silence::TimedOut,
            failure => Silence::HandshakeFailed(failure.to_string().into()),
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        explain(error).to_string()
    }
}

/// From our own address of `raft.peers`, where there is one: several replicas of one machine are told apart by it.
async fn dial(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    if from.is_unspecified() {
        return TcpStream::connect(to).await;
    }
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// The peers behind the service, by the API server's word.
pub(super) struct ServicePeers {
    directory: PeerDirectory,
    /// As last read: pods are asked for by their names.
    last: Mutex<Vec<Peer>>,
}

impl ServicePeers {
    pub(super) fn new(directory: PeerDirectory) -> Self {
        Self { directory, last: Mutex::default() }
    }
}

#[async_trait]
impl Directory for ServicePeers {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        let peers = self.directory.list().await.map_err(|error| error.to_string())?;
        let listed = peers.iter().filter_map(|peer| {
            Some(Listed { uid: peer.uid.clone(), name: peer.pod.clone(), address: *peer.addresses.first()? })
        });
        let listed = listed.collect();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = peers;
        Ok(listed)
    }

    async fn pods(&self, asked: &[Listed]) -> BTreeMap<PodUid, PodState> {
        let known = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted: Vec<Peer> =
            known.into_iter().filter(|peer| asked.iter().any(|listed| listed.uid == peer.uid)).collect();
        match self.directory.pod_states(&wanted).await {
            Ok(states) => states.into_iter().map(|(uid, state)| (uid, said(&state))).collect(),
            Err(error) => {
                tracing::debug!(%error, "no peer counts as absent");
                BTreeMap::new()
            }
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.directory.changed()
    }

    fn urgent(&self, urgent: bool) {
        self.directory.urgent(urgent);
    }
}

fn said(state: &peers::PodState) -> PodState {
    match state {
        peers::PodState::Running => PodState::Running,
        peers::PodState::NotRunning { .. } => PodState::NotRunning,
        peers::PodState::Gone => PodState::Gone,
        peers::PodState::Unknown => PodState::Unknown,
    }
}

/// `raft.peers`: all replicas, this one included, each known by its address as written.
pub(super) struct StaticPeers {
    peers: Vec<PeerAddr>,
    changes: watch::Sender<u64>,
}

impl StaticPeers {
    pub(super) fn new(peers: Vec<PeerAddr>) -> Self {
        Self { peers, changes: watch::Sender::new(0) }
    }

    /// Which of them is this replica: the one address that is this machine's; of several (replicas of one machine) the
    /// first whose port is free.
    pub(super) async fn myself(&self) -> Result<(PodUid, IpAddr), String> {
        let listed = self.listed().await?;
        let mut mine: Vec<Listed> =
            listed.into_iter().filter(|peer| UdpSocket::bind((peer.address, 0)).is_ok()).collect();
        if mine.len() > 1 {
            mine.retain(|peer| std::net::TcpListener::bind((peer.address, PORT)).is_ok());
        }
        let me = mine.into_iter().next();
        let none =
            "none of the addresses of raft.peers is this machine's and free: name all replicas there, this one too";
        me.map(|me| (me.uid, me.address)).ok_or_else(|| none.to_owned())
    }
}

#[async_trait]
impl Directory for StaticPeers {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        let mut listed = Vec::new();
        for peer in &self.peers {
            let text = peer.to_string();
            // The port is not used: all replicas listen on the same.
            let mut found = lookup_host((peer.host.as_str(), 0)).await.map_err(|error| format!("{text}: {error}"))?;
            let address = found.next().ok_or_else(|| format!("{text}: the name has no address"))?.ip();
            listed.push(Listed { uid: PodUid::from(text.as_str()), name: text.as_str().into(), address });
        }
        Ok(listed)
    }

    async fn pods(&self, _asked: &[Listed]) -> BTreeMap<PodUid, PodState> {
        BTreeMap::new()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn urgent(&self, _urgent: bool) {}
}

/// Outside of a cluster and without `raft.peers` (development): there is nobody else.
pub(super) struct Alone(watch::Sender<u64>);

impl Alone {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn uid() -> PodUid {
        PodUid::from("alone")
    }
}

#[async_trait]
impl Directory for Alone {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        Ok(vec![Listed { uid: Self::uid(), name: "this replica".into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) }])
    }

    async fn pods(&self, _asked: &[Listed]) -> BTreeMap<PodUid, PodState> {
        BTreeMap::new()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn urgent(&self, _urgent: bool) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::SecretString;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::tls::Scope;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    // A flood of strangers must not hold up heartbeats, which are sent by the thread that accepts.
    #[test]
    fn those_who_dial_shake_hands_on_the_runtime_that_was_named_and_nowhere_else() {
        let scope = Scope { namespace: "a".to_owned(), service: "b".to_owned(), cluster: String::new() };
        let identity = ClusterIdentity::derive(&scope, &SecretString::from("hvs.secret"), None).unwrap();
        let (accepts, named) = (runtime(), runtime());
        let handshakes = named.handle().clone();
        accepts.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (channel, ip) = (Channel::Raft, Ipv4Addr::LOCALHOST.into());
            let network = TlsNetwork { identity: identity.clone(), channel, ip, handshakes: handshakes.clone() };
            let mut acceptor = TlsListener { listener, identity, channel, handshakes };
            let dialled = tokio::spawn(async move { network.connect(address).await.map(drop) });
            let mut handshake = acceptor.accept().await.unwrap().handshake;
            assert!(timeout(Duration::from_millis(50), &mut handshake).await.is_err(), "nothing runs there yet");
            let (stop, stopped) = oneshot::channel::<()>();
            let driver = std::thread::spawn(move || named.block_on(stopped));
            let (accepted, dialled) = tokio::join!(handshake, dialled);
            assert!(accepted.is_ok() && dialled.unwrap().is_ok());
            drop(stop);
            driver.join().unwrap().unwrap_err();
        });
    }
}
