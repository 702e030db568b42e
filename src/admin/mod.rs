//! What scrapers and the kubelet ask over HTTP: `/metrics`, `/livez`, `/readyz`, `/startupz`.
//!
//! Owns the two listeners and what is asked of who dials them. Serves no secret and takes no input: a request is a path.

mod listen;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

pub use self::listen::{Door, Options, serve};

/// What the pages say.
pub trait Pages: Send + Sync + 'static {
    /// The metrics page.
    fn metrics(&self) -> Vec<u8>;
    /// Whether this process should go on living; if not, why.
    fn live(&self) -> Result<(), String>;
    /// Whether this replica can do its part; if not, why.
    fn ready(&self) -> Result<(), String>;
    /// Whether everything that is waited for at the start is there; if not, why.
    fn started(&self) -> Result<(), String>;
}

/// `/metrics` alone.
pub fn metrics_routes(pages: Arc<dyn Pages>) -> Router {
    let page =
        move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], pages.metrics()) };
    Router::new().route("/metrics", get(page))
}

/// `/livez`, `/readyz` and `/startupz`.
pub fn health_routes(pages: Arc<dyn Pages>) -> Router {
    let (live, started) = (pages.clone(), pages.clone());
    Router::new()
        .route("/livez", get(move || async move { answer(live.live()) }))
        .route("/readyz", get(move || async move { answer(pages.ready()) }))
        .route("/startupz", get(move || async move { answer(started.started()) }))
}

fn answer(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(cause) => (StatusCode::SERVICE_UNAVAILABLE, cause + "\n"),
    }
}

#[cfg(test)]
mod tests;
