//! What Vault's answers mean, and when a request may be repeated.
//!
//! Pure: no network, no clock.
//!
//! Must never: repeat a secret that the other side sent back.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{LOCATION, RETRY_AFTER};
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::http_client::Reply;

/// First wait between tries; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest Retry-After that is passed on. Whoever asks for more is broken or hostile.
const RETRY_AFTER_SECS_MAX: u64 = 3600;

/// How much of Vault's own words goes into a log line or an answer.
const WORDS_CHARS_MAX: usize = 300;

/// Why Vault did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer.
    Unreachable(String),
    /// Trying again is no use before somebody has changed something: its certificate, a redirect elsewhere, an
    /// answer that is not Vault's.
    Wrong(String),
    /// Vault cannot now: sealed, overloaded, failing.
    Unavailable { status: u16, retry_after: Option<u64>, words: String },
    /// Vault will not.
    Refused { status: u16, words: String },
}

impl Fault {
    /// For log lines and answers.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Unreachable(why) | Self::Wrong(why) => why.clone(),
            Self::Unavailable { status, words, .. } | Self::Refused { status, words } => {
                format!("Vault answered {status}: {words}")
            }
        }
    }

    /// Seconds that Vault asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        if let Self::Unavailable { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Whether Vault says, in one of its versions' words, what `words` lists.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        let (Self::Refused { words: said, .. } | Self::Unavailable { words: said, .. }) = self else {
            return false;
        };
        words.iter().any(|words| said.contains(words))
    }
}

/// A fault, and whether an earlier or this very try may have been acted upon without our seeing the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) fault: Fault,
    pub(crate) lost: bool,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// How long to wait before the next try, or `None` when there is to be none.
pub(super) fn wait_before_retry(fault: &Fault, tries: u32, jitter: u64, left: Duration) -> Option<Duration> {
    match fault {
        Fault::Wrong(_) | Fault::Refused { .. } => return None,
        Fault::Unreachable(_) | Fault::Unavailable { .. } => {}
    }
    let ceiling = RETRY_WAIT_MIN.saturating_mul(1 << tries.min(10)).min(RETRY_WAIT_MAX);
    // Between half and all of it: many pods start at once when a Vault comes back.
    let half = ceiling / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(0) + 1;
    let wait = half + Duration::from_millis(jitter % spread);
    let wait = wait.max(Duration::from_secs(fault.retry_after().unwrap_or(0)));
    (wait < left).then_some(wait)
}

/// The meaning of an answer that is neither success nor redirect.
pub(super) fn classify(reply: &Reply, secrets: &[&str]) -> Failed {
    let status = reply.status.as_u16();
    let errors = serde_json::from_slice::<Errors>(&reply.body).ok();
    let is_vault = errors.is_some();
    let words = words(&errors.map(|e| e.errors).unwrap_or_default(), secrets);
    let retry_after = reply
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|secs: u64| secs.min(RETRY_AFTER_SECS_MAX));
    // Vault's AppRole gives a 500 for a secret_id that is of another role, and did so for years.
    let fault = if words.contains("invalid secret id") || words.contains("invalid secret_id") {
        Fault::Refused { status, words }
    } else if reply.status.is_server_error() || matches!(status, 412 | 429 | 472 | 473) {
        // 412: a standby that has not seen the token yet.
        Fault::Unavailable { status, retry_after, words }
    } else if is_vault {
        Fault::Refused { status, words }
    } else {
        Fault::Wrong(format!("the answer {status} does not come from a Vault"))
    };
    // Sealed or overloaded, it has not begun; with another failure, who knows how far it came.
    let lost = matches!(fault, Fault::Unavailable { .. }) && !matches!(status, 412 | 429 | 503);
    Failed { fault, lost }
}

/// Vault's errors as one short line, with whatever it repeats of our secrets taken out.
fn words(errors: &[String], secrets: &[&str]) -> String {
    let mut text = errors.join("; ");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "(withheld)");
    }
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text: String = text.chars().take(WORDS_CHARS_MAX).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

/// Where a redirect leads, if it stays with the same server and keeps the method.
pub(super) fn same_server_path(reply: &Reply, own: &Endpoint) -> Result<String, String> {
    let target = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !matches!(reply.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return Err(format!("{own} answers {} where a Vault would not", reply.status.as_u16()));
    }
    if target.starts_with('/') && !target.starts_with("//") {
        return Ok(target.to_owned());
    }
    let other = Endpoint::parse(target).map_err(|why| format!("{own} redirects to no address: {why}"))?;
    if other.same_server(own) {
        let uri: hyper::Uri = target.parse().map_err(|_| "no address".to_owned())?;
        return Ok(uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string));
    }
    let host = other.authority;
    Err(format!(
        "{own} redirects to {host}; the token is not sent to another host. Name the active Vault, or let standbys forward requests"
    ))
}

#[cfg(test)]
mod tests;
