//! What happened in a run, as plain data: every rig writes it, and the oracle reads nothing else.
//!
//! An event says who saw it. What a controller says and what a receiver or Vault says are kept apart: the oracle
//! compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kubernetes_vault::domain::ids::{AttemptId, BootId, ClusterId, InstanceKey, NodeId, PodUid, Term};
use kubernetes_vault::domain::ledger::{Author, Command, Reply};

use crate::receivers::Kind;

/// Milliseconds since the run began.
pub(crate) type Millis = u64;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When, by the rig's own clock.
    pub(crate) at: Millis,
    /// What.
    pub(crate) what: What,
}

/// See [`Event`].
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "what no rule reads is read by people, in a trace")]
pub(crate) enum What {
    /// A controller started, on a storage that the rig numbers.
    Started { n: u8, node: NodeId, boot: BootId, storage: u64 },
    /// A node takes part in a cluster under this id.
    Belongs { n: u8, node: NodeId, cluster: ClusterId, storage: u64 },
    /// A controller's process ended, in whatever way.
    Ended { n: u8, boot: BootId },
    /// A controller ended by itself. It never should.
    Failed { n: u8, why: String },
    /// A leadership began.
    Leads { n: u8, by: Author, cluster: Option<ClusterId> },
    /// A controller asked whether it holds the lease of `term`.
    Lease { n: u8, cluster: Option<ClusterId>, term: Term, held: bool },
    /// A command was proposed.
    Proposed { n: u8, op: u64, command: Command },
    /// The same was answered; `None`: its outcome is unknown.
    Answered { n: u8, op: u64, reply: Option<Reply>, applied: bool },
    /// Vault was asked for a `secret_id`.
    VaultAsked { n: u8, by: Author, attempt: AttemptId },
    /// Vault made one.
    VaultIssued { attempt: AttemptId, accessor: String },
    /// The answer that would have brought it was lost.
    VaultAnswerLost { attempt: AttemptId },
    /// A controller begins a push.
    PushBegun { n: u8, by: Author, attempt: AttemptId, to: IpAddr, pod: PodUid },
    /// A push was answered; `None`: no complete answer.
    PushEnded { n: u8, attempt: AttemptId, status: Option<u16> },
    /// A controller puts a `secret_id` out of the world.
    Neutralise { n: u8, accessor: String, done: bool },
    /// An instance of an init container began.
    Instance { instance: u64, kind: Kind, pod: PodUid, container: String },
    /// A push reached an instance.
    Pushed { instance: u64, attempt: AttemptId, meant_for: PodUid },
    /// The instance took it: it will use it, or has used it.
    Accepted { instance: u64, attempt: AttemptId },
    /// The instance ended.
    InstanceEnded { instance: u64, code: i32 },
    /// A pod's author was told something final.
    Terminal { pod: PodUid, reason: &'static str },
    /// An incident that the metrics count.
    Counted { n: u8, what: String },
    /// Controller `n` answered Raft's frame for a node that it is not.
    AnsweredForAnother { n: u8, target: NodeId },
    /// The nemesis did something.
    Fault(String),
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// In order.
    pub(crate) events: Vec<Event>,
    /// What was committed, as every replica's log has it in the end; `None`: that was not looked at.
    pub(crate) log: Option<Vec<Logged>>,
    /// The `secret_id`s that Vault has in the end.
    pub(crate) secrets: Vec<SecretLeft>,
    /// From this event on nothing that was acknowledged earlier has to be there: a majority of stores was lost on
    /// purpose.
    pub(crate) forgiven_before: usize,
    /// Our policy lets us destroy by accessor.
    pub(crate) destroy_allowed: bool,
}

/// A committed entry of the log that holds a command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logged {
    /// The entry's term.
    pub(crate) term: Term,
    /// Its place.
    pub(crate) index: u64,
    /// What was committed.
    pub(crate) command: Command,
}

/// A `secret_id` in Vault at the end of a run.
#[derive(Clone, Debug)]
pub(crate) struct SecretLeft {
    /// For which attempt it was made.
    pub(crate) attempt: AttemptId,
    /// Somebody can still get it out of its wrapping.
    pub(crate) obtainable: bool,
}

impl History {
    /// Adds an event.
    pub(crate) fn push(&mut self, at: Millis, what: What) {
        self.events.push(Event { at, what });
    }

    /// Whether a cluster was begun while the only member that an earlier one ever had was down: it counts as absent then.
    pub(crate) fn only_member_was_down(&self) -> bool {
        let (mut up, mut members) = (BTreeSet::new(), BTreeMap::<ClusterId, BTreeSet<u8>>::new());
        for event in &self.events {
            match event.what {
                What::Started { n, .. } => drop(up.insert(n)),
                What::Ended { n, .. } => drop(up.remove(&n)),
                What::Belongs { n, cluster, .. } => {
                    let alone_and_down = |of: &BTreeSet<u8>| of.len() == 1 && of.is_disjoint(&up);
                    if !members.contains_key(&cluster) && members.values().any(alone_and_down) {
                        return true;
                    }
                    members.entry(cluster).or_default().insert(n);
                }
                _ => {}
            }
        }
        false
    }

    /// The end of the trace, for people.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let from = self.events.len().saturating_sub(lines);
        self.events[from..].iter().map(|event| format!("{:>7} ms  {:?}\n", event.at, event.what)).collect()
    }

    /// A hash of everything that happened: two runs with one hash were the same.
    pub(crate) fn hash(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for event in &self.events {
            format!("{event:?}").hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The instance that a command is about.
pub(crate) fn key_of(command: &Command) -> &InstanceKey {
    match command {
        Command::Claim(claim) => &claim.key,
        Command::Issued(issued) => &issued.key,
        Command::Outcome(outcome) => &outcome.key,
    }
}
