//! The network as Raft sees it: a port, to dial, and who dials us.
//!
//! Production answers with TCP under mutual TLS (see `app`); the simulated rig with its own. Owns nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::domain::peers::Silence;

/// A connection whose other end has the cluster's identity.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// See [`Stream`].
pub type Connection = Box<dyn Stream>;

/// Somebody who dials us: who, and the handshake that is still to be made.
pub struct Incoming {
    /// Its address.
    pub from: IpAddr,
    /// Completes with a connection once the other end has shown the cluster's identity.
    pub handshake: BoxFuture<'static, io::Result<Connection>>,
}

/// Where peers dial us.
#[async_trait]
pub trait Acceptor: Send {
    /// The next one who dials.
    async fn accept(&mut self) -> io::Result<Incoming>;
}

/// The way to peers, and theirs to us.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Takes the port.
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>>;

    /// A connection to `address`, handshake included. The caller limits the time.
    async fn connect(&self, address: SocketAddr) -> io::Result<Connection>;

    /// Why [`Network::connect`] failed, in words for an operator. It may look at `address` once more.
    async fn diagnose(&self, address: SocketAddr, error: &io::Error) -> Silence;

    /// Why a handshake of somebody who dialled us failed, in words for an operator.
    fn explain(&self, error: &io::Error) -> String;
}

/// The network of a node that has no identity to show to peers: it has none.
pub struct Isolated;

/// Nobody ever dials.
struct Nobody;

#[async_trait]
impl Acceptor for Nobody {
    async fn accept(&mut self) -> io::Result<Incoming> {
        std::future::pending().await
    }
}

#[async_trait]
impl Network for Isolated {
    async fn bind(&self, _address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        Ok(Box::new(Nobody))
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<Connection> {
        Err(io::Error::other(Silence::NoIdentity))
    }

    async fn diagnose(&self, _address: SocketAddr, _error: &io::Error) -> Silence {
        Silence::NoIdentity
    }

    fn explain(&self, error: &io::Error) -> String {
        error.to_string()
    }
}
