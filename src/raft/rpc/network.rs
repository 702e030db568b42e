//! The network as Raft sees it: a port, to dial, and who dials us.
//!
//! Production answers with TCP under mutual TLS ([`super::tls`]); the simulated rig with its own. Owns nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection whose other end has the cluster's identity.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

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

    /// Why a handshake failed, in words for an operator.
    fn explain(&self, error: &io::Error) -> String {
        error.to_string()
    }
}
