//! Reaches init containers: one TLS connection, one POST.
//!
//! Owns the connection's limits. Never uses a proxy, never follows a redirect, never sends a body on a second
//! connection by itself: what became of a push is the workflow's to judge.

mod exchange;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::deliver::ports::{Courier, DialError, Line};

/// How long a receiver may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For one address: connection and handshake. A pod's network is milliseconds away; what does not answer in a
    /// second is not there.
    dial: Duration,
    /// For the answer to one push.
    answer: Duration,
}

const LIMITS: Limits = Limits { dial: Duration::from_secs(1), answer: wire::limits::SENDER_WAIT };

/// The [`Courier`] of real init containers.
pub struct PodCourier {
    tls: TlsConnector,
    port: u16,
    limits: Limits,
}

impl PodCourier {
    /// A courier to the port that init containers listen on.
    ///
    /// # Errors
    /// If the TLS provider lacks what TLS needs.
    pub fn new() -> Result<Self, rustls::Error> {
        Self::with_port(wire::limits::PORT)
    }

    /// A courier to another port, for tests.
    ///
    /// # Errors
    /// As [`PodCourier::new`].
    pub fn with_port(port: u16) -> Result<Self, rustls::Error> {
        Ok(Self { tls: TlsConnector::from(Arc::new(tls::client_config()?)), port, limits: LIMITS })
    }

    async fn dial_one(&self, address: IpAddr) -> std::io::Result<Box<dyn Line>> {
        let peer = SocketAddr::new(address, self.port);
        let stream = TcpStream::connect(peer).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::IpAddress(address.into()), stream).await?;
        Ok(Box::new(exchange::PodLine::new(peer, stream, self.limits.answer)))
    }
}

#[async_trait]
impl Courier for PodCourier {
    async fn dial(&self, addresses: &[IpAddr]) -> Result<Box<dyn Line>, DialError> {
        let mut causes = Vec::new();
        for address in addresses {
            match timeout(self.limits.dial, self.dial_one(*address)).await {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(error)) => causes.push(format!("{address}: {error}")),
                Err(_) => causes.push(format!("{address}: no handshake within {:?}", self.limits.dial)),
            }
        }
        Err(DialError(causes.join("; ")))
    }
}

#[cfg(test)]
mod tests;
