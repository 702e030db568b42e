//! Calls of Vault's HTTP API, as plain JSON.
//!
//! Must never happen: a token in an error. Errors carry the path, the status and Vault's own messages.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Certificate, Client, Method};
use serde_json::Value;

/// A test would rather fail than wait for a Vault that is paused.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// Vault answered, and not with success.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    request: String,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault answered {} with {}: {}", self.request, self.status, self.message)
    }
}

impl std::error::Error for Refused {}

pub(super) fn client(ca: Option<&str>) -> Result<Client> {
    let mut builder = Client::builder().no_proxy().timeout(CALL_LIMIT);
    // Its own authority or none at all: the system's roots have no say here, and may be missing.
    let roots = match ca {
        Some(pem) => vec![Certificate::from_pem(pem.as_bytes())?],
        None => Vec::new(),
    };
    builder = builder.tls_certs_only(roots);
    builder.build().context("cannot make a client for Vault")
}

pub(super) async fn call(
    http: &Client,
    method: Method,
    url: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Value> {
    let name = format!("{method} {url}");
    let mut request = http.request(method, url);
    if let Some(token) = token {
        request = request.header("X-Vault-Token", token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.with_context(|| format!("{name} failed"))?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| format!("{name}: the answer broke off"))?;
    if !status.is_success() {
        let message = text.trim().to_owned();
        return Err(Refused { status: status.as_u16(), request: name, message }.into());
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("{name}: the answer is not JSON"))
}
