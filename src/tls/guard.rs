//! Connections to peers that end when the other end is not believed any more.
//!
//! A certificate is looked at when a connection begins, and connections of replicas live for weeks. So each time that
//! whom we believe changes (a CA was removed, a secret replaced), the certificates of those who are connected are
//! looked at again. Whoever is still a peer notices nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Who is connected.
#[derive(Default)]
pub(super) struct Connected(Mutex<Vec<Weak<Peer>>>);

/// The other end of one connection.
struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// When it was looked at. That it has run out since is no reason: a renewal must not cut all connections.
    at: UnixTime,
    refused: CancellationToken,
}

/// See the module.
pub struct Guarded<S> {
    stream: S,
    refused: Pin<Box<WaitForCancellationFutureOwned>>,
    _peer: Arc<Peer>,
}

impl Connected {
    /// Notes that `stream` leads to whoever has shown `chain`.
    pub(super) fn guard<S>(&self, stream: S, chain: &[CertificateDer<'_>]) -> Guarded<S> {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // The TLS library has looked at it by this very clock.
        let peer = Arc::new(Peer { chain, at: UnixTime::now(), refused: CancellationToken::new() });
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| peer.strong_count() > 0);
        peers.push(Arc::downgrade(&peer));
        Guarded { stream, refused: Box::pin(peer.refused.clone().cancelled_owned()), _peer: peer }
    }

    /// Ends the connections of those that are not `believed`; how many.
    pub(super) fn review(&self, believed: impl Fn(&[CertificateDer<'_>], UnixTime) -> bool) -> usize {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = peers.iter().filter_map(Weak::upgrade).filter(|peer| !believed(&peer.chain, peer.at));
        refused.inspect(|peer| peer.refused.cancel()).count()
    }
}

#[cfg(test)]
impl<S> Guarded<tokio_rustls::client::TlsStream<S>> {
    /// What was agreed on.
    pub(super) fn session(&self) -> &rustls::ClientConnection {
        self.stream.get_ref().1
    }
}

#[cfg(test)]
impl<S> Guarded<tokio_rustls::server::TlsStream<S>> {
    /// What was agreed on.
    pub(super) fn session(&self) -> &rustls::ServerConnection {
        self.stream.get_ref().1
    }
}

impl<S> Guarded<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.refused.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's certificate is not accepted any more"))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
