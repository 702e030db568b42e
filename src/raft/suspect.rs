//! A leader that is known to be dead is replaced when its lease ends, and not a random while later.
//!
//! Owns the reading of two signs that together leave no doubt: the leader's connection to us was closed, and nothing
//! listens at its address any more. Nobody is elected before the lease is over: until then the dead leader may have
//! been right to push.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::running::{Running, Timings};
use crate::domain::handover::campaign_after;
use crate::domain::ids::NodeId;

/// A process that is gone has its port refused at once; who does not answer in this time may live.
const DIAL_LIMIT: Duration = Duration::from_millis(100);

/// Between the elections of two followers, so that they do not split the votes: an election takes a few milliseconds.
const STAGGER: Duration = Duration::from_millis(25);

/// Voters whose own lease ends a little later say no to the first try.
const AGAIN: Duration = Duration::from_millis(30);

/// Tries until the ordinary timeout takes over.
const TRIES: u32 = 5;

/// Looks after `leader`, whose connection to us has just ended.
pub(super) async fn look_after(running: Arc<Running>, leader: NodeId, timings: Timings) {
    let last_heard = Instant::now();
    let Some((_, address)) = running.leader().filter(|(node, _)| *node == leader) else { return };
    let address = SocketAddr::new(address, running.links.port);
    let dialled = timeout(DIAL_LIMIT, running.links.network.connect(address)).await;
    if !matches!(dialled, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused) {
        return;
    }
    let voters: BTreeSet<NodeId> = running.metrics().membership_config.membership().voter_ids().collect();
    let after = campaign_after(voters, running.identity.node, leader, timings.election_max, STAGGER);
    let Some(after) = after else { return };
    tracing::info!(%leader, "the leader is gone: its port is closed; an election follows when its lease is over");
    sleep_until(last_heard + after).await;
    let mut vote = running.metrics().vote;
    for wait in waits() {
        let still = running.leader().is_none_or(|(node, _)| node == leader);
        if !still {
            return;
        }
        // Somebody has begun an election since we looked: one more now would only make both fail.
        let now = running.metrics().vote;
        if now == vote && running.raft.trigger().elect(true).await.is_err() {
            return;
        }
        vote = now;
        sleep(wait).await;
    }
}

/// Between tries. Each one longer than the last: a new try throws away the answers to the one before, and on a busy
/// machine they take their time.
fn waits() -> impl Iterator<Item = Duration> {
    (0..TRIES).map(|tried| AGAIN * 2_u32.pow(tried))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_leaves_more_time_for_its_answers() {
        let millis: Vec<u128> = waits().map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [30, 60, 120, 240, 480]);
    }
}
