//! What must hold of deliveries, checked on the plain history.
//!
//! The receiver's own word (`Pushed`, `Accepted`, `InstanceEnded`) is compared with what the ledger has and with what
//! Vault has; nothing is believed because the controller says so.

use std::collections::{BTreeMap, BTreeSet};

use kubernetes_vault::domain::ids::{AttemptId, PodUid};
use kubernetes_vault::domain::ledger::{Author, Command, Reply, Verdict};

use crate::history::{Event, History, What};
use crate::model::Model;
use crate::receivers::Kind;

/// What the whole history says of each attempt.
#[derive(Default)]
struct Attempt {
    claimed: Option<Author>,
    issued: Option<Author>,
    issue_proposed: bool,
    accessor: Option<String>,
    asked: u32,
    sent: bool,
    /// The pod that it was meant for.
    pod: Option<PodUid>,
    /// Whom the push came to: another one's container, where its address was reused.
    came_to: Option<u64>,
    accepted_by: Option<u64>,
    verdict: Option<(Verdict, u8, usize)>,
    neutralise_tried: bool,
    neutralised: Option<usize>,
}

struct Instance {
    kind: Kind,
    pod: PodUid,
    accepted: Vec<AttemptId>,
    /// Its exit code.
    code: Option<i32>,
    /// A push for another pod came here.
    mistaken: bool,
}

/// All rules. What is broken, in words.
pub(crate) fn check(history: &History) -> Vec<String> {
    let mut reading = Reading::default();
    for (place, event) in history.events.iter().enumerate() {
        reading.read(place, event);
    }
    // What was committed without its proposer's knowledge: nobody acts on it, but it counts. What came too late was
    // refused by all, and does not.
    let mut model = Model::default();
    for logged in history.log.iter().flatten() {
        if model.apply(logged) == Reply::Done {
            reading.committed(usize::MAX, 0, &logged.command);
        }
    }
    let mut broken = std::mem::take(&mut reading.broken);
    broken.extend(reading.one_acceptance());
    broken.extend(reading.verdicts_are_true());
    broken.extend(reading.what_is_left(history));
    broken
}

#[derive(Default)]
struct Reading {
    attempts: BTreeMap<AttemptId, Attempt>,
    instances: BTreeMap<u64, Instance>,
    /// Proposals by number, until they are answered.
    proposed: BTreeMap<u64, Command>,
    by_accessor: BTreeMap<String, AttemptId>,
    ended: BTreeMap<u8, Vec<usize>>,
    broken: Vec<String>,
}

impl Reading {
    fn of(&mut self, attempt: &AttemptId) -> &mut Attempt {
        self.attempts.entry(attempt.clone()).or_default()
    }

    fn read(&mut self, place: usize, Event { at, what }: &Event) {
        match what {
            What::Proposed { op, command, .. } => {
                if let Command::Issued(issued) = command {
                    self.of(&issued.attempt).issue_proposed = true;
                }
                self.proposed.insert(*op, command.clone());
            }
            What::Answered { n, op, reply: Some(Reply::Done), .. } => {
                if let Some(command) = self.proposed.remove(op) {
                    self.committed(place, *n, &command);
                }
            }
            What::VaultAsked { by, attempt, n } => {
                let known = self.of(attempt);
                known.asked += 1;
                if known.claimed != Some(*by) {
                    self.broken.push(format!("at {at} ms controller {n} asked Vault for {attempt} without a claim"));
                }
            }
            What::VaultIssued { attempt, accessor } => {
                self.of(attempt).accessor = Some(accessor.clone());
                self.by_accessor.insert(accessor.clone(), attempt.clone());
            }
            What::PushBegun { n, by, attempt, pod, .. } => {
                let known = self.of(attempt);
                known.pod = Some(pod.clone());
                known.sent = true;
                if known.issued != Some(*by) {
                    self.broken.push(format!("at {at} ms controller {n} pushed {attempt} without an Issued"));
                }
            }
            What::Neutralise { accessor, done, .. } => {
                if let Some(attempt) = self.by_accessor.get(accessor).cloned() {
                    let known = self.of(&attempt);
                    known.neutralise_tried = true;
                    known.neutralised = known.neutralised.or(done.then_some(place));
                }
            }
            What::Instance { instance, kind, pod, .. } => {
                let fresh =
                    Instance { kind: *kind, pod: pod.clone(), accepted: Vec::new(), code: None, mistaken: false };
                self.instances.insert(*instance, fresh);
            }
            What::Pushed { instance, meant_for, attempt } => {
                self.attempts.entry(attempt.clone()).or_default().came_to = Some(*instance);
                let Some(known) = self.instances.get_mut(instance) else { return };
                known.mistaken |= known.pod != *meant_for;
            }
            What::InstanceEnded { instance, code } => {
                if let Some(known) = self.instances.get_mut(instance) {
                    known.code = Some(*code);
                }
            }
            What::Accepted { instance, attempt } => self.accepted(*at, *instance, attempt),
            What::Ended { n, .. } => self.ended.entry(*n).or_default().push(place),
            _ => {}
        }
    }

