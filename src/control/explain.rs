//! Why a pod has, or has not, its token: plain data.
//!
//! Owns the fields of `explain --output json`: fields, kinds and names of facts may be added, none is renamed.

use serde::{Deserialize, Serialize};

/// The answer to `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `NAMESPACE/NAME`, as asked for.
    pub pod: String,
    /// The conclusion, for programs.
    pub kind: String,
    /// What it means for the pod.
    pub outlook: Outlook,
    /// The conclusion: one sentence that names the cause.
    pub conclusion: String,
    /// What it rests on, in order. A name may come several times.
    pub facts: Vec<Fact>,
    /// What the pod's author was told by Events of ours, oldest first.
    pub events: Vec<Event>,
    /// Why there may be more Events than these; nothing if these are all.
    pub events_incomplete: Option<String>,
    /// What to do, if anything.
    pub advice: Vec<String>,
}

/// What a conclusion means for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outlook {
    /// It has its token.
    Served,
    /// It will have it, unless something happens.
    OnItsWay,
    /// It waits for something that has to be mended.
    Stuck,
    /// This replica cannot tell.
    Unknown,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// What it is about.
    pub name: String,
    /// What is so.
    pub text: String,
}

/// One Event of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its reason.
    pub reason: String,
    /// What it says.
    pub note: String,
    /// How often.
    pub count: u64,
    /// How long ago it was last said, in milliseconds, where that is known.
    pub ago_ms: Option<u64>,
}

impl Explanation {
    /// Whether the pod has its token, or will have it by itself.
    pub fn is_well(&self) -> bool {
        matches!(self.outlook, Outlook::Served | Outlook::OnItsWay)
    }
}
