//! How instances end, and what a new leader makes of what an earlier one left.

use std::time::Duration;

use super::world::{Did, Receiver, World, cut, status};
use crate::clock::Clock as _;
use crate::deliver::fixtures::{pod, running, with_status};
use crate::deliver::ports::{Incident, PodEvent};
use crate::domain::ids::Timestamp;
use crate::domain::pod::{ContainerState, Phase, Pod, Target, Termination, Wish};

const IP: &str = "10.0.0.1";

fn exited(pod: Pod, code: i32) -> Pod {
    let id = "containerd://web-0-0".into();
    with_status(pod, ContainerState::Terminated(Termination { id: Some(id), exit_code: code, at: None, message: None }))
}

fn restarted(pod: Pod, from: i32, number: usize) -> Pod {
    let before = format!("containerd://web-0-{}", number - 1);
    let mut pod = with_status(pod, running(&format!("containerd://web-0-{number}")));
    if let Some(Wish { target: Target::Init { status, .. }, .. }) = &mut pod.wish {
        status.last = Some(Termination { id: Some(before.as_str().into()), exit_code: from, at: None, message: None });
    }
    pod
}

/// The same pod, whose init container runs since `started`.
fn since(mut pod: Pod, started: Timestamp) -> Pod {
    if let Some(Wish { target: Target::Init { status, .. }, .. }) = &mut pod.wish
        && let ContainerState::Running { since, .. } = &mut status.state
    {
        *since = Some(started);
    }
    pod
}

async fn one_unknown() -> World {
    let world = World::new();
    world.answers(IP, [cut()]);
    world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("unknown", |w| w.count(|did| *did == Did::Outcome) == 1).await;
    world.receiver(IP, Receiver::Silent);
    world
}

fn neutralised(world: &World) -> usize {
    world.count(|did| matches!(did, Did::Neutralise(..)))
}

