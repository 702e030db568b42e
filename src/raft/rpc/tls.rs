//! The network of production: TCP under mutual TLS 1.3.
//!
//! Owns the sockets' options. What certificates are accepted is decided by whoever made the two configurations.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::network::{Acceptor, Connection, Incoming, Network};
use crate::domain::peers::Silence;

/// Why a handshake failed, as whoever made the configurations knows best.
#[async_trait]
pub trait Diagnosis: Send + Sync + 'static {
    /// Of one that we began. May look at `address` once more.
    async fn of_dialled(&self, address: SocketAddr, error: &io::Error) -> Silence;

    /// Of one that somebody else began.
    fn of_incoming(&self, error: &io::Error) -> String;
}

/// See the module.
pub struct TlsNetwork {
    /// How we answer.
    pub server: Arc<ServerConfig>,
    /// How we dial.
    pub client: Arc<ClientConfig>,
    /// The name that every peer's certificate has.
    pub name: ServerName<'static>,
    /// Tells why handshakes fail.
    pub diagnosis: Arc<dyn Diagnosis>,
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

#[async_trait]
impl Network for TlsNetwork {
    async fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let listener = TcpListener::bind(address).await?;
        Ok(Box::new(TlsListener { listener, acceptor: TlsAcceptor::from(self.server.clone()) }))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        // Heartbeats are small and must not wait for company.
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.client.clone()).connect(self.name.clone(), stream).await?;
        Ok(Box::new(stream))
    }

    async fn diagnose(&self, address: SocketAddr, error: &io::Error) -> Silence {
        self.diagnosis.of_dialled(address, error).await
    }

    fn explain(&self, error: &io::Error) -> String {
        self.diagnosis.of_incoming(error)
    }
}

#[async_trait]
impl Acceptor for TlsListener {
    async fn accept(&mut self) -> io::Result<Incoming> {
        let (stream, from) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = self.acceptor.clone();
        let handshake = async move {
            let stream = acceptor.accept(stream).await?;
            Ok(Box::new(stream) as Connection)
        };
        Ok(Incoming { from: from.ip(), handshake: Box::pin(handshake) })
    }
}