    fn committed(&mut self, place: usize, n: u8, command: &Command) {
        match command {
            Command::Claim(claim) => self.of(&claim.attempt).claimed = Some(claim.by),
            Command::Issued(issued) => self.of(&issued.attempt).issued = Some(issued.by),
            Command::Outcome(outcome) => {
                for (attempt, verdict) in &outcome.verdicts {
                    let known = self.of(attempt);
                    // The first fact stands; what is unknown may be settled later.
                    if known.verdict.is_none_or(|(before, ..)| before == Verdict::Unknown) {
                        known.verdict = Some((*verdict, n, place));
                    }
                }
            }
        }
    }

    fn accepted(&mut self, at: u64, instance: u64, attempt: &AttemptId) {
        let known = self.of(attempt);
        known.accepted_by = Some(instance);
        if known.neutralised.is_some() {
            self.broken.push(format!("at {at} ms instance {instance} took {attempt}, which had been neutralised"));
        }
        if let Some(known) = self.instances.get_mut(&instance) {
            known.accepted.push(attempt.clone());
        }
    }

    fn one_acceptance(&self) -> Vec<String> {
        let strict = self.instances.iter().filter(|(_, instance)| instance.kind != Kind::Promiscuous);
        let several = strict.filter(|(_, instance)| instance.accepted.len() > 1);
        several.map(|(id, instance)| format!("instance {id} took {:?}", instance.accepted)).collect()
    }

    /// What the ledger says of an attempt is what its receiver knows.
    fn verdicts_are_true(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (id, attempt) in &self.attempts {
            let Some((verdict, ..)) = attempt.verdict else { continue };
            let taken = attempt.accepted_by.and_then(|instance| self.instances.get(&instance));
            // What an instance took that ended badly is of no use to anybody: its successor gets its own.
            let of_use = taken.filter(|instance| !instance.mistaken && instance.code.is_none_or(|code| code == 0));
            let wrong = match verdict {
                // The Go version says 200 before its work, and to a push that it drops; and who names no attempt leaves
                // the ledger to conclude which it was. Ours does neither. It is whoever the push came to that counts: a Go
                // container at a reused address says 200 to what was meant for one of ours (seed 4205), which is served
                // anew when it still answers later.
                Verdict::Accepted => taken.is_none() && self.came_to_ours(attempt),
                Verdict::Refused | Verdict::NeverSent => of_use.is_some(),
                Verdict::Unknown | Verdict::Lost => false,
            };
            if wrong {
                broken.push(format!("the ledger calls {id} {verdict:?}; taken: {}", taken.is_some()));
            }
            if verdict == Verdict::NeverSent && attempt.sent {
                broken.push(format!("the ledger calls {id} never sent, and it was sent"));
            }
            if attempt.neutralised.is_some() && of_use.is_some() {
                broken.push(format!("{id} was neutralised, and its instance had taken it"));
            }
        }
        broken
    }

    fn came_to_ours(&self, attempt: &Attempt) -> bool {
        let meant = |instance: &&Instance| Some(&instance.pod) == attempt.pod.as_ref();
        let reached = attempt.came_to.and_then(|instance| self.instances.get(&instance));
        reached.or_else(|| self.instances.values().find(meant)).is_some_and(|instance| instance.kind == Kind::Ours)
    }

    /// What Vault has in the end.
    fn what_is_left(&self, history: &History) -> Vec<String> {
        let mut broken = Vec::new();
        let left: BTreeSet<&AttemptId> = history.secrets.iter().map(|secret| &secret.attempt).collect();
        let obtainable = history.secrets.iter().filter(|secret| secret.obtainable).map(|secret| &secret.attempt);
        let obtainable: BTreeSet<&AttemptId> = obtainable.collect();
        for (id, attempt) in &self.attempts {
            let Some((verdict, n, place)) = attempt.verdict else { continue };
            if !matches!(verdict, Verdict::Refused | Verdict::NeverSent) || !left.contains(id) {
                continue;
            }
            // Whoever recorded the verdict ended before it could act on it: the wrapping token runs out.
            let ended = self.ended.get(&n).is_some_and(|ends| ends.iter().any(|end| *end > place));
            let died = ended || n == 0;
            // What was never recorded as issued is known to nobody.
            let known = attempt.issued.is_some();
            if history.destroy_allowed && known && !attempt.neutralise_tried && !died {
                broken.push(format!("{id} is known as {verdict:?}, and nobody tried to destroy its secret_id"));
            }
            if attempt.neutralised.is_some() && obtainable.contains(id) {
                broken.push(format!("{id} is said to be neutralised, and can still be obtained"));
            }
        }
        // Of what nobody ever settled, only what was never recorded may be there still.
        for id in obtainable {
            let attempt = &self.attempts[id];
            if attempt.issued.is_some() && attempt.verdict.is_none() && history.forgiven_before == 0 {
                broken.push(format!("{id} was issued, is not settled, and can still be obtained"));
            }
        }
        broken
    }
}
