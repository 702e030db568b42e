//! What scrapers and the kubelet ask over HTTP: `/metrics`, `/livez`, `/readyz`.
//!
//! Owns the two listeners. Serves no secret and takes no input: a request is a path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at once, on each listener: a few scrapers and a kubelet need a handful.
const MAX_CONNECTIONS: usize = 64;

/// A request's head has to arrive within this.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A connection lives this long at most: a slow reader cannot keep its place.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// Largest request head.
const HEAD_BYTES: usize = 16 << 10;

/// After `accept` failed (out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the pages say.
pub trait Pages: Send + Sync + 'static {
    /// The metrics page.
    fn metrics(&self) -> Vec<u8>;
    /// Whether this process should go on living; if not, why.
    fn live(&self) -> Result<(), String>;
    /// Whether this replica can do its part; if not, why.
    fn ready(&self) -> Result<(), String>;
}

/// `/metrics` alone.
pub fn metrics_routes(pages: Arc<dyn Pages>) -> Router {
    let page =
        move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], pages.metrics()) };
    Router::new().route("/metrics", get(page))
}

/// `/livez` and `/readyz`.
pub fn health_routes(pages: Arc<dyn Pages>) -> Router {
    let live = pages.clone();
    Router::new()
        .route("/livez", get(move || async move { answer(live.live()) }))
        .route("/readyz", get(move || async move { answer(pages.ready()) }))
}

fn answer(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(cause) => (StatusCode::SERVICE_UNAVAILABLE, cause + "\n"),
    }
}

/// Binds `address` on all families where it names none.
///
/// # Errors
/// The address, and what the system says.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `routes` on `listener` until `stop`.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Beyond the limit the newcomer is dropped: those inside are bounded in time.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_LIMIT, connection).await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        });
    }
}
