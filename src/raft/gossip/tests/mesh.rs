//! A network in memory, whose links can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::peers::Silence;
use crate::raft::rpc::network::{Acceptor, Connection, Incoming, Network};

/// Who listens where, and who is cut off.
#[derive(Default)]
pub(super) struct Mesh {
    ports: Mutex<BTreeMap<SocketAddr, mpsc::Sender<Incoming>>>,
    links: Mutex<BTreeMap<IpAddr, CancellationToken>>,
    cut: Mutex<BTreeSet<IpAddr>>,
}

/// One node's way into the mesh.
pub(super) struct Socket(pub(super) Arc<Mesh>, pub(super) IpAddr);

struct Port(mpsc::Receiver<Incoming>);

impl Mesh {
    fn link(&self, ip: IpAddr) -> CancellationToken {
        self.links.lock().unwrap().entry(ip).or_default().clone()
    }

    /// Resets all connections of `ip`, and lets none begin until it is healed.
    pub(super) fn cut(&self, ip: IpAddr) {
        self.cut.lock().unwrap().insert(ip);
        self.links.lock().unwrap().remove(&ip).unwrap().cancel();
    }

    pub(super) fn heal(&self, ip: IpAddr) {
        self.cut.lock().unwrap().remove(&ip);
    }
}

#[async_trait]
impl Network for Socket {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let (dials, port) = mpsc::channel(64);
        let mut ports = self.0.ports.lock().unwrap();
        if ports.get(&address).is_some_and(|port| !port.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        ports.insert(address, dials);
        Ok(Box::new(Port(port)))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let cut = |ip: IpAddr| self.0.cut.lock().unwrap().contains(&ip);
        if cut(self.1) || cut(address.ip()) {
            return Err(refused());
        }
        let port = self.0.ports.lock().unwrap().get(&address).cloned().ok_or_else(refused)?;
        let (ours, mut near) = tokio::io::duplex(1 << 16);
        let (mut far, theirs) = tokio::io::duplex(1 << 16);
        let (one, other) = (self.0.link(self.1), self.0.link(address.ip()));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                () = one.cancelled() => {}
                () = other.cancelled() => {}
            }
        });
        let handshake = Box::pin(async { Ok(Box::new(theirs) as Connection) });
        port.send(Incoming { from: self.1, handshake }).await.map_err(|_| refused())?;
        Ok(Box::new(ours))
    }

    async fn diagnose(&self, _address: SocketAddr, _error: &io::Error) -> Silence {
        Silence::Refused
    }

    fn explain(&self, error: &io::Error) -> String {
        error.to_string()
    }
}

#[async_trait]
impl Acceptor for Port {
    async fn accept(&mut self) -> io::Result<Incoming> {
        self.0.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}
