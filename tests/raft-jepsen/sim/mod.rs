//! The rig `sim`: controllers, API server, Vault and init containers in one thread, on simulated time and network.
//!
//! A run has three parts: it comes up, faults happen while pods start, and then everything heals and has to become
//! quiet. All of it follows from the seed.

mod api;
mod cluster;
mod faults;
pub(crate) mod nemesis;
mod net;
mod node;
mod pods;
mod ports;
pub(crate) mod rng;
mod strangers;
mod vault;
mod verdict;
mod wire;
mod world;

use std::collections::BTreeMap;

use crate::history::{Millis, What};
use crate::receivers::Kind;
use node::Process;
use ports::Site0;
use rng::Rng;
use vault::Destroying;
use world::Shared;

/// The wall clock when a run begins.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;

/// When the faults begin and end.
const CHAOS: (Millis, Millis) = (1_500, 8_000);

/// After the last fault everything is quiet within this: an attempt's longest back-off is 30 s, a push may hang before
/// and after it, and an instance that says it is done but is seen running is served again after 30 s.
const QUIET_WITHIN: Millis = 100_000;

/// Between two looks at the whole.
const LOOK_EVERY: Millis = 100;

/// What came of a seed.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) hash: u64,
    pub(crate) coverage: BTreeMap<String, u64>,
    pub(crate) simulated: Millis,
    pub(crate) problems: Vec<String>,
    pub(crate) tail: String,
}

/// A replica: its storage, and its process while it runs.
pub(crate) struct Replica {
    pub(crate) uid: kubernetes_vault::domain::ids::PodUid,
    pub(crate) ip: std::net::IpAddr,
    pub(crate) moves: u8,
    pub(crate) storage: u64,
    pub(crate) engine: kubernetes_vault::store::mem::MemEngine,
    pub(crate) process: Option<Process>,
}

type Action = Box<dyn FnOnce(&mut Sim)>;

/// See the module.
pub(crate) struct Sim {
    pub(crate) world: Shared,
    pub(crate) rng: Rng,
    pub(crate) replicas: BTreeMap<u8, Replica>,
    pub(crate) storages: u64,
    pub(crate) uids: u64,
    actions: BTreeMap<(Millis, u64), Action>,
    sequence: u64,
    pub(crate) problems: Vec<String>,
    /// The last fault has passed.
    pub(crate) healed: bool,
    /// Replicas that are being rolled, in turn.
    pub(crate) rolling: Option<faults::Rolling>,
    seen: verdict::Seen,
}

/// Runs `seed`.
pub(crate) fn run(seed: u64) -> Report {
    let world = Shared::new(seed);
    let rng = world.lock().rng.fork();
    let mut sim = Sim {
        world,
        rng,
        replicas: BTreeMap::new(),
        storages: 0,
        uids: 0,
        actions: BTreeMap::new(),
        sequence: 0,
        problems: Vec::new(),
        healed: false,
        rolling: None,
        seen: verdict::Seen::default(),
    };
    sim.prepare(seed);
    let quiet = sim.play();
    sim.finish(seed, quiet)
}

impl Sim {
    pub(crate) fn now(&self) -> Millis {
        self.world.lock().now
    }

    /// Does `what` after `delay`.
    pub(crate) fn after(&mut self, delay: Millis, what: impl FnOnce(&mut Self) + 'static) {
        self.sequence += 1;
        self.actions.insert((self.now() + delay, self.sequence), Box::new(what));
    }

