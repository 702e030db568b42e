//! What is left of a cluster that has lost its quorum, and what can be done about it: plain data.
//!
//! Owns the fields of `recover --output json`, as for the status.

use serde::{Deserialize, Serialize};

/// The answer to `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// All listed peers, this one included.
    pub peers: Vec<Peer>,
    /// What follows.
    pub verdict: Verdict,
}

/// One listed peer, as it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Where it was asked.
    pub address: String,
    /// Its pod, where it is known.
    pub pod: Option<String>,
    /// Its node id, if it has answered.
    pub node: Option<String>,
    /// The epoch that it is in, if it is in a cluster.
    pub epoch: Option<u64>,
    /// The last entry of its log, if it has one.
    pub last_log: Option<LogPosition>,
    /// Why there is no answer, if there is none.
    pub trouble: Option<String>,
}

/// Where a log ends. A greater term is the longer log, whatever the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPosition {
    /// The last entry's term.
    pub term: u64,
    /// The last entry's index.
    pub index: u64,
}

/// What can be done, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Nothing: a quorum answers or could answer, or too little is known.
    Refused {
        /// Why; at least one.
        reasons: Vec<String>,
    },
    /// This, if it is confirmed.
    Possible(Plan),
    /// This was done.
    Done(Plan),
}

/// How a cluster is formed anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The node that does it: the one with the longest log.
    pub survivor: String,
    /// The new epoch.
    pub epoch: u64,
    /// Voters of the last configuration of which nothing is known.
    pub unaccounted: Vec<String>,
}
