//! What each fault does.

use std::net::IpAddr;

use kubernetes_vault::domain::ledger::Command;

use super::nemesis::{Act, Death, Fault, class};
use super::ports::propose;
use super::vault::Destroying;
use super::world::Site;
use super::{Sim, strangers};
use crate::history::{Millis, What};

/// A rolling restart that is under way.
pub(crate) struct Rolling {
    /// Who is still to be replaced.
    left: Vec<u8>,
    /// Who leaves now, and until when it may.
    leaving: Option<(u8, Millis)>,
}

/// A controller that was asked to end goes on for this long at most.
const GRACE: Millis = 4_000;

impl Sim {
    /// Does it; whether it was possible counts as coverage.
    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.try_strike(fault) {
            self.world.lock().fault(&class(fault), "");
        }
    }

    fn try_strike(&mut self, fault: Fault) -> bool {
        let dies = Death { power: self.rng.chance(50), torn: None };
        match fault {
            // They count when they go off.
            Fault::CrashAt(point) => {
                self.trap(point, Act::Crash(dies));
                false
            }
            Fault::PauseAt(point) => {
                let millis = self.rng.between(200, 3_000);
                self.trap(point, Act::Pause(millis));
                false
            }
            Fault::KillLeader => self.leader().is_some_and(|n| self.kill(n, dies, 2_000)),
            Fault::KillFollower => self.follower().is_some_and(|n| self.kill(n, dies, 2_000)),
            // Back before anybody else is elected: it must not lead in its old term.
            Fault::QuickRestart => {
                let dies = Death { power: true, torn: None };
                self.leader().is_some_and(|n| self.kill(n, dies, 40))
            }
            Fault::TornTail => {
                let dies = Death { power: true, torn: Some(self.rng.roll()) };
                let n = self.anybody();
                self.kill(n, dies, 1_000)
            }
            Fault::PowerCutAll => {
                let torn = self.rng.chance(50).then(|| self.rng.roll());
                for n in self.everybody() {
                    self.kill(n, Death { power: true, torn }, 800);
                }
                true
            }
            Fault::LoseStorage => {
                let n = self.anybody();
                self.is_whole() && self.lose(n)
            }
            Fault::LoseTwo => {
                let survivor = self.anybody();
                let possible = self.is_whole() && self.replicas.len() == 3;
                if possible {
                    self.forgive();
                    let lost = self.everybody().into_iter().filter(|n| *n != survivor);
                    for n in lost {
                        self.lose(n);
                    }
                }
                possible
            }
            Fault::LoseAll => {
                self.forgive();
                for n in self.everybody() {
                    self.lose(n);
                }
                true
            }
            Fault::Pause => {
                let (n, millis) = (self.leader().unwrap_or(1), self.rng.between(200, 3_000));
                self.pause(n, millis);
                true
            }
            Fault::HandOver => self.hand_over(),
            Fault::LateCommand => self.propose_late(),
            Fault::Strangers => strangers::knock(self),
            Fault::Rolling => {
                let left = self.everybody();
                self.rolling = Some(Rolling { left, leaving: None });
                true
            }
            Fault::Grow => {
                [4, 5].into_iter().for_each(|n| self.add(n));
                true
            }
            other => self.disturb(other),
        }
    }

    /// Faults of the network and of others, for a while.
    fn disturb(&mut self, fault: Fault) -> bool {
        let lasts = self.rng.between(500, 4_000);
        let leader = self.leader();
        let some = self.anybody();
        let mut world = self.world.lock();
        match fault {
            Fault::Lossy => (world.net.loss, world.net.delay) = (15, 60),
            Fault::Seal => world.vault.sealed = true,
            Fault::LoseAnswers => world.vault.loses_answers = 60,
            Fault::NoLogins => world.vault.no_logins = true,
            Fault::DestroyForbidden => world.vault.destroying = Destroying::Forbidden,
            Fault::DestroyBroken => world.vault.destroying = Destroying::Broken,
            Fault::SlowVault => world.vault.slow = 1_500,
            Fault::Relist => {
                world.api.forget_places();
                return true;
            }
            Fault::KillReceiver => {
                let waiting = world.pods.waiting();
                if waiting.is_empty() {
                    return false;
                }
                let victim = self.rng.pick(&waiting);
                world.end_instance(victim, 137);
                return true;
            }
            _ => {
                drop(world);
                return self.cut(fault, leader, some, lasts);
            }
        }
        drop(world);
        self.after(lasts, move |sim| sim.calm(fault));
        true
    }

    fn calm(&mut self, fault: Fault) {
        let mut world = self.world.lock();
        match fault {
            Fault::Lossy => (world.net.loss, world.net.delay) = (0, 10),
            Fault::Seal => world.vault.sealed = false,
            Fault::LoseAnswers => world.vault.loses_answers = 0,
            Fault::NoLogins => world.vault.no_logins = false,
            Fault::DestroyForbidden | Fault::DestroyBroken => world.vault.destroying = Destroying::Works,
            Fault::SlowVault => world.vault.slow = 10,
            _ => {}
        }
        world.note(What::Fault(format!("{fault:?} is over")));
    }

    fn cut(&mut self, fault: Fault, leader: Option<u8>, some: u8, lasts: Millis) -> bool {
        let at = |n: u8| Site::Node(self.replicas[&n].ip);
        let all: Vec<u8> = self.replicas.keys().copied().collect();
        let both = |a: Site, b: Site| [(a, b), (b, a)];
        let ways: Vec<(Site, Site)> = match fault {
            Fault::MinorityLeader => {
                let Some(leader) = leader else { return false };
                all.iter().filter(|n| **n != leader).flat_map(|n| both(at(leader), at(*n))).collect()
            }
            Fault::OneWay => {
                let hears = self.rng.chance(50);
                let from = leader.unwrap_or(some);
                let others = all.iter().filter(|n| **n != from);
                others.map(|n| if hears { (at(from), at(*n)) } else { (at(*n), at(from)) }).collect()
            }
            Fault::Bridge => {
                let bridge = some;
                let rest: Vec<u8> = all.iter().copied().filter(|n| *n != bridge).collect();
                let pairs = rest.iter().flat_map(|a| rest.iter().filter(move |b| a < *b).map(move |b| (*a, *b)));
                pairs.flat_map(|(a, b)| both(at(a), at(b))).collect()
            }
            Fault::NoApi => both(at(leader.unwrap_or(some)), Site::Api).into(),
            Fault::NoVault => both(at(leader.unwrap_or(some)), Site::Vault).into(),
            _ => return false,
        };
        let mut world = self.world.lock();
        ways.iter().for_each(|(from, to)| world.net.cut(*from, *to, true));
        drop(world);
        self.after(lasts, move |sim| {
            let mut world = sim.world.lock();
            ways.iter().for_each(|(from, to)| world.net.cut(*from, *to, false));
            world.note(What::Fault(format!("{fault:?} is over")));
        });
        true
    }

    fn trap(&mut self, point: super::nemesis::Point, act: Act) {
        let before = self.rng.chance(50) && point != super::nemesis::Point::Answer;
        self.world.lock().armed.set(point, before, act);
    }

    fn everybody(&self) -> Vec<u8> {
        self.replicas.keys().copied().collect()
    }

    fn anybody(&mut self) -> u8 {
        let all = self.everybody();
        self.rng.pick(&all)
    }

    fn follower(&mut self) -> Option<u8> {
        let leader = self.leader()?;
        let others: Vec<u8> = self.everybody().into_iter().filter(|n| *n != leader).collect();
        Some(self.rng.pick(&others))
    }

    /// Ends a process, which is back within `most`.
    fn kill(&mut self, n: u8, death: Death, most: Millis) -> bool {
        let runs = self.replicas[&n].process.is_some();
        if runs {
            self.world.lock().note(What::Fault(format!("controller {n} ends, {death:?}")));
            self.crash(n, death);
            let back = self.rng.between(10, most);
            self.after(back, move |sim| sim.start(n));
        }
        runs
    }

    /// Ends a process and takes its storage; at the same address another one starts.
    fn lose(&mut self, n: u8) -> bool {
        self.kill(n, Death { power: false, torn: None }, 1_500);
        self.wipe(n);
        strangers::ask_for_the_dead(self, n);
        true
    }

    /// A majority of stores is lost on purpose: what was acknowledged before need not be there.
    fn forgive(&mut self) {
        let mut world = self.world.lock();
        world.history.forgiven_before = world.history.events.len();
    }

    fn hand_over(&mut self) -> bool {
        let Some(process) = self.leader().and_then(|n| self.replicas[&n].process.as_ref()) else { return false };
        let handle = process.handle.clone();
        process.runtime.spawn(async move { handle.hand_over().await });
        true
    }

    /// A command of an earlier leadership comes late, through whoever leads now.
    fn propose_late(&mut self) -> bool {
        let late = self.world.lock().armed.late(&mut self.rng);
        let (Some(command), Some(n)) = (late, self.leader()) else { return false };
        let Some(process) = self.replicas[&n].process.as_ref() else { return false };
        let term = process.handle.seen().map(|seen| seen.term);
        let by = match &command {
            Command::Claim(claim) => Some(claim.by.term),
            Command::Issued(issued) => Some(issued.by.term),
            Command::Outcome(_) => None,
        };
        if by == term || by.is_none() {
            return false;
        }
        let site = process.site.clone();
        process.runtime.spawn(async move { drop(propose(&site, command).await) });
        self.world.lock().cover("fenced");
        true
    }

    /// Goes on with a rolling restart: the next one only while all others are whole.
    pub(crate) fn roll_on(&mut self) {
        let Some(Rolling { left, leaving }) = self.rolling.take() else { return };
        let now = self.now();
        if let Some((n, until)) = leaving {
            if now < until {
                self.rolling = Some(Rolling { left, leaving });
                return;
            }
            // The grace is over, or it has ended by itself; its pod goes, and its storage.
            self.crash(n, Death { power: false, torn: None });
            self.replace(n);
            self.start(n);
            self.rolling = (!left.is_empty()).then_some(Rolling { left, leaving: None });
            return;
        }
        if !self.is_whole() {
            self.rolling = Some(Rolling { left, leaving: None });
            return;
        }
        let mut left = left;
        let n = left.remove(0);
        self.world.lock().note(What::Fault(format!("controller {n} is asked to end")));
        if let Some(process) = self.replicas[&n].process.as_ref() {
            let (handle, stop) = (process.handle.clone(), process.stop.clone());
            process.runtime.spawn(async move {
                handle.hand_over().await;
                handle.leave().await;
                stop.cancel();
            });
        }
        self.rolling = Some(Rolling { left, leaving: Some((n, now + GRACE)) });
    }

    /// The address of a replica.
    pub(crate) fn ip(&self, n: u8) -> IpAddr {
        self.replicas[&n].ip
    }
}
