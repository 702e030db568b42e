//! What design and operations promise of a cluster, with whole nodes.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::world::{World, uid};
use crate::domain::ids::{AttemptId, BootId, ContainerId, InstanceKey, PodRef, RoleName, Term, Timestamp};
use crate::domain::ledger::{Author, Claim, Command, Refused, Reply};
use crate::domain::peers::PodState;

async fn three() -> World {
    let mut world = World::new();
    world.list(&[1, 2, 3]);
    for n in [1, 2, 3] {
        world.start(n).await;
    }
    world.until("three voters in one cluster", |world| world.voters() == 3 && world.replicas.len() == 3).await;
    world
}

fn claim(n: u32, term: Term) -> Command {
    let pod = PodRef { namespace: "ns".into(), name: format!("p{n}").into(), uid: uid(1) };
    let container_id = ContainerId::from(format!("c{n}").as_str());
    Command::Claim(Claim {
        key: key(&container_id),
        attempt: AttemptId::from(format!("a{n}").as_str()),
        pod,
        role: RoleName::parse("r").unwrap(),
        by: Author { term, boot: BootId(1) },
        at: Timestamp(1),
    })
}

fn key(container_id: &ContainerId) -> InstanceKey {
    InstanceKey { pod: uid(1), container: "init".into(), container_id: container_id.clone(), generation: 0 }
}

