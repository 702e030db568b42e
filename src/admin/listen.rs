//! Accepting those who ask: in clear, or over TLS with a configuration that may change between two of them.
//!
//! Owns the limits on who dials. A handshake costs the processor most, so strangers wait in a place of their own: where
//! too many shake hands at once, the oldest of them has to go. A scraper that shakes hands in milliseconds passes a
//! thousand who never finish theirs.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::places::{LogLimit, Places};

/// Connections at once, on each listener: a few scrapers and a kubelet need a handful.
const MAX_CONNECTIONS: usize = 64;

/// Of these, from one address: a scraper holds one or two.
const MAX_FROM_ONE: usize = 16;

/// Handshakes under way at once. Beyond it the oldest is given up; at two thousand strangers a second it had 60 ms.
const MAX_HANDSHAKES: usize = 128;

/// A handshake takes milliseconds, on the slowest of links a second.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A request's head has to arrive within this.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A connection lives this long at most: a slow reader cannot keep its place, and a scraper whose CA was removed has to
/// show its certificate again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

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

/// TLS on a listener: the configuration in use now, and who is told.
#[derive(Clone)]
pub struct Tls {
    /// Changes at any time; connections that exist go on under the one they began with. Nobody is let in while it is
    /// `None`.
    pub config: watch::Receiver<Option<Arc<ServerConfig>>>,
    /// Is told of strangers.
    pub door: Arc<dyn Door>,
}

/// Serves `routes` on `listener` until `stop`; over TLS where it is given.
pub async fn serve(listener: TcpListener, routes: Router, tls: Option<Tls>, stop: CancellationToken) {
    let serving = Arc::new(Serving {
        routes,
        tls,
        places: Places::new(MAX_CONNECTIONS, MAX_FROM_ONE),
        handshakes: Handshakes::default(),
        told: LogLimit::default(),
    });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (serving, from) = (Arc::clone(&serving), from.ip().to_canonical());
                tokio::spawn(async move { serving.admit(stream, from).await });
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
    tls: Option<Tls>,
    places: Arc<Places>,
    handshakes: Handshakes,
    told: LogLimit,
}

impl Serving {
    async fn admit(&self, stream: TcpStream, from: IpAddr) {
        let Some(tls) = &self.tls else { return self.converse(stream, from).await };
        let Some(config) = tls.config.borrow().clone() else { return };
        let given_up = self.handshakes.begin();
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(config).accept(stream)) => shaken,
            () = given_up.cancelled() => return self.refuse(tls, from, "too_many", "too many shake hands at once"),
        };
        self.handshakes.end(&given_up);
        match shaken {
            Ok(Ok(stream)) => self.converse(stream, from).await,
            Ok(Err(error)) => self.refuse(tls, from, tls.door.cause(&error), &error.to_string()),
            Err(_) => self.refuse(tls, from, "handshake_timeout", "no handshake in time"),
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, from: IpAddr) {
        // Beyond the limit the newcomer is dropped: those inside are bounded in time.
        let place = match self.places.take(from) {
            Ok(place) => place,
            Err(why) => {
                if let Some(tls) = &self.tls {
                    self.refuse(tls, from, "too_many", why);
                }
                return;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.routes.clone()));
        if let Ok(Err(error)) = timeout(CONNECTION_LIMIT, connection).await {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
        drop(place);
    }

    /// Once per address, cause and minute.
    fn refuse(&self, tls: &Tls, from: IpAddr, cause: &'static str, why: &str) {
        tls.door.refused(cause);
        if self.told.due(from, cause) {
            tracing::warn!(peer = %from, cause, "refused on the metrics port: {why}");
        }
    }
}

/// The handshakes under way, the oldest first.
#[derive(Default)]
struct Handshakes(Mutex<VecDeque<Handshake>>);

/// One of them: cancelled when it has to make room.
type Handshake = Arc<CancellationToken>;

impl Handshakes {
    fn begin(&self) -> Handshake {
        let handshake = Handshake::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(Arc::clone(&handshake));
        if all.len() > MAX_HANDSHAKES
            && let Some(oldest) = all.pop_front()
        {
            oldest.cancel();
        }
        handshake
    }

    fn end(&self, handshake: &Handshake) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !Arc::ptr_eq(one, handshake));
    }
}
