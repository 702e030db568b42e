//! Reads a body up to a limit, into memory that is wiped.

use std::fmt;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Incoming};
use zeroize::Zeroizing;

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum Error {
    /// Longer than the limit.
    TooLarge,
    /// It broke off.
    Broken(hyper::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it is too long"),
            Self::Broken(e) => e.fmt(f),
        }
    }
}

/// The whole body, if it is no longer than `limit`.
///
/// `discard`: read and drop up to so many bytes of one that is longer, so that its sender gets to read the answer
/// (a socket closed with bytes unread resets the connection).
pub(crate) async fn read(
    mut body: Incoming,
    limit: usize,
    discard: Option<usize>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let promised = body.size_hint().upper().and_then(|n| usize::try_from(n).ok());
    // In one piece where the length is known: a buffer that grows leaves copies of a secret behind.
    let capacity = promised.unwrap_or(0).min(limit);
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    let mut seen = 0_usize;
    if promised.is_some_and(|n| n > limit.max(discard.unwrap_or(0))) {
        return Err(Error::TooLarge);
    }
    while let Some(frame) = body.frame().await {
        let Ok(data): Result<Bytes, _> = frame.map_err(Error::Broken)?.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            content.extend_from_slice(&data);
        } else if seen > discard.unwrap_or(0) {
            break;
        }
    }
    if seen > limit { Err(Error::TooLarge) } else { Ok(content) }
}
