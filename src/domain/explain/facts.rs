//! What a conclusion rests on, each fact in a line.
//!
//! Owns the facts' names, which are never renamed. Says nothing that is not known: no fact, no line.

use super::{AddressTaken, Facts, Found, Replica, Stage, Work, status};
use crate::domain::ids::{InstanceKey, Timestamp};
use crate::domain::ledger::{Attempt, AttemptState, Entry, Verdict};
use crate::domain::pod::{ContainerState, Phase, Pod, Target, Termination};

/// Attempts that are told of one start: the last ones say it all.
const MOST_ATTEMPTS: usize = 5;

/// Starts that are told of one pod: a crash loop has many, and the last ones say it all.
const MOST_STARTS: usize = 5;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// What is so.
    pub text: String,
}

/// What is known, at `now`.
pub fn facts(known: &Facts<'_>, now: Timestamp) -> Vec<Fact> {
    let mut all = Vec::new();
    let mut add = |name, text: String| all.push(Fact { name, text });
    match &known.found {
        Found::Pod(pod) => {
            add("pod", of_pod(pod));
            if let Some(wish) = &pod.wish {
                let shown = |value: &Option<std::sync::Arc<str>>| {
                    value.as_deref().map_or_else(|| "missing".to_owned(), |value| format!("{value:?}"))
                };
                add("annotations", format!("AppRole {}, init container {}", shown(&wish.role), shown(&wish.container)));
                add("initContainer", of_container(pod, now));
            } else {
                add("annotations", "none of ours".to_owned());
            }
        }
        Found::Missing => add("pod", "there is none of that name".to_owned()),
        Found::Unreadable(cause) => add("pod", format!("not readable: {cause}")),
    }
    let takes = if known.watched { "watched" } else { "not watched (kubernetes.watchNamespace)" };
    add("namespace", takes.to_owned());
    if known.ledger.is_empty() {
        add("ledger", "no entry".to_owned());
    }
    let skipped = known.ledger.len().saturating_sub(MOST_STARTS);
    for (key, entry) in &known.ledger[skipped..] {
        add("ledger", of_entry(key, entry, now));
    }
    add("replica", of_replica(&known.replica));
    if let Some(work) = &known.work {
        add("work", of_work(work));
    } else if let Replica::Follows(_) = known.replica {
        add("work", "known to the leader only: its turn, its retries, the last error".to_owned());
    }
    add("vault", known.vault.as_ref().map_or_else(|| "usable".to_owned(), |why| format!("not usable: {why}")));
    if let Some(why) = &known.watch {
        add("watch", format!("not up to date: {why}"));
    }
    all
}

fn of_pod(pod: &Pod) -> String {
    let phase = match pod.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown",
    };
    let mut text = format!("uid {}, {phase}", pod.reference.uid);
    if pod.deleting {
        text += ", being deleted";
    }
    if !pod.node.is_empty() {
        text += &format!(", node {}", pod.node);
    }
    let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
    text += &if ips.is_empty() { ", no address".to_owned() } else { format!(", address {}", ips.join(" and ")) };
    if pod.host_network {
        text += " (its node's: hostNetwork)";
    }
    text
}

fn of_container(pod: &Pod, now: Timestamp) -> String {
    let Some(status) = status(pod) else {
        return match pod.wish.as_ref().map(|wish| &wish.target) {
            Some(Target::Ordinary) => "the annotation names an ordinary container".to_owned(),
            _ => "the pod has no init container of that name".to_owned(),
        };
    };
    let mut text = match &status.state {
        ContainerState::Waiting => "waiting, or without a status yet".to_owned(),
        ContainerState::Running { id, since } => {
            let for_how_long = since.map_or_else(String::new, |since| format!(" for {}", ago(now, since)));
            let id = id.as_ref().map_or_else(|| "no id yet".to_owned(), ToString::to_string);
            format!("running{for_how_long}, {id}")
        }
        ContainerState::Terminated(end) => ended(end, now),
    };
    if let Some(last) = &status.last {
        text += &format!("; its start before {}", ended(last, now));
    }
    text
}

