//! The nemesis: which faults there are, and the traps at the named points of a delivery.

use kubernetes_vault::domain::ledger::Command;

use super::rng::Rng;
use super::world::World;
use crate::history::Millis;

/// The named points of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    Claim,
    Dial,
    Wrap,
    Issued,
    Send,
    Answer,
    Outcome,
}

/// What happens to a controller that steps into a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Crash(Death),
    Pause(Millis),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// With its machine: its peers hear nothing of it. Otherwise its connections are closed.
    pub(crate) power: bool,
    /// Of what was not synced a part is found again, by this number; otherwise nothing is.
    pub(crate) torn: Option<u64>,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    CrashAt(Point),
    PauseAt(Point),
    KillLeader,
    KillFollower,
    QuickRestart,
    TornTail,
    PowerCutAll,
    LoseStorage,
    LoseTwo,
    LoseAll,
    Pause,
    MinorityLeader,
    OneWay,
    Bridge,
    NoApi,
    NoVault,
    Lossy,
    Seal,
    LoseAnswers,
    NoLogins,
    DestroyForbidden,
    DestroyBroken,
    SlowVault,
    Relist,
    KillReceiver,
    LateCommand,
    Rolling,
    Grow,
    HandOver,
    Strangers,
}

/// The named points.
pub(crate) const POINTS: [Point; 7] =
    [Point::Claim, Point::Dial, Point::Wrap, Point::Issued, Point::Send, Point::Answer, Point::Outcome];

/// All faults. A seed begins with one of them in turn, so that few seeds exercise each.
pub(crate) fn all() -> Vec<Fault> {
    let mut all: Vec<Fault> = Vec::new();
    all.extend(POINTS.map(Fault::CrashAt));
    all.extend(POINTS.map(Fault::PauseAt));
    all.extend([
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::QuickRestart,
        Fault::TornTail,
        Fault::PowerCutAll,
        Fault::LoseStorage,
        Fault::LoseTwo,
        Fault::LoseAll,
        Fault::Pause,
        Fault::MinorityLeader,
        Fault::OneWay,
        Fault::Bridge,
        Fault::NoApi,
        Fault::NoVault,
        Fault::Lossy,
        Fault::Seal,
        Fault::LoseAnswers,
        Fault::NoLogins,
        Fault::DestroyForbidden,
        Fault::DestroyBroken,
        Fault::SlowVault,
        Fault::Relist,
        Fault::KillReceiver,
        Fault::LateCommand,
        Fault::Rolling,
        Fault::Grow,
        Fault::HandOver,
        Fault::Strangers,
    ]);
    all
}

/// Faults that change who the members are: at most one of them in a run, since they take their time.
pub(crate) fn is_upheaval(fault: Fault) -> bool {
    matches!(fault, Fault::LoseTwo | Fault::LoseAll | Fault::Rolling | Fault::Grow)
}

/// Classes that a whole run of many seeds has to have exercised, beside those of [`all`]: what follows from them.
pub(crate) const REQUIRED: [&str; 20] = [
    "loss",
    "reordering",
    "clock skew",
    "unsynced data lost",
    "stale list",
    "relist after 410",
    "IP reuse",
    "sandbox with a new IP",
    "restart in place, no status in between",
    "Vault sealed",
    "answer lost after creation",
    "login 503 after unwrap",
    "destroy 403",
    "destroy 500",
    "answer 409",
    "answer 410",
    "answer 422",
    "answer 503",
    "Go: exit before the answer",
    "fenced",
];

/// The class that a fault counts as.
pub(crate) fn class(fault: Fault) -> String {
    match fault {
        Fault::CrashAt(point) => format!("crash at {point:?}"),
        Fault::PauseAt(point) => format!("pause at {point:?}"),
        other => format!("{other:?}"),
    }
}

/// A trap.
struct Trap {
    point: Point,
    before: bool,
    act: Act,
}

/// What is armed, and what went off.
#[derive(Default)]
pub(crate) struct Armed {
    traps: Vec<Trap>,
    pub(crate) sprung: Vec<(u8, Act)>,
    /// Commands that were proposed in earlier leaderships: a process that was stopped may propose one much later.
    late: Vec<Command>,
}

impl Armed {
    pub(crate) fn set(&mut self, point: Point, before: bool, act: Act) {
        self.traps.push(Trap { point, before, act });
    }

    pub(crate) fn disarm(&mut self) {
        self.traps.clear();
    }

    pub(crate) fn remember(&mut self, command: &Command) {
        self.late.push(command.clone());
    }

    /// A command of an earlier leadership.
    pub(crate) fn late(&self, rng: &mut Rng) -> Option<Command> {
        if self.late.is_empty() { None } else { Some(rng.pick(&self.late)) }
    }
}

impl World {
    /// Whether controller `n` stops at `point`.
    pub(crate) fn spring(&mut self, n: u8, point: Point, before: bool) -> bool {
        let traps = &mut self.armed.traps;
        let Some(at) = traps.iter().position(|trap| trap.point == point && trap.before == before) else { return false };
        let trap = traps.swap_remove(at);
        self.armed.sprung.push((n, trap.act));
        let (class, how) = match trap.act {
            Act::Crash(death) => (class(Fault::CrashAt(point)), format!("{death:?}")),
            Act::Pause(millis) => (class(Fault::PauseAt(point)), format!("for {millis} ms")),
        };
        let edge = if before { "before" } else { "after" };
        self.fault(&class, &format!("{edge}, controller {n}, {how}"));
        true
    }
}
