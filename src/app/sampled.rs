//! What is read for each page of metrics, and the room that the ledger has.
//!
//! Owns the translation from what adapters show to what metrics tell. A page must never wait for a disk or for the API
//! server: what may take time is looked at beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::control::REACHED_WITHIN;
use super::pages::ReplicaPages;
use crate::domain::ledger::MAX_ENTRIES;
use crate::metrics::{EventsSampled, Metrics, RaftSampled, Room, Sampled, Waiting, WatchSampled};
use crate::raft::service::Handle;
use crate::raft::status::{Role, Seen};
use crate::store::rocks;

/// Between two looks at the disk: as often as it is usually asked for.
const LOOK_EVERY: Duration = Duration::from_secs(15);

pub(super) fn sample(pages: &ReplicaPages, ready: bool) -> Sampled {
    let raft = pages.raft.get();
    let watch = pages.watch.counts();
    let needs = pages.feed.needs();
    Sampled {
        waiting: Waiting {
            pods: needs.pushes,
            oldest: needs.oldest.map_or(Duration::ZERO, |since| pages.clock.now().since(since)),
            refused: needs.corrections,
        },
        raft: raft.and_then(Handle::seen).map(|seen| part(&seen)),
        refused: raft.map(|raft| raft.refused().to_vec()).unwrap_or_default(),
        watch: WatchSampled {
            fresh: pages.watch.fresh(),
            restarts: watch.restarts,
            errors: watch.errors,
            undecodable: watch.undecodable,
        },
        events: EventsSampled {
            written: pages.events.written(),
            dropped: pages.events.dropped(),
            failed: pages.events.failed(),
        },
        ready,
    }
}

fn part(seen: &Seen) -> RaftSampled {
    let leads = seen.role == Role::Leader;
    let voters = || seen.members.iter().filter(|member| member.voter);
    let reachable = voters()
        .filter(|voter| voter.node == seen.node || voter.silent_for.is_some_and(|silent| silent < REACHED_WITHIN));
    RaftSampled {
        cluster: seen.cluster.to_string(),
        epoch: seen.epoch.0,
        term: seen.term.0,
        leads,
        leader_known: seen.leader.is_some(),
        voters: voters().count(),
        reachable: leads.then(|| reachable.count()),
        members: seen.members.len(),
        lag: seen.committed.zip(seen.applied).map_or(0, |(committed, applied)| committed.saturating_sub(applied)),
        most_behind: leads.then(|| seen.members.iter().filter_map(|member| member.lag).max().unwrap_or(0)),
        entries: seen.entries,
        tombstones: seen.tombstones,
        capacity: MAX_ENTRIES,
    }
}

/// Tells `metrics` the room in `folder` until `stop`.
pub(super) async fn look_at_room(folder: PathBuf, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let folder = folder.clone();
        // A disk that hangs holds up this task alone.
        let room = tokio::task::spawn_blocking(move || room(&folder)).await;
        metrics.room(room.ok().flatten());
    }
}

fn room(folder: &Path) -> Option<Room> {
    let system = rustix::fs::statvfs(folder).ok()?;
    Some(Room { used: rocks::disk_bytes(folder).ok()?, free: system.f_bavail.saturating_mul(system.f_frsize) })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::ids::{ClusterId, Epoch, NodeId, Term};
    use crate::domain::membership::Member;
    use crate::raft::status::SeenMember;

    /// Node 1 leads nodes 2 and 3, which vote, and 4, which does not.
    fn seen() -> Seen {
        let member = |node, voter, lag, silent_for| SeenMember {
            node: NodeId(node),
            member: Member { address: IpAddr::from([10, 0, 0, 7]), pod: "uid".into(), bound_to_pod: true },
            voter,
            lag,
            silent_for,
        };
        let silent = |ms| Some(Duration::from_millis(ms));
        Seen {
            node: NodeId(1),
            cluster: ClusterId(7),
            epoch: Epoch(2),
            role: Role::Leader,
            term: Term(3),
            leader: Some(NodeId(1)),
            committed: Some(90),
            applied: Some(88),
            last: Some(91),
            snapshot: None,
            members: vec![
                member(1, true, Some(0), None),
                member(2, true, Some(4), silent(60)),
                member(3, true, Some(40), silent(5_000)),
                member(4, false, Some(7), silent(60)),
            ],
            entries: 5,
            tombstones: 2,
        }
    }

    #[test]
    fn the_leader_tells_who_answers_and_who_is_behind() {
        let told = part(&seen());
        assert_eq!((told.voters, told.members, told.reachable), (3, 4, Some(2)), "a learner is no voter");
        assert_eq!((told.lag, told.most_behind), (2, Some(40)));
        assert!(told.leads && told.leader_known);
        let cut_off = part(&Seen { leader: None, ..seen() });
        assert!(cut_off.leads && !cut_off.leader_known, "a leader whose lease has run out delivers nothing");
    }

    #[test]
    fn a_follower_does_not_tell_what_only_the_leader_knows() {
        let told = part(&Seen { role: Role::Follower, leader: Some(NodeId(2)), ..seen() });
        assert_eq!((told.reachable, told.most_behind), (None, None));
        assert!(!told.leads && told.leader_known);
    }

    #[test]
    fn room_is_told_where_the_system_tells_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("log"), vec![1; 100_000]).unwrap();
        let room = room(folder.path()).unwrap();
        assert!((100_000..1_000_000).contains(&room.used), "{room:?}");
        assert!(room.free > 0);
        assert_eq!(super::room(&folder.path().join("nothing")), None);
    }
}