fn ended(end: &Termination, now: Timestamp) -> String {
    let when = end.at.map_or_else(String::new, |at| format!(" {} ago", ago(now, at)));
    format!("ended with exit code {}{when}", end.exit_code)
}

fn of_entry(key: &InstanceKey, entry: &Entry, now: Timestamp) -> String {
    let again = if key.generation > 0 { format!(", served again ({})", key.generation) } else { String::new() };
    let settled = entry.closed.map_or_else(|| "open".to_owned(), |at| format!("settled {} ago", ago(now, at)));
    let skipped = entry.attempts.len().saturating_sub(MOST_ATTEMPTS);
    let attempts: Vec<String> = entry.attempts[skipped..].iter().map(|attempt| of_attempt(attempt, now)).collect();
    let earlier = if skipped > 0 { format!("{skipped} earlier attempts; ") } else { String::new() };
    let attempts = if attempts.is_empty() { "no attempt".to_owned() } else { attempts.join("; ") };
    format!("{} {}{again}: {settled}; {earlier}{attempts}", key.container, key.container_id)
}

fn of_attempt(attempt: &Attempt, now: Timestamp) -> String {
    let state = match attempt.state {
        AttemptState::Claimed => "claimed",
        AttemptState::Issued => "issued",
        AttemptState::Unknown => "sent, without an answer",
        AttemptState::Over(Verdict::Accepted) => "accepted",
        AttemptState::Over(Verdict::Refused) => "refused",
        AttemptState::Over(Verdict::NeverSent) => "never sent",
        AttemptState::Over(Verdict::Lost | Verdict::Unknown) => "lost",
    };
    let when = attempt.pushed_until.map_or_else(String::new, |at| format!(", its push ended {} ago", ago(now, at)));
    format!("attempt {} {state} in term {}{when}", attempt.id, attempt.by.term.0)
}

fn of_replica(replica: &Replica) -> String {
    match replica {
        Replica::Forming(_) => "in no cluster yet".to_owned(),
        Replica::Leaderless => "knows no leader".to_owned(),
        Replica::WithoutQuorum => "was elected, and has no quorum".to_owned(),
        Replica::Leads => "leads".to_owned(),
        Replica::Follows(leader) => format!("stands by; the leader is {leader}"),
    }
}

fn of_work(work: &Work) -> String {
    let mut parts = vec![match (work.stage, work.at_work) {
        (_, true) => "an attempt is under way".to_owned(),
        (Some(Stage::Waiting), _) => "waits for its next attempt".to_owned(),
        (Some(Stage::Settled), _) => "has what it may have".to_owned(),
        (Some(Stage::Closed), _) => "no further attempt".to_owned(),
        (None, _) => "nothing to do as it is".to_owned(),
    }];
    if let Some(seen) = work.seen_for {
        parts.push(format!("seen running for {}", span(seen.as_millis())));
    }
    if let Some(next) = work.next {
        parts.push(format!("its turn comes in {}", span(next.as_millis())));
    }
    for (count, what) in [
        (work.dial_failures, "dials in a row failed"),
        (work.attempt_failures, "attempts in a row came to nothing"),
        (work.crashes, "starts in a row ended without a delivery"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if let Some((why, until)) = &work.gate {
        parts.push(format!("asked of Vault again in {} ({})", span(until.as_millis()), why.reason()));
    }
    match &work.address {
        Some(AddressTaken::Shared(address)) => parts.push(format!("another live pod shows {address} too")),
        Some(AddressTaken::Busy) => parts.push("another pod is being served at its address".to_owned()),
        None => {}
    }
    parts.join(", ")
}

fn ago(now: Timestamp, then: Timestamp) -> String {
    span(now.since(then).as_millis())
}

fn span(millis: u128) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}
