//! The times of `raft`.
//!
//! Owns their defaults, their bounds and how they go together. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::lenient::{Context, Section, Spot};

/// Below it, one slow sync of a disk counts as a lost leader; beyond it, nobody replaces a lost leader within the time
/// that pods wait patiently.
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(10);

/// The same bounds, with room for what must lie between heartbeat and election.
const ELECTION: RangeInclusive<Duration> = Duration::from_millis(15)..=Duration::from_mins(1);

/// Below it, a pod that is pulled to another node loses its membership for nothing; beyond it, a dead voter counts in
/// every quorum for longer than anybody watches.
const DEAD_SERVER_GRACE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(30 * 24);

/// Heartbeats that must fit into the shortest election timeout: one may get lost.
const HEARTBEATS_PER_ELECTION: u32 = 2;

/// Elections that a voter may sleep through before it counts as dead: it must have had its chance to be heard.
const ELECTIONS_PER_GRACE: u32 = 3;

/// How fast replicas notice each other's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// `raft.heartbeat`: how often a leader says that it is there. Default `60ms`.
    pub heartbeat: Duration,
    /// `raft.electionMin`: the shortest silence after which a follower asks to be elected. Default `150ms`.
    pub election_min: Duration,
    /// `raft.electionMax`: the longest. Default `300ms`.
    pub election_max: Duration,
    /// `raft.deadServerGrace`: how long a voter that is gone stays one. Default `10m`.
    pub dead_server_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(60),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            dead_server_grace: Duration::from_mins(10),
        }
    }
}

/// The times of `section`; `None` only together with a problem.
pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Option<Timing> {
    let defaults = Timing::default();
    let heartbeat = time(section, "heartbeat", defaults.heartbeat, &HEARTBEAT, cx);
    let election_min = time(section, "electionMin", defaults.election_min, &ELECTION, cx);
    let election_max = time(section, "electionMax", defaults.election_max, &ELECTION, cx);
    let dead_server_grace = time(section, "deadServerGrace", defaults.dead_server_grace, &DEAD_SERVER_GRACE, cx);
    let timing = Timing {
        heartbeat: heartbeat?,
        election_min: election_min?,
        election_max: election_max?,
        dead_server_grace: dead_server_grace?,
    };
    check(section, &timing, cx);
    Some(timing)
}

fn time(
    section: &Section<'_>,
    name: &str,
    default: Duration,
    bounds: &RangeInclusive<Duration>,
    cx: &mut Context<'_>,
) -> Option<Duration> {
    let Some(setting) = section.text(name, cx) else {
        return Some(default);
    };
    let read = wire::duration::parse(&setting.value).ok().and_then(|duration| Duration::try_from(duration).ok());
    // Raft counts milliseconds: what it cannot count must not be configurable.
    let whole = |duration: &Duration| duration.subsec_nanos().is_multiple_of(1_000_000);
    let time = read.filter(whole).filter(|duration| bounds.contains(duration));
    if time.is_none() {
        cx.problem(
            &setting.spot,
            format!(
                "must be a duration such as 60ms, 1.5s or 10m, in whole milliseconds, from {:?} to {:?}",
                bounds.start(),
                bounds.end()
            ),
        );
    }
    time
}

/// What is shown is what was parsed, or a default: never the text of the file.
fn check(section: &Section<'_>, timing: &Timing, cx: &mut Context<'_>) {
    let Timing { heartbeat, election_min, election_max, dead_server_grace } = *timing;
    if heartbeat * HEARTBEATS_PER_ELECTION >= election_min {
        cx.problem(
            &blamed(section, ["heartbeat", "electionMin"]),
            format!(
                "makes raft.electionMin ({election_min:?}) no more than {HEARTBEATS_PER_ELECTION} times raft.heartbeat \
                 ({heartbeat:?}): a heartbeat that comes late would end a leader's term"
            ),
        );
    }
    if election_min >= election_max {
        cx.problem(
            &blamed(section, ["electionMin", "electionMax"]),
            format!(
                "makes raft.electionMin ({election_min:?}) not less than raft.electionMax ({election_max:?}): replicas \
                 that wait equally long are candidates at the same time, again and again"
            ),
        );
    }
    if dead_server_grace < election_max * ELECTIONS_PER_GRACE {
        cx.problem(
            &blamed(section, ["deadServerGrace", "electionMax"]),
            format!(
                "makes raft.deadServerGrace ({dead_server_grace:?}) less than {ELECTIONS_PER_GRACE} times \
                 raft.electionMax ({election_max:?}): one election would cost a voter its membership"
            ),
        );
    }
}

/// The first of the two keys that stands in the file: the other one is a default.
fn blamed(section: &Section<'_>, names: [&str; 2]) -> Spot {
    let [first, second] = names.map(|name| section.spot(name));
    if first.at.is_none() && second.at.is_some() { second } else { first }
}
