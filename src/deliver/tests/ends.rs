//! How instances end, and what a new leader makes of what an earlier one left.

use super::world::{Did, Receiver, World, cut, status};
use crate::deliver::fixtures::{pod, running, with_status};
use crate::deliver::ports::{Incident, PodEvent};
use crate::domain::pod::{ContainerState, Phase, Pod, Target, Termination, Wish};

const IP: &str = "10.0.0.1";

fn exited(pod: Pod, code: i32) -> Pod {
    let id = "containerd://web-0-0".into();
    with_status(pod, ContainerState::Terminated(Termination { id: Some(id), exit_code: code, message: None }))
}

fn restarted(pod: Pod, from: i32, number: usize) -> Pod {
    let before = format!("containerd://web-0-{}", number - 1);
    let mut pod = with_status(pod, running(&format!("containerd://web-0-{number}")));
    if let Some(Wish { target: Target::Init { status, .. }, .. }) = &mut pod.wish {
        status.last = Some(Termination { id: Some(before.as_str().into()), exit_code: from, message: None });
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
    world.say(PodEvent::Left(pod("web-0", IP))).await;
    world.until("read and settled", |w| w.count(|did| *did == Did::Outcome) == 2).await;
    assert_eq!(world.count(|did| *did == Did::Read("web-0".into())), 1);
    assert_eq!(neutralised(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_went_without_a_word_is_counted_and_its_secret_id_kept() {
    let world = one_unknown().await;
    world.say(PodEvent::Left(pod("web-0", IP))).await;
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
    world.say(PodEvent::Left(pod("web-0", IP))).await;
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
    world.say(PodEvent::Left(pod("web-0", IP))).await;
    let mut again = pod("web-0", IP);
    again.reference.uid = "uid-again".into();
    world.see(&again).await;
    world.until("second", |w| w.announced("SecretIdDelivered") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_any_status_in_between_is_another_instance() {
    let world = one_unknown().await;
    world.answers(IP, [status(200)]);
    world.see(&restarted(pod("web-0", IP), 1, 1)).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    world.until("the first one's is destroyed", |w| neutralised(w) == 1).await;
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
