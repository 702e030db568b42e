//! What keeps Raft's time: heartbeats of a leader, and the ticks after which a follower asks for an election.
//!
//! Owns when openraft is woken. Left to itself it ticks thirteen times in 64 heartbeat intervals, in every state, and
//! sends heartbeats at ticks: most of what a replica costs at rest, and heartbeats that come late. Here a leader's
//! heartbeats have a timer of their own and it does not tick at all; a follower does not while it hears its leader.
//! Must never stop the ticks of a follower that has heard nothing for the election timeout: nobody would be elected.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep_until};

use super::running::{Running, Timings};

/// openraft ticks so many times ...
const TICKS: u64 = 13;

/// ... in so many of its heartbeat intervals.
const INTERVALS: u64 = 64;

/// The heartbeat interval that openraft is told, in milliseconds, for the sake of its ticks: the longest that it takes
/// with this election timeout, which has to be more than an interval and a tick. It ticks six times in that timeout.
pub(super) fn told_to_openraft(election_min: u64) -> u64 {
    (election_min.saturating_sub(1) * INTERVALS / (INTERVALS + TICKS)).max(1)
}

/// What is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Nothing, until this node's part in the cluster changes: it leads nobody but itself.
    Nothing,
    /// As the leader: a heartbeat, and then to look again.
    Heartbeat,
    /// As a follower whose leader is there: to look again then. It cannot be time for an election before.
    LookAgain(Instant),
    /// Openraft's ticks, until the leader is heard again.
    Ticks,
}

/// What is due for a node that leads `followers` others, or was spoken to by its leader at `heard`.
fn due(followers: Option<usize>, heard: Option<Instant>, now: Instant, election_min: Duration) -> Due {
    match (followers, heard.map(|heard| heard + election_min)) {
        (Some(0), _) => Due::Nothing,
        (Some(_), _) => Due::Heartbeat,
        (None, Some(until)) if until > now => Due::LookAgain(until),
        (None, _) => Due::Ticks,
    }
}

/// Keeps the time, and never ends: that Raft has stopped others notice, and why.
pub(super) async fn always(running: Arc<Running>, timings: Timings) -> Infallible {
    // It tells of terms, leaders and members, and so changes seldom, unlike what is seen of the log.
    let mut server = running.raft.server_metrics();
    let raft = &running.raft;
    loop {
        let followers = {
            let seen = server.borrow_watched();
            let others = || seen.membership_config.membership().nodes().count().saturating_sub(1);
            (seen.state == ServerState::Leader).then(others)
        };
        let due = due(followers, running.heard_leader(), Instant::now(), timings.election_min);
        raft.runtime_config().tick(due == Due::Ticks);
        let wake_at = match due {
            Due::Nothing => None,
            Due::Heartbeat => Some(Instant::now() + timings.heartbeat),
            Due::LookAgain(until) => Some(until),
            // Heartbeats may come again without a change of anything.
            Due::Ticks => Some(Instant::now() + timings.election_min),
        };
        let goes_on = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            () = reached(wake_at) => match due {
                Due::Heartbeat => raft.trigger().heartbeat().await.is_ok(),
                _ => true,
            },
        };
        if !goes_on {
            return pending().await;
        }
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION_MIN: Duration = Duration::from_millis(150);

    #[test]
    fn a_follower_ticks_from_the_moment_on_when_an_election_may_be_due() {
        let now = Instant::now();
        let heard = |ago: u64| now.checked_sub(Duration::from_millis(ago));
        assert_eq!(due(None, None, now, ELECTION_MIN), Due::Ticks);
        assert_eq!(due(None, heard(150), now, ELECTION_MIN), Due::Ticks);
        assert_eq!(due(None, heard(10_000), now, ELECTION_MIN), Due::Ticks);
        assert_eq!(due(None, heard(149), now, ELECTION_MIN), Due::LookAgain(now + Duration::from_millis(1)));
    }

    #[test]
    fn a_leader_beats_for_others_alone_whatever_it_heard() {
        let now = Instant::now();
        for heard in [None, Some(now)] {
            assert_eq!(due(Some(2), heard, now, ELECTION_MIN), Due::Heartbeat);
            assert_eq!(due(Some(0), heard, now, ELECTION_MIN), Due::Nothing);
        }
    }

    #[test]
    fn openraft_takes_what_it_is_told_and_ticks_several_times_in_an_election_timeout() {
        for election_min in 10..5_000 {
            let interval = told_to_openraft(election_min);
            let tick = (interval * TICKS / INTERVALS).max(1);
            assert!(tick * 5 <= election_min, "{election_min}: {tick}");
            let config = openraft::Config {
                heartbeat_interval: interval,
                election_timeout_min: election_min,
                election_timeout_max: election_min * 2,
                ..openraft::Config::default()
            };
            config.validate().unwrap();
        }
    }
}
