//! The local control socket: what `kubernetes-vault status`, `explain` and `recover` ask of the controller that runs
//! beside them.
//!
//! Owns the questions, the answers and their wording. Reached by a file that only the controller's own user can open,
//! never by a network port; no secret goes through it. It decides nothing: whoever implements [`Control`] does.

mod client;
mod explain;
mod recovery;
mod render;
mod socket;
mod status;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::pod_name::PodName;

pub use self::client::{ClientError, ask};
pub use self::explain::{Event, Explanation, Fact, Outlook};
pub use self::recovery::{LogPosition, Peer, Plan, Recovery, Verdict};
pub use self::render::{Report, report};
pub use self::socket::{BindError, Socket};
pub use self::status::{Ledger, Log, Member, MemberKind, Progress, Role, Status, Storage};

/// The socket's name in `raftDir`.
pub const FILE: &str = "control.sock";

/// Longest path of a Unix socket (the kernel's 108 bytes, the last one zero).
const MAX_PATH_BYTES: usize = 107;

/// How long an answer may take. To recover, each listed peer is asked first, and a silent one takes its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What the controller can be asked.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// How this replica is.
    async fn status(&self) -> Status;

    /// Why `pod` has, or has not, its token.
    async fn explain(&self, pod: &PodName) -> Explanation;

    /// Whether the cluster can be formed anew out of what a lost quorum has left; and does so if it can, where
    /// `confirm` says so. Nothing is changed otherwise.
    async fn recover(&self, confirm: bool) -> Recovery;
}

/// A question: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase")]
pub enum Request {
    /// See [`Control::status`].
    Status,
    /// See [`Control::explain`].
    Explain {
        /// `NAMESPACE/NAME`.
        pod: PodName,
    },
    /// See [`Control::recover`].
    Recover {
        /// Act, where it can be done.
        confirm: bool,
    },
}

/// An answer: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Recover`].
    Recovery(Recovery),
    /// The question was not understood, or took too long.
    Error(String),
}

#[cfg(test)]
mod fixtures;
