//! Looks at the controllers while they run, says when all is quiet, and judges in the end.

use std::collections::{BTreeMap, BTreeSet};

use kubernetes_vault::deliver::ports::LedgerPort;
use kubernetes_vault::domain::ids::{BootId, ClusterId, NodeId, Term};
use kubernetes_vault::domain::ledger::Command;
use kubernetes_vault::raft::status::Role;
use kubernetes_vault::store::mem::MemEngine;
use kubernetes_vault::store::{Engine, Family, codec, keys};

use super::Sim;
use crate::history::{Logged, Millis, What};
use crate::model::Model;
use crate::{invariants, oracle};

/// For so long nothing may be open before a run ends: what is refused is destroyed by then.
const QUIET_FOR: Millis = 1_000;

/// What was seen last of each controller.
#[derive(Default)]
pub(crate) struct Seen {
    belongs: BTreeMap<u8, (NodeId, ClusterId)>,
    leases: BTreeMap<u8, (BootId, Term)>,
    applied: BTreeMap<u8, (BootId, NodeId, u64)>,
    quiet_since: Option<Millis>,
}

/// An entry of Raft's log, as far as the rig reads it: term, index, and what kind of entry it is.
#[derive(serde::Deserialize)]
enum Payload {
    Blank,
    Normal(Command),
    Membership,
}

/// One replica's log: the bytes of each entry, by index.
type Log = BTreeMap<u64, Vec<u8>>;

impl Sim {
    /// Looks at every controller that runs.
    pub(crate) fn look(&mut self) {
        let mut problems = Vec::new();
        for (n, replica) in &self.replicas {
            let Some(process) = replica.process.as_ref().filter(|process| process.paused_until.is_none()) else {
                continue;
            };
            let Some(seen) = process.handle.seen() else { continue };
            let mut world = self.world.lock();
            if self.seen.belongs.insert(*n, (seen.node, seen.cluster)) != Some((seen.node, seen.cluster)) {
                let storage = replica.storage;
                world.note(What::Belongs { n: *n, node: seen.node, cluster: seen.cluster, storage });
            }
            drop(world);
            if seen.role == Role::Leader {
                let _inside = process.runtime.enter();
                let held = process.handle.ledger.holds_lease(seen.term);
                if held && self.seen.leases.insert(*n, (process.boot, seen.term)) != Some((process.boot, seen.term)) {
                    let (cluster, term) = (Some(seen.cluster), seen.term);
                    self.world.lock().note(What::Lease { n: *n, cluster, term, held });
                }
            }
            let applied = seen.applied.unwrap_or(0);
            let before = self.seen.applied.insert(*n, (process.boot, seen.node, applied));
            if let Some((boot, node, before)) = before
                && boot == process.boot
                && node == seen.node
                && applied < before
            {
                problems.push(format!("controller {n} had applied {before} entries, and now {applied}"));
            }
        }
        let world = self.world.lock();
        let latest = world.history.events.iter().rev().take(200);
        let failed = latest.filter(|event| matches!(event.what, What::Failed { .. }));
        problems.extend(failed.map(|event| format!("{:?}", event.what)));
        drop(world);
        self.problems.extend(problems);
    }

