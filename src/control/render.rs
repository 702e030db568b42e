//! Answers as text for a terminal of 80 columns, or as JSON.
//!
//! Owns the wording. JSON is never cut.

mod explain;

use super::{Answer, LogPosition, Member, MemberKind, Peer, Plan, Recovery, Role, Status, Verdict};
use crate::print::{Paint, Tone, View, pretty, short_time, table, tail, wrap};

/// Of a node id in a table: enough to tell a handful of random ones apart.
const SHORT_ID: usize = 8;

/// The default port of Raft's peers, which no table repeats.
const RAFT_PORT: &str = ":45679";

/// What a command prints, and whether its exit code is that of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// With its last line's end.
    pub text: String,
    /// The replica does its part; what was asked for was done, or can be.
    pub well: bool,
}

/// `answer` as text, or as JSON.
pub fn report(answer: &Answer, view: View) -> Report {
    let well = match answer {
        Answer::Status(status) => status.trouble().is_empty(),
        Answer::Recovery(recovery) => !matches!(recovery.verdict, Verdict::Refused { .. }),
        Answer::Explanation(explanation) => explanation.is_well(),
        Answer::Error(_) => false,
    };
    let text = match (answer, view) {
        (Answer::Status(of), View::Json) => pretty(of),
        (Answer::Recovery(of), View::Json) => pretty(of),
        (Answer::Explanation(of), View::Json) => pretty(of),
        (Answer::Explanation(of), View::Text(paint)) => explain::explanation(of, paint),
        (Answer::Status(of), View::Text(paint)) => status(of, paint),
        (Answer::Recovery(of), View::Text(paint)) => recovery(of, paint),
        (Answer::Error(why), _) => format!("{why}\n"),
    };
    Report { text, well }
}

fn status(of: &Status, paint: Paint) -> String {
    let mut text = String::new();
    for trouble in of.trouble() {
        text += &paint.wrap(Tone::Bad, "! ", &trouble);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let pod = of.pod.as_deref().map_or_else(String::new, |pod| format!(", pod {pod}"));
    let cluster = of.cluster.as_ref().map_or_else(|| "none yet".to_owned(), |id| format!("{id}, epoch {}", of.epoch));
    let bound = if of.storage.bound_to_pod { "goes with the pod" } else { "outlives the pod" };
    let (log, ledger) = (&of.log, &of.ledger);
    // Cut off, it goes on as Raft's leader until it hears of another; it delivers nothing.
    let lease = if of.role == Role::Leader && of.leader.is_none() { " without a lease" } else { "" };
    for (name, value) in [
        ("version", of.version.clone()),
        ("node", format!("{}{pod}", of.node)),
        ("cluster", cluster),
        ("role", format!("{}{lease}, term {}", role(of.role), of.term)),
        ("leader", of.leader.clone().unwrap_or_else(|| "unknown".to_owned())),
        (
            "log",
            format!(
                "committed {}, applied {}, last {}, snapshot {}",
                index(log.committed),
                index(log.applied),
                index(log.last),
                index(log.snapshot)
            ),
        ),
        ("ledger", format!("{} entries: {} open, {} tombstones", ledger.entries, ledger.open, ledger.tombstones)),
        ("storage", format!("{}, {}, {bound}", of.storage.directory, size(of.storage.bytes))),
        ("identity", of.identity.clone()),
    ] {
        text += &wrap(&format!("{name:<9}"), &value);
    }
    if !of.members.is_empty() {
        text.push('\n');
        text += &table(&["NODE", "KIND", ">LAG", ">ACKED", "UP", "ADDRESS", "POD"], of.members.iter().map(member_row));
    }
    if of.members.iter().any(|member| member.progress.is_none()) {
        text += "\n? is known to the leader only.\n";
    }
    text
}

fn member_row(member: &Member) -> Vec<String> {
    let acknowledged =
        member.progress.map(|progress| progress.acknowledged_ms.map_or_else(|| "-".to_owned(), short_time));
    vec![
        short(&member.node),
        match member.kind {
            MemberKind::Voter => "voter".to_owned(),
            MemberKind::Learner => "learner".to_owned(),
        },
        member.progress.map_or_else(|| "?".to_owned(), |progress| progress.lag.to_string()),
        acknowledged.unwrap_or_else(|| "?".to_owned()),
        member.reachable.map_or("?", |reachable| if reachable { "yes" } else { "no" }).to_owned(),
        host(&member.address),
        member.pod.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn recovery(of: &Recovery, paint: Paint) -> String {
    let mut text = table(&["NODE", ">EPOCH", ">LAST LOG", "ADDRESS", "POD"], of.peers.iter().map(peer_row));
    for peer in &of.peers {
        if let Some(trouble) = &peer.trouble {
            text += &paint.wrap(Tone::Odd, "! ", &format!("{}: {trouble}", host(&peer.address)));
        }
    }
    text.push('\n');
    match &of.verdict {
        Verdict::Refused { reasons } => {
            text += "Nothing was changed: the cluster cannot be formed anew.\n";
            for reason in reasons {
                text += &wrap("- ", reason);
            }
        }
        Verdict::Possible(plan) => {
            text += "Nothing was changed yet.\n";
            text += &wrap("", &intention(of, plan));
        }
        Verdict::Done(plan) => {
            text += &wrap(
                "",
                &format!(
                    "Node {} has formed the cluster anew, under epoch {}. The others join it by themselves.",
                    plan.survivor, plan.epoch
                ),
            );
        }
    }
    text
}

fn intention(of: &Recovery, plan: &Plan) -> String {
    let survivor = of.peers.iter().find(|peer| peer.node.as_ref() == Some(&plan.survivor));
    let log = survivor.and_then(|peer| peer.last_log);
    let mut text = format!("No quorum can answer any more. With --yes, node {}", plan.survivor);
    if let Some(LogPosition { term, index }) = log {
        text += &format!(", whose log is the longest (term {term}, index {index}),");
    }
    text += &format!(" forms the cluster anew under epoch {}, with the ledger that it has.", plan.epoch);
    if !plan.unaccounted.is_empty() {
        text += &format!(
            " Nothing is known of the voters {}: what only they have acknowledged is lost for good, and they are refused \
             should they come back. Make sure that they are gone before you go on.",
            plan.unaccounted.join(", ")
        );
    }
    text
}

fn peer_row(peer: &Peer) -> Vec<String> {
    let nothing = || "-".to_owned();
    vec![
        peer.node.as_deref().map_or_else(nothing, short),
        peer.epoch.map_or_else(nothing, |epoch| epoch.to_string()),
        match peer.last_log {
            Some(LogPosition { term, index }) => format!("{term}/{index}"),
            None if peer.trouble.is_some() => "no answer".to_owned(),
            None => "empty".to_owned(),
        },
        host(&peer.address),
        peer.pod.clone().unwrap_or_else(nothing),
    ]
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// An address without the port that all peers have.
fn host(address: &str) -> String {
    let host = address.strip_suffix(RAFT_PORT).unwrap_or(address);
    // An IPv6 address needs its brackets only before a port. A long one is cut to an IPv4 address with a port.
    tail(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), 21)
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Forming => "forming",
    }
}

fn index(index: Option<u64>) -> String {
    index.map_or_else(|| "none".to_owned(), |index| index.to_string())
}

fn size(bytes: Option<u64>) -> String {
    match bytes {
        None => "of unknown size".to_owned(),
        Some(bytes) if bytes < 1 << 20 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        Some(bytes) => format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests;
