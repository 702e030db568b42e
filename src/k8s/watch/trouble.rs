//! What may go wrong with the watch, and what each kind means for going on.
//!
//! Pure. Every kind leads to another try; what differs is whether the place in the watch is kept.

use std::time::Duration;

/// Why the watch, or a list, did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The server ended the watch: it does so by itself every few minutes.
    #[error("the API server ended the watch")]
    Ended,
    /// The connection, or what came over it, is unusable.
    #[error("{0}")]
    Broken(String),
    /// What came makes no sense.
    #[error("the API server's answer makes no sense: {0}")]
    Garbled(String),
    /// No answer in time.
    #[error("the API server did not answer in time")]
    Slow,
    /// An open watch said nothing for longer than it was to last.
    #[error("the connection of the watch seems dead: nothing was heard, not even its end")]
    Silent,
    /// The place in the watch is too old.
    #[error("the API server does not know our place in the watch any more: {0}")]
    Gone(String),
    /// A streaming list was refused, or never completed.
    #[error("no streaming list: {0}")]
    NoStreaming(String),
    /// Any other answer that is an error.
    #[error("the API server answered {code}: {message}")]
    Answered {
        /// HTTP status, or `code` of a status in the watch.
        code: u16,
        /// The server's words.
        message: String,
        /// `Retry-After`.
        after: Option<Duration>,
    },
}

impl Trouble {
    pub(super) fn answered(code: u16, message: String, after: Option<Duration>) -> Self {
        match code {
            410 => Self::Gone(message),
            _ => Self::Answered { code, message, after },
        }
    }

    /// The same, where it is the answer to a streaming list: a server without it calls the request invalid.
    pub(super) fn into_streaming_list(self) -> Self {
        match self {
            Self::Answered { code: 400 | 422, message, .. } => Self::NoStreaming(message),
            other => other,
        }
    }

    /// The cause that log lines are limited by.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Broken(_) => "broken",
            Self::Garbled(_) => "garbled",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Gone(_) => "gone",
            Self::NoStreaming(_) => "no streaming list",
            Self::Answered { code: 401 | 403, .. } => "refused",
            Self::Answered { code: 429 | 503, .. } => "overloaded",
            Self::Answered { .. } => "answered",
        }
    }

    /// What may be done about it, where anything may.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Answered { code: 403, .. } => {
                " (the service account needs list and watch on pods: a ClusterRole, or a Role where one namespace is watched)"
            }
            Self::Answered { code: 401, .. } => " (is the service account's token mounted and valid?)",
            _ => "",
        }
    }

    /// Whether the place in the watch may be at fault, although the server does not say so. One restored from a
    /// backup, for one, says of a version that it does not have yet: "too large", and that for ever.
    pub(super) fn may_be_the_place(&self) -> bool {
        matches!(self, Self::Garbled(_) | Self::Answered { code: 400 | 422 | 500 | 504, .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { after, .. } => *after,
            _ => None,
        }
    }
}