    fn prepare(&mut self, seed: u64) {
        {
            let mut world = self.world.lock();
            world.net.delay = self.rng.between(0, 10);
            world.net.loss = if self.rng.chance(30) { self.rng.between(1, 4) } else { 0 };
            world.pods.report_lag = self.rng.between(10, 400);
            world.api.lag = self.rng.between(0, 300);
            world.api.stale = self.rng.between(0, 1_500);
        }
        for n in 1..=3 {
            self.add(n);
        }
        for _ in 0..self.rng.between(8, 14) {
            let at = self.rng.between(600, CHAOS.1);
            let kind = self.rng.pick(&[Kind::Ours, Kind::Ours, Kind::Ours, Kind::Go, Kind::Promiscuous]);
            let reuse = self.rng.chance(40);
            self.after(at, move |sim| sim.world.lock().start_pod(kind, reuse));
        }
        let all = nemesis::all();
        let first = all[usize::try_from(seed).unwrap_or_default() % all.len()];
        let mut plan = vec![first];
        while plan.len() < 8 {
            let fault = self.rng.pick(&all);
            if !nemesis::is_upheaval(fault) || !plan.iter().any(|known| nemesis::is_upheaval(*known)) {
                plan.push(fault);
            }
        }
        for fault in plan {
            let at = match nemesis::is_upheaval(fault) {
                true => self.rng.between(2_000, 4_000),
                false => self.rng.between(CHAOS.0, CHAOS.1),
            };
            self.after(at, move |sim| sim.strike(fault));
        }
        self.after(CHAOS.1 + 500, Self::heal);
    }

    /// Everything is as it should be again, from now on.
    fn heal(&mut self) {
        self.healed = true;
        {
            let mut world = self.world.lock();
            world.note(What::Fault("everything heals".to_owned()));
            world.armed.disarm();
            world.net.mend_all();
            world.net.loss = 0;
            world.vault.sealed = false;
            world.vault.loses_answers = 0;
            world.vault.no_logins = false;
            world.vault.destroying = Destroying::Works;
            world.vault.slow = 10;
        }
        for n in self.replicas.keys().copied().collect::<Vec<_>>() {
            if self.replicas[&n].process.is_none() {
                self.start(n);
            }
        }
    }

    /// Plays to the end. Whether it became quiet.
    fn play(&mut self) -> bool {
        loop {
            self.world.lock().advance();
            let now = self.now();
            while let Some(entry) = self.actions.first_entry().filter(|entry| entry.key().0 <= now) {
                let action = entry.remove();
                action(self);
            }
            self.step_all(now);
            if now.is_multiple_of(LOOK_EVERY) {
                self.look();
                self.roll_on();
                if !self.problems.is_empty() {
                    return true;
                }
                if self.healed && self.is_quiet() {
                    return true;
                }
                if now > CHAOS.1 + QUIET_WITHIN {
                    return false;
                }
            }
        }
    }

    fn step_all(&mut self, now: Millis) {
        for n in self.replicas.keys().copied().collect::<Vec<_>>() {
            let Some(process) = self.replicas.get_mut(&n).and_then(|replica| replica.process.as_mut()) else {
                continue;
            };
            match process.paused_until {
                Some(until) if until > now => continue,
                Some(_) => process.go_on(),
                None => {}
            }
            process.step(now);
            let sprung = std::mem::take(&mut self.world.lock().armed.sprung);
            for (n, act) in sprung {
                self.sprung(n, act);
            }
        }
    }

    fn finish(mut self, seed: u64, quiet: bool) -> Report {
        self.judge(quiet);
        // Their processes end before the world does.
        self.replicas.clear();
        let mut world = self.world.lock();
        let (lost, reordered) = (world.net.lost, world.net.reordered);
        if lost > 0 {
            world.cover("loss");
        }
        if reordered > 0 {
            world.cover("reordering");
        }
        Report {
            seed,
            hash: world.history.hash(),
            coverage: world.coverage.clone(),
            simulated: world.now,
            problems: self.problems,
            tail: world.history.tail(std::env::var("KV_TAIL").ok().and_then(|n| n.parse().ok()).unwrap_or(60)),
        }
    }
}

/// The seeds whose first fault is `fault`.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn seeds_that_begin_with(fault: nemesis::Fault) -> impl Iterator<Item = u64> {
    let all = nemesis::all();
    let at = all.iter().position(|known| *known == fault).unwrap_or(0);
    (at as u64..).step_by(all.len())
}

/// A plan's fault, for messages.
pub(crate) fn classes() -> Vec<String> {
    let faults = nemesis::all().into_iter().map(nemesis::class);
    faults.chain(nemesis::REQUIRED.map(str::to_owned)).collect()
}
