//! Replicas: how they start, stop, lose their storage and move.

use kubernetes_vault::domain::ids::PodUid;
use kubernetes_vault::domain::peers::{Listed, PodState};
use kubernetes_vault::raft::status::{Role, SeenMember};
use kubernetes_vault::store::mem::MemEngine;

use super::nemesis::{Act, Death};
use super::node::{Process, Start, address};
use super::{Replica, Sim};
use crate::history::{Millis, What};

impl Sim {
    fn new_storage(&mut self) -> (u64, MemEngine) {
        self.storages += 1;
        (self.storages, MemEngine::new())
    }

    fn new_uid(&mut self, n: u8) -> PodUid {
        self.uids += 1;
        PodUid::from(format!("controller-{n}-{}", self.uids).as_str())
    }

    /// A new replica.
    pub(crate) fn add(&mut self, n: u8) {
        let (storage, engine) = self.new_storage();
        let uid = self.new_uid(n);
        let replica = Replica { uid, ip: address(n, 0), moves: 0, storage, engine, process: None };
        self.replicas.insert(n, replica);
        self.list(n);
        self.start(n);
    }

    /// The service lists it.
    fn list(&mut self, n: u8) {
        let Replica { uid, ip, .. } = &self.replicas[&n];
        let listed = Listed { uid: uid.clone(), name: format!("controller-{n}").into(), address: *ip };
        let mut world = self.world.lock();
        world.api.listed.insert(n, listed);
        world.api.relisted();
    }

    /// Starts its process, on the storage that it has.
    pub(crate) fn start(&mut self, n: u8) {
        let skew_by = i64::try_from(self.rng.between(0, 4_000)).unwrap_or(0) - 2_000;
        let skew = if self.rng.chance(50) { skew_by } else { 0 };
        let Some(replica) = self.replicas.get_mut(&n).filter(|replica| replica.process.is_none()) else { return };
        let engine = replica.engine.reopen();
        replica.engine = engine.clone();
        let (ip, uid, storage) = (replica.ip, replica.uid.clone(), replica.storage);
        {
            let mut world = self.world.lock();
            world.net.power(ip, true);
            world.api.states.insert(uid.clone(), PodState::Running);
            world.api.relisted();
            if skew != 0 {
                world.cover("clock skew");
            }
        }
        replica.process = Some(Process::start(&self.world, Start { n, ip, uid, skew, engine, storage }));
    }

    /// Ends its process: what was not synced is gone.
    pub(crate) fn crash(&mut self, n: u8, death: Death) {
        let Some(replica) = self.replicas.get_mut(&n) else { return };
        let Some(process) = replica.process.take() else { return };
        let (ip, uid) = (replica.ip, replica.uid.clone());
        if death.power {
            self.world.lock().net.power(ip, false);
        }
        let unsynced = process.engine.unsynced();
        match death.torn {
            Some(roll) => drop(process.engine.crash_torn(roll)),
            None => process.engine.crash(),
        }
        let boot = process.boot;
        drop(process);
        let mut world = self.world.lock();
        world.note(What::Ended { n, boot });
        if unsynced > 0 {
            world.cover("unsynced data lost");
        }
        world.api.forget_watches(ip);
        // The kubelet sees it a little later.
        world.after(150, move |world| {
            if let Some(state) = world.api.states.get_mut(&uid).filter(|_| !world.net.listens(ip)) {
                *state = PodState::NotRunning;
                world.api.relisted();
            }
        });
    }

    /// Its container starts anew, with empty storage, at the same address.
    pub(crate) fn wipe(&mut self, n: u8) {
        let (storage, engine) = self.new_storage();
        let Some(replica) = self.replicas.get_mut(&n) else { return };
        (replica.storage, replica.engine) = (storage, engine);
    }

    /// Its pod goes, with its storage, and another one takes its place at another address.
    pub(crate) fn replace(&mut self, n: u8) {
        self.wipe(n);
        let uid = self.new_uid(n);
        let Some(replica) = self.replicas.get_mut(&n) else { return };
        self.world.lock().api.states.insert(replica.uid.clone(), PodState::Gone);
        replica.moves += 1;
        (replica.uid, replica.ip) = (uid, address(n, replica.moves));
        self.list(n);
    }

    /// A controller stepped into a trap.
    pub(crate) fn sprung(&mut self, n: u8, act: Act) {
        match act {
            Act::Pause(millis) => self.pause(n, millis),
            Act::Crash(death) => {
                self.crash(n, death);
                let back = self.rng.between(20, 2_000);
                self.after(back, move |sim| sim.start(n));
            }
        }
    }

    pub(crate) fn pause(&mut self, n: u8, millis: Millis) {
        let until = self.now() + millis;
        if let Some(process) = self.replicas.get_mut(&n).and_then(|replica| replica.process.as_mut()) {
            process.paused_until = Some(until);
        }
    }

    /// Who leads, by its own word: the one of the greatest term.
    pub(crate) fn leader(&self) -> Option<u8> {
        let leads = |(n, replica): (&u8, &Replica)| {
            let process = replica.process.as_ref().filter(|process| process.paused_until.is_none())?;
            let seen = process.handle.seen()?;
            (seen.role == Role::Leader).then_some((seen.term, *n))
        };
        self.replicas.iter().filter_map(leads).max().map(|(_, n)| n)
    }

    /// All replicas run and are voters (or the spare one of an even number), with the storages that they have, and the
    /// leader has heard of all of them.
    pub(crate) fn is_whole(&self) -> bool {
        let Some(seen) = self.leader().and_then(|n| self.replicas[&n].process.as_ref()?.handle.seen()) else {
            return false;
        };
        // Whatever is committed is on every one of them: the next storage that is lost takes nothing along.
        let spare = seen.last.unwrap_or(0).saturating_sub(seen.committed.unwrap_or(0));
        let runs = |replica: &Replica| {
            let process = replica.process.as_ref().filter(|process| process.paused_until.is_none());
            let own = process.and_then(|process| process.handle.seen()).filter(|own| own.cluster == seen.cluster);
            let Some(own) = own else { return false };
            let follows = |member: &SeenMember| member.node == own.node && member.lag.is_some_and(|lag| lag <= spare);
            own.node == seen.node || seen.members.iter().any(follows)
        };
        let voters = seen.members.iter().filter(|member| member.voter).count();
        let wanted = self.replicas.len() - usize::from(self.replicas.len().is_multiple_of(2));
        voters == wanted && seen.members.len() == self.replicas.len() && self.replicas.values().all(runs)
    }
}