// Invariant 3: a DELETE from the selector also means "left Pending".
#[tokio::test(start_paused = true)]
async fn a_pod_that_left_with_something_unsettled_is_read_by_name() {
    let world = one_unknown().await;
    let mut up = exited(pod("web-0", IP), 0);
    up.phase = Phase::Running;
    world.with(|state| state.found.insert("web-0".into(), up));
    world.say(PodEvent::Left(pod("web-0", IP).into())).await;
    world.until("read and settled", |w| w.count(|did| *did == Did::Outcome) == 2).await;
    assert_eq!(world.count(|did| *did == Did::Read("web-0".into())), 1);
    assert_eq!(neutralised(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_went_without_a_word_is_counted_and_its_secret_id_kept() {
    let world = one_unknown().await;
    world.say(PodEvent::Left(pod("web-0", IP).into())).await;
    world.until("counted", |w| w.count(|did| *did == Did::Incident(Incident::FateUnknown)) == 1).await;
    assert_eq!(neutralised(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn a_settled_delivery_costs_no_read() {
    let world = World::new();
    world.answers(IP, [status(200)]);
    world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    world.say(PodEvent::Left(pod("web-0", IP).into())).await;
    world.pass(60).await;
    assert_eq!(world.count(|did| matches!(did, Did::Read(_))), 0);
}

// Bad-input table: a pod deleted and re-created under its name.
#[tokio::test(start_paused = true)]
async fn a_pod_created_anew_under_its_name_gets_its_own() {
    let world = World::new();
    world.answers(IP, [status(200)]);
    world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("first", |w| w.announced("SecretIdDelivered") == 1).await;
    world.say(PodEvent::Left(pod("web-0", IP).into())).await;
    let mut again = pod("web-0", IP);
    again.reference.uid = "uid-again".into();
    world.see(&again).await;
    world.until("second", |w| w.announced("SecretIdDelivered") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_any_status_in_between_is_another_instance() {
    let world = one_unknown().await;
    world.answers(IP, [status(200)]);
    world.see(&since(restarted(pod("web-0", IP), 1, 1), world.now().plus(Duration::from_secs(60)))).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    world.until("the first one's is destroyed", |w| neutralised(w) == 1).await;
}

// A status that lags has a push meant for the start before.
#[tokio::test(start_paused = true)]
async fn what_the_next_start_may_have_taken_is_not_destroyed_with_the_first_one() {
    let world = one_unknown().await;
    world.answers(IP, [status(200)]);
    world.see(&since(restarted(pod("web-0", IP), 137, 1), world.now())).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    world.until("counted", |w| w.count(|did| *did == Did::Incident(Incident::FateUnknown)) == 1).await;
    assert_eq!(neutralised(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_crash_loops_is_slowed_down() {
    let world = World::new();
    world.answers(IP, [status(503)]);
    world.start();
    world.see(&pod("web-0", IP)).await;
    let before = tokio::time::Instant::now();
    for number in 1..=8 {
        world.until("pushed", |w| w.pushes() >= number).await;
        world.see(&restarted(pod("web-0", IP), 1, number)).await;
    }
    assert!(before.elapsed().as_secs() > 30, "{:?}", before.elapsed());
}

// Invariants 1 to 3 across a change of leader.
#[tokio::test(start_paused = true)]
async fn the_next_leader_settles_what_the_last_one_left_and_serves_on() {
    let first = one_unknown().await;
    first.ended.cancel();
    let second = first.next_leader();
    second.answers(IP, [status(200)]);
    second.start();
    second.say(PodEvent::Restarted).await;
    second.see(&pod("web-0", IP)).await;
    second.say(PodEvent::Synced).await;
    second.until("delivered by the second", |w| w.announced("SecretIdDelivered") == 1).await;
    // Ours names its attempt: the first leader's was refused. Its token was lost with it; the accessor was not.
    second.until("destroyed", |w| w.count(|did| *did == Did::Neutralise("secret-1".into(), false)) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_reads_open_pods_that_its_list_lacks() {
    let first = one_unknown().await;
    first.ended.cancel();
    let second = first.next_leader();
    let mut up = exited(pod("web-0", IP), 0);
    up.phase = Phase::Running;
    second.with(|state| state.found.insert("web-0".into(), up));
    second.start();
    second.say(PodEvent::Restarted).await;
    second.say(PodEvent::Synced).await;
    second.until("settled", |w| w.count(|did| *did == Did::Outcome) == 2).await;
    assert!(second.with(|state| state.ledger.open().next().is_none()));
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_does_not_deliver_again_what_was_accepted() {
    let first = World::new();
    first.answers(IP, [status(200)]);
    first.start();
    first.see(&pod("web-0", IP)).await;
    first.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    first.ended.cancel();
    first.receiver(IP, Receiver::Silent);
    let second = first.next_leader();
    second.start();
    second.see(&pod("web-0", IP)).await;
    second.pass(20).await;
    assert_eq!(second.wraps(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_a_new_complete_list_lacks_has_left() {
    let world = one_unknown().await;
    world.say(PodEvent::Restarted).await;
    world.say(PodEvent::Synced).await;
    world.until("read", |w| w.count(|did| *did == Did::Read("web-0".into())) == 1).await;
}

// A new leader's watch may be behind that of the leader before it: what it does not show yet is not gone.
#[tokio::test(start_paused = true)]
async fn a_start_that_the_watch_does_not_show_yet_is_not_lost() {
    let first = World::new();
    first.answers(IP, [cut()]);
    first.start();
    let newer = restarted(pod("web-0", IP), 1, 1);
    first.see(&newer).await;
    first.until("unknown", |w| w.count(|did| *did == Did::Outcome) == 1).await;
    first.ended.cancel();
    first.receiver(IP, Receiver::Silent);
    let second = first.next_leader();
    second.with(|state| state.found.insert("web-0".into(), newer.clone()));
    second.start();
    second.say(PodEvent::Restarted).await;
    second.see(&pod("web-0", IP)).await;
    second.say(PodEvent::Synced).await;
    second.until("read", |w| w.count(|did| *did == Did::Read("web-0".into())) == 1).await;
    second.pass(20).await;
    assert_eq!(second.count(|did| *did == Did::Incident(Incident::FateUnknown)), 0);
    assert_eq!(second.with(|state| state.ledger.open().filter(|(_, entry)| entry.closed.is_none()).count()), 2);
    // Once the watch has caught up it is served on.
    second.answers(IP, [status(200)]);
    second.see(&newer).await;
    second.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    second.until("the first one's is destroyed", |w| neutralised(w) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_a_fresh_read_does_not_show_either_is_settled_as_lost() {
    let first = one_unknown().await;
    first.ended.cancel();
    let second = first.next_leader();
    let newer = restarted(pod("web-0", IP), 1, 2);
    second.with(|state| state.found.insert("web-0".into(), newer.clone()));
    second.start();
    second.see(&newer).await;
    second.until("counted", |w| w.count(|did| *did == Did::Incident(Incident::FateUnknown)) == 1).await;
    assert_eq!(neutralised(&second), 0);
}

// Claimed, unknown and refused, closed and not: whatever an earlier leader left is settled, without a storm of reads,
// and delays nobody.
#[tokio::test(start_paused = true)]
async fn what_earlier_leaders_left_is_settled_at_a_limited_rate_and_delays_no_delivery() {
    const LEFT: usize = 300;
    let address = |n: usize| format!("10.1.{}.{}", n / 250, n % 250 + 1);
    let first = World::new();
    first.start();
    for n in 0..LEFT {
        // Half of them never answer: they are claimed, and nothing more.
        if n % 2 == 0 {
            first.answers(&address(n), [cut()]);
        }
        first.see(&pod(&format!("left-{n}"), &address(n))).await;
    }
    first.until("all are begun", |w| w.count(|did| *did == Did::Claim) >= LEFT && w.pushes() >= LEFT / 2).await;
    first.pass(1).await;
    first.ended.cancel();
    let second = first.next_leader();
    second.answers("10.9.0.1", [status(200)]);
    second.start();
    let begun = tokio::time::Instant::now();
    second.say(PodEvent::Restarted).await;
    second.say(PodEvent::Synced).await;
    second.see(&pod("web-0", "10.9.0.1")).await;
    second.until("the new one is served", |w| w.announced("SecretIdDelivered") == 1).await;
    let reads = |w: &World| w.count(|did| matches!(did, Did::Read(_)));
    assert!(begun.elapsed().as_millis() < 100, "{:?}", begun.elapsed());
    assert!(reads(&second) < 10, "{} reads", reads(&second));
    second.until("all are read", |w| reads(w) == LEFT).await;
    assert!(begun.elapsed().as_secs() >= 5, "{:?}", begun.elapsed());
    second.pass(1).await;
    assert!(second.with(|state| state.ledger.open().next().is_none()));
}

// The Go init container's 200 leaves earlier attempts open on a closed entry.
#[tokio::test(start_paused = true)]
async fn the_next_leader_settles_what_is_closed_and_still_unsettled() {
    for seen in [true, false] {
        let first = World::new();
        first.answers(IP, [cut(), super::world::bare_200()]);
        first.start();
        first.see(&pod("web-0", IP)).await;
        first.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
        first.ended.cancel();
        first.receiver(IP, Receiver::Silent);
        let second = first.next_leader();
        let end = exited(pod("web-0", IP), 1);
        second.with(|state| state.found.insert("web-0".into(), end.clone()));
        second.start();
        second.say(PodEvent::Restarted).await;
        if seen {
            second.see(&pod("web-0", IP)).await;
            second.see(&end).await;
        }
        second.say(PodEvent::Synced).await;
        second.until("the first is destroyed", |w| neutralised(w) == 1).await;
        second.pass(1).await;
        assert!(second.with(|state| state.ledger.open().next().is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_seen_again_after_it_had_left_is_served_on() {
    let world = one_unknown().await;
    world.with(|state| state.found.insert("web-0".into(), pod("web-0", IP)));
    // A list that lacked it, and its next one that does not.
    world.say(PodEvent::Restarted).await;
    world.say(PodEvent::Synced).await;
    world.until("read", |w| w.count(|did| *did == Did::Read("web-0".into())) == 1).await;
    world.pass(1).await;
    world.answers(IP, [status(200)]);
    world.see(&pod("web-0", IP)).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
}