    /// Every init container has ended well, every replica is a member, nothing is open in the ledger and nothing is
    /// being destroyed; for a while.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let now = self.now();
        let served = self.unserved() == 0 && self.world.lock().neutralising == 0;
        if !(served && self.rolling.is_none() && self.is_whole() && self.open() == Some(0)) {
            self.seen.quiet_since = None;
            return false;
        }
        now >= *self.seen.quiet_since.get_or_insert(now) + QUIET_FOR
    }

    fn unserved(&self) -> usize {
        self.world.lock().pods.unserved()
    }

    fn open(&self) -> Option<usize> {
        let process = self.leader().and_then(|n| self.replicas[&n].process.as_ref())?;
        Some(process.handle.ledger.open().len())
    }

    /// Everything that is wrong.
    pub(crate) fn judge(&mut self, quiet: bool) {
        let logs: BTreeMap<u8, Log> = self.replicas.iter().map(|(n, replica)| (*n, log(&replica.engine))).collect();
        let committed = self.leader().and_then(|n| {
            let seen = self.replicas[&n].process.as_ref()?.handle.seen()?;
            Some((n, seen.committed.unwrap_or(0)))
        });
        if let Some((leader, committed)) = committed.filter(|_| quiet) {
            self.compare(&logs, leader, committed);
        }
        let mut world = self.world.lock();
        let now = world.now;
        world.history.secrets = world.vault.left(now);
        world.history.destroy_allowed = true;
        self.problems.extend(invariants::check(&world.history));
        self.problems.extend(oracle::check(&world.history));
        drop(world);
        if !quiet {
            let leader = self.leader();
            let open = leader.and_then(|n| self.replicas[&n].process.as_ref()).map(|p| p.handle.ledger.open());
            let waiting = self.world.lock().pods.describe_unserved();
            let voters = leader.and_then(|n| self.replicas[&n].process.as_ref()?.handle.seen());
            self.problems.push(format!(
                "not quiet in time: whole: {}, leader: {leader:?}, waiting: {waiting:?}, open: {open:?}, seen: {voters:?}",
                self.is_whole()
            ));
        }
    }

    fn cluster_of(&self, n: u8) -> Option<ClusterId> {
        Some(self.replicas[&n].process.as_ref()?.handle.seen()?.cluster)
    }

    /// After the loss of all stores, or in the first cluster's first moments, whoever had begun a cluster crashed before
    /// others had joined, and two have been begun. They report it and join neither: an operator decides. (Design,
    /// section 6, rules 4 and 5 of the bootstrap.)
    pub(crate) fn has_two_clusters(&mut self) -> bool {
        let clusters: BTreeSet<ClusterId> = self.replicas.keys().filter_map(|n| self.cluster_of(*n)).collect();
        if clusters.len() < 2 {
            return false;
        }
        let mut world = self.world.lock();
        let excused = world.history.forgiven_before > 0 || world.history.only_member_was_down();
        if excused {
            world.fault("two clusters", "that an operator has to decide about");
            // There is no one log that all of it could be in.
            world.history.forgiven_before = world.history.events.len();
        }
        excused
    }

    /// All replicas have the same log, up to what is committed, and the ledger that follows from it.
    fn compare(&mut self, logs: &BTreeMap<u8, Log>, leader: u8, committed: u64) {
        let ours = &logs[&leader];
        let cluster = self.cluster_of(leader);
        let together: Vec<u8> = logs.keys().copied().filter(|n| self.cluster_of(*n) == cluster).collect();
        for (n, log) in logs.iter().filter(|(n, _)| together.contains(n)) {
            let differs = ours
                .iter()
                .filter(|(index, bytes)| **index <= committed && log.get(index).is_some_and(|theirs| theirs != *bytes));
            let differing: BTreeSet<u64> = differs.map(|(index, _)| *index).collect();
            if let Some(first) = differing.first() {
                self.problems.push(format!("entry {first} differs between controllers {leader} and {n}"));
            }
        }
        // A cluster that was formed anew begins its log with a snapshot: what is in that cannot be read here.
        if ours.keys().next().is_none_or(|first| *first > 1) {
            return;
        }
        let log: Vec<Logged> = ours.range(..=committed).filter_map(|(_, bytes)| decode(bytes)).collect();
        let mut model = Model::default();
        for logged in &log {
            model.apply(logged);
        }
        for (n, replica) in &self.replicas {
            let Some(process) = replica.process.as_ref().filter(|_| together.contains(n)) else { continue };
            let wrong = model.keys().find(|key| !model.agrees(key, process.handle.ledger.read(key).as_ref()));
            if let Some(key) = wrong {
                let entry = process.handle.ledger.read(key);
                self.problems.push(format!("controller {n} has another ledger than its log makes: {key:?}: {entry:?}"));
            }
        }
        self.world.lock().history.log = Some(log);
    }
}

fn log(engine: &MemEngine) -> Log {
    let records = engine.scan(Family::Log, keys::all(), usize::MAX).unwrap_or_default();
    records.into_iter().filter_map(|(key, value)| Some((keys::log_index(&key)?, value))).collect()
}

/// The command in an entry, if there is one.
fn decode(bytes: &[u8]) -> Option<Logged> {
    let body = &bytes[1..bytes.len() - 4];
    debug_assert_eq!(bytes[0], codec::FORMAT);
    let ((term, index, payload), _) = postcard::take_from_bytes::<(u64, u64, Payload)>(body).ok()?;
    match payload {
        Payload::Normal(command) => Some(Logged { term: Term(term), index, command }),
        Payload::Blank | Payload::Membership => None,
    }
}
