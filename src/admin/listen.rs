//! Accepting those who ask: in clear, or over TLS with a configuration that may change between two of them.
//!
//! Owns the limits on who dials: how many at once (see [`Crowd`]), and how long each step may take.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::places::{Crowd, LogLimit};

/// Connections at once, on each listener, those that still shake hands included. A few scrapers and a kubelet need a
/// handful; the rest is time for their handshakes while strangers come by the thousand.
const MAX_CONNECTIONS: usize = 192;

/// A handshake takes milliseconds, on the slowest of links a second.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A request's head has to arrive within this.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A connection lives this long at most: a slow reader cannot keep its place, and a scraper whose CA was removed has to
/// show its certificate again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// What is under way by then may still be finished within this.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Largest request head.
const HEAD_BYTES: usize = 16 << 10;

/// After `accept` failed (out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Who is told of those who are not let in.
pub trait Door: Send + Sync + 'static {
    /// A metric's label for why a handshake failed.
    fn cause(&self, error: &io::Error) -> &'static str;
    /// Somebody was refused, and why.
    fn refused(&self, cause: &'static str);
}

/// How a listener is served.
#[derive(Clone, Default)]
pub struct Options {
    /// TLS, where it is set, with the configuration in use now. It changes at any time; connections that exist go on under
    /// the one they began with. Nobody is let in while it is `None`.
    pub tls: Option<watch::Receiver<Option<Arc<ServerConfig>>>>,
    /// Is told of strangers.
    pub door: Option<Arc<dyn Door>>,
}

/// Serves `routes` on `listener` until `stop`.
pub async fn serve(listener: TcpListener, routes: Router, options: Options, stop: CancellationToken) {
    let crowd = Crowd::new(MAX_CONNECTIONS);
    let serving = Arc::new(Serving { routes, options, told: LogLimit::default() });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (serving, from) = (Arc::clone(&serving), from.ip().to_canonical());
                let seat = crowd.enter(from);
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving.admit(stream, from) => {}
                        () = seat.wanted() => serving.refuse(from, "too_many", "too many are connected at once"),
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Serving {
    routes: Router,
    options: Options,
    told: LogLimit,
}

impl Serving {
    async fn admit(&self, stream: TcpStream, from: IpAddr) {
        let Some(tls) = &self.options.tls else { return self.converse(stream).await };
        let Some(config) = tls.borrow().clone() else { return };
        match timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => {
                let cause = self.options.door.as_ref().map_or("other", |door| door.cause(&error));
                self.refuse(from, cause, &error.to_string());
            }
            Err(_) => self.refuse(from, "handshake_timeout", "no handshake in time"),
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.routes.clone()));
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = sleep(CONNECTION_LIMIT) => {
                // A page that is being read is not cut.
                connection.as_mut().graceful_shutdown();
                timeout(LAST_ANSWER_LIMIT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }

    /// Logged once per address, cause and minute.
    fn refuse(&self, from: IpAddr, cause: &'static str, why: &str) {
        if let Some(door) = &self.options.door {
            door.refused(cause);
        }
        if self.told.due(from, cause) {
            tracing::warn!(peer = %from, cause, "refused where metrics or health are served: {why}");
        }
    }
}
