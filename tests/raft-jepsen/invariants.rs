//! What must hold of Raft and of the ledger in every run, checked on the plain history.

use std::collections::{BTreeMap, BTreeSet};

use kubernetes_vault::domain::ids::{BootId, ClusterId, NodeId, Term};
use kubernetes_vault::domain::ledger::{Command, Reply};

use crate::history::{Event, History, Logged, What};
use crate::model::Model;

/// All of them. What is broken, in words.
pub(crate) fn check(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(one_leader_per_term(history));
    broken.extend(nobody_else_holds_the_lease(history));
    broken.extend(a_node_id_stands_for_one_storage(history));
    broken.extend(nobody_fails_or_answers_for_another(history));
    broken.extend(what_was_acknowledged_is_applied(history));
    if let Some(log) = &history.log {
        broken.extend(what_was_acknowledged_is_in_the_log(history, log));
    }
    broken
}

/// The cluster that each controller was in last.
#[derive(Default)]
struct Clusters(BTreeMap<u8, ClusterId>);

impl Clusters {
    fn see(&mut self, what: &What) {
        match what {
            What::Belongs { n, cluster, .. } | What::Leads { n, cluster: Some(cluster), .. } => {
                self.0.insert(*n, *cluster);
            }
            _ => {}
        }
    }
}

fn one_leader_per_term(history: &History) -> Vec<String> {
    let mut leaders: BTreeMap<(ClusterId, Term), BTreeSet<(u8, BootId)>> = BTreeMap::new();
    for Event { what, .. } in &history.events {
        if let What::Leads { n, by, cluster: Some(cluster) } = what {
            leaders.entry((*cluster, by.term)).or_default().insert((*n, by.boot));
        }
    }
    let several = leaders.into_iter().filter(|(_, leaders)| leaders.len() > 1);
    several.map(|((_, term), leaders)| format!("term {} has several leaders: {leaders:?}", term.0)).collect()
}

/// Whoever says that it holds the lease says so before anybody of a later term does.
fn nobody_else_holds_the_lease(history: &History) -> Vec<String> {
    let mut clusters = Clusters::default();
    let mut latest: BTreeMap<ClusterId, (Term, u8)> = BTreeMap::new();
    let mut broken = Vec::new();
    for Event { at, what } in &history.events {
        clusters.see(what);
        let What::Lease { n, cluster, term, held: true } = what else { continue };
        let Some(cluster) = cluster.or(clusters.0.get(n).copied()) else { continue };
        let known = latest.entry(cluster).or_insert((*term, *n));
        if *term < known.0 || (*term == known.0 && *n != known.1) {
            broken.push(format!(
                "at {at} ms {n} holds the lease of term {}, and {} that of {}",
                term.0, known.1, known.0.0
            ));
        }
        if *term > known.0 {
            *known = (*term, *n);
        }
    }
    broken
}

fn a_node_id_stands_for_one_storage(history: &History) -> Vec<String> {
    let mut storages: BTreeMap<NodeId, BTreeSet<u64>> = BTreeMap::new();
    for Event { what, .. } in &history.events {
        if let What::Started { node, storage, .. } | What::Belongs { node, storage, .. } = what {
            storages.entry(*node).or_default().insert(*storage);
        }
    }
    let reused = storages.into_iter().filter(|(_, storages)| storages.len() > 1);
    reused.map(|(node, storages)| format!("node id {node} was given to several storages: {storages:?}")).collect()
}

fn nobody_fails_or_answers_for_another(history: &History) -> Vec<String> {
    let broken = history.events.iter().filter_map(|event| match &event.what {
        What::Failed { n, why } => Some(format!("controller {n} ended by itself: {why}")),
        What::AnsweredForAnother { n, target } => Some(format!("controller {n} answered as Raft node {target}")),
        _ => None,
    });
    broken.collect()
}

fn what_was_acknowledged_is_applied(history: &History) -> Vec<String> {
    let unapplied = history.events.iter().filter_map(|event| match &event.what {
        What::Answered { n, op, reply: Some(Reply::Done), applied: false } => {
            Some(format!("controller {n} called proposal {op} done before it was applied there"))
        }
        _ => None,
    });
    unapplied.collect()
}

/// A proposal: what, and what came of it.
struct Proposal<'a> {
    command: &'a Command,
    begun: usize,
    ended: Option<usize>,
    reply: Option<&'a Reply>,
}

fn proposals(history: &History) -> BTreeMap<u64, Proposal<'_>> {
    let mut all = BTreeMap::new();
    for (place, Event { what, .. }) in history.events.iter().enumerate() {
        match what {
            What::Proposed { op, command, .. } => {
                all.insert(*op, Proposal { command, begun: place, ended: None, reply: None });
            }
            What::Answered { op, reply: Some(reply), .. } => {
                if let Some(proposal) = all.get_mut(op) {
                    (proposal.ended, proposal.reply) = (Some(place), Some(reply));
                }
            }
            _ => {}
        }
    }
    all
}

/// Each acknowledged proposal is in the log, where the specification answers what it was answered; and the order of the
/// log is one that the callers have seen.
fn what_was_acknowledged_is_in_the_log(history: &History, log: &[Logged]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut model = Model::default();
    let replies: Vec<Reply> = log.iter().map(|logged| model.apply(logged)).collect();
    let all = proposals(history);
    for logged in log {
        if !all.values().any(|proposal| *proposal.command == logged.command) {
            broken.push(format!("entry {} was never proposed: {}", logged.index, logged.command));
        }
    }
    let mut ordered: Vec<(&Proposal<'_>, usize)> = Vec::new();
    for (op, proposal) in &all {
        let (Some(_), Some(reply)) = (proposal.ended, proposal.reply) else { continue };
        if proposal.begun < history.forgiven_before {
            continue;
        }
        let places = log.iter().enumerate().filter(|(_, logged)| logged.command == *proposal.command);
        let mut matching = places.filter(|(place, _)| replies[*place] == *reply).map(|(place, _)| place);
        match matching.next() {
            // One that is there twice says nothing about the order.
            Some(place) if matching.next().is_none() => ordered.push((proposal, place)),
            Some(_) => {}
            None => broken.push(format!("proposal {op} was answered {reply:?} and is lost: {}", proposal.command)),
        }
    }
    ordered.sort_by_key(|(_, place)| *place);
    let mut begun = 0;
    for (proposal, place) in ordered {
        if proposal.ended.is_some_and(|ended| ended < begun) {
            broken.push(format!("entry {} came after one that was proposed after its answer", log[place].index));
        }
        begun = begun.max(proposal.begun);
    }
    broken
}