async fn claim_at_leader(world: &World, n: u32) -> Reply {
    let leader = world.leader().unwrap();
    let term = world.replicas[&leader].running().unwrap().leads_in().unwrap();
    world.ledger(leader).propose(claim(n, term)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_single_replica_is_a_cluster_of_one() {
    let mut world = World::new();
    world.list(&[1]);
    world.start(1).await;
    world.until("a leader", |world| world.leader() == Some(1)).await;
    let leadership = world.replicas.get_mut(&1).unwrap().leaderships.recv().await.unwrap();
    assert!(world.ledger(1).holds_lease(leadership.author.term));
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
    assert_eq!(world.ledger(1).confirm(leadership.author.term).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn three_that_start_at_once_are_one_cluster_with_one_leader() {
    let world = three().await;
    assert_eq!(world.clusters().len(), 1);
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_leader_and_the_pause_is_short() {
    let mut world = three().await;
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
    let old = world.leader().unwrap();
    let killed = Instant::now();
    world.kill(old);
    world.until("another leader", |world| world.leader().is_some_and(|n| n != old)).await;
    let pause = killed.elapsed();
    assert!(pause < Duration::from_millis(700), "{pause:?}");
    let new = world.leader().unwrap();
    world.until("the claim", |world| world.ledger(new).read(&key(&ContainerId::from("c1"))).is_some()).await;
    world.start(old).await;
    world
        .until("the old one follows", |world| world.replicas[&old].running().is_some_and(|r| r.leader().is_some()))
        .await;
}

// FENCING: design.md, invariant 1.
#[tokio::test(start_paused = true)]
async fn a_command_of_an_earlier_term_changes_nothing() {
    let world = three().await;
    let leader = world.leader().unwrap();
    let reply = world.ledger(leader).propose(claim(1, Term(0))).await.unwrap();
    assert_eq!(reply, Reply::Refused(Refused::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lost_its_storage_takes_the_place_of_what_it_was() {
    let mut world = three().await;
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
    let victim = [1, 2, 3].into_iter().find(|n| Some(*n) != world.leader()).unwrap();
    let before = world.replicas[&victim].running().unwrap().identity;
    world.kill_and_wipe(victim);
    world.start(victim).await;
    world
        .until("it is a voter under a new id", |world| {
            let now = world.replicas[&victim].running();
            now.is_some_and(|now| now.identity.node != before.node && now.is_voter()) && world.members() == 3
        })
        .await;
    assert_eq!(world.clusters(), [before.cluster].into());
}

#[tokio::test(start_paused = true)]
async fn two_of_three_stores_lost_heal_with_the_ledger_of_the_third() {
    let world = three().await;
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
    let survivor = world.leader().unwrap();
    heals_from(world, survivor).await;
}

// openraft goes on to name the leader that is gone: found by the fault suite (sim, seed 11).
#[tokio::test(start_paused = true)]
async fn they_heal_where_the_leader_is_among_the_lost() {
    let world = three().await;
    assert_eq!(claim_at_leader(&world, 1).await, Reply::Done);
    let survivor = [1, 2, 3].into_iter().find(|n| Some(*n) != world.leader()).unwrap();
    heals_from(world, survivor).await;
}

async fn heals_from(mut world: World, survivor: u8) {
    let cluster = world.replicas[&survivor].running().unwrap().identity.cluster;
    let victims: Vec<u8> = [1, 2, 3].into_iter().filter(|n| *n != survivor).collect();
    for n in &victims {
        world.kill_and_wipe(*n);
    }
    for n in &victims {
        world.start(*n).await;
    }
    world
        .until("three voters again, in a new epoch", |world| {
            let epoch =
                world.leader().and_then(|n| world.replicas[&n].running()).map(|running| running.identity.epoch.0);
            epoch == Some(1) && world.voters() == 3
        })
        .await;
    assert_eq!(world.clusters(), [cluster].into());
    let leader = world.leader().unwrap();
    assert!(world.ledger(leader).read(&key(&ContainerId::from("c1"))).is_some());
}

#[tokio::test(start_paused = true)]
async fn all_three_stores_lost_are_a_new_cluster() {
    let mut world = three().await;
    let old = world.clusters();
    for n in [1, 2, 3] {
        world.kill_and_wipe(n);
    }
    for n in [1, 2, 3] {
        world.start(n).await;
    }
    world.until("three voters", |world| world.voters() == 3).await;
    assert_eq!(world.clusters().len(), 1);
    assert_ne!(world.clusters(), old);
}

#[tokio::test(start_paused = true)]
async fn one_grows_to_three_and_shrinks_to_one() {
    let mut world = World::new();
    world.list(&[1]);
    world.start(1).await;
    world.until("a leader", |world| world.leader() == Some(1)).await;
    world.list(&[1, 2, 3]);
    world.start(2).await;
    world.start(3).await;
    world.until("three voters", |world| world.voters() == 3).await;
    for n in [1, 2] {
        let replica = &world.replicas[&n];
        replica.handle.hand_over().await;
        replica.handle.leave().await;
        replica.stop.cancel();
        world.kill_and_wipe(n);
        world.pod(n, PodState::Gone);
        let left: Vec<u8> = world.replicas.keys().copied().collect();
        world.list(&left);
    }
    world.until("one voter, who leads", |world| world.leader() == Some(3) && world.voters() == 1).await;
    assert_eq!(claim_at_leader(&world, 9).await, Reply::Done);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_the_leader_saw_listed_before_it_came_is_taken_up_at_once() {
    let mut world = three().await;
    world.list(&[1, 2, 3, 4]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    world.start(4).await;
    let members = |world: &World| world.replicas[&1].handle.seen().map(|seen| seen.members.len());
    world.until("four members", |world| members(world) == Some(4)).await;
    assert!(since.elapsed() < Duration::from_secs(2), "after {:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hands_over_is_followed_at_once() {
    let world = three().await;
    let old = world.leader().unwrap();
    let asked = Instant::now();
    timeout(Duration::from_secs(1), world.replicas[&old].handle.hand_over()).await.unwrap();
    world.until("another leader", |world| world.leader().is_some_and(|n| n != old)).await;
    assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_loses_its_lease_before_another_one_leads() {
    let world = three().await;
    let old = world.leader().unwrap();
    let term = world.replicas[&old].running().unwrap().leads_in().unwrap();
    let others: Vec<u8> = [1, 2, 3].into_iter().filter(|n| *n != old).collect();
    assert!(world.ledger(old).holds_lease(term));
    world.cut(old, &others, true);
    world
        .until("another leader, or no lease", |world| {
            let other_leads = others.iter().any(|n| world.replicas[n].running().unwrap().is_leader());
            assert!(!(other_leads && world.ledger(old).holds_lease(term)), "two hold the lease");
            other_leads
        })
        .await;
    assert!(world.ledger(old).propose(claim(7, term)).await.is_err());
    world.cut(old, &others, false);
    world.until("one leader again", |world| !world.replicas[&old].running().unwrap().is_leader()).await;
}
