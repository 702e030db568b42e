//! Limits: they keep what they promise, waiting costs nothing, and nobody waits for another namespace's crowd.

use std::net::IpAddr;

use super::world::{Did, Receiver, World, status};
use crate::deliver::fixtures::{pod, running, with_status};
use crate::domain::delivery::VaultTrouble;
use crate::domain::limits::{Limit, Limits, Rate};
use crate::domain::pod::{Pod, Target, Termination, Wish};

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250 + 1)
}

fn of(namespace: &str, role: &str, n: usize) -> Pod {
    let mut pod = pod(&format!("{namespace}-{n}"), &address(n));
    pod.reference.namespace = namespace.into();
    if let Some(wish) = &mut pod.wish {
        wish.role = Some(role.into());
    }
    pod
}

/// Not to be met.
fn free() -> Limits {
    let most = Rate::MAX;
    Limits { in_flight: Limits::IN_FLIGHT_MOST, vault: most, role: most, namespace: most }
}

/// Lets time pass, and a little more for what is due at its end.
async fn pass(seconds: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(seconds * 1_000 + 5)).await;
}

/// So many pods that answer, all seen.
async fn crowd(world: &World, namespace: &str, role: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        world.answers(&address(n), [status(200)]);
        world.see(&of(namespace, role, n)).await;
    }
}

fn claims(world: &World) -> usize {
    world.count(|did| *did == Did::Claim)
}

fn limited(world: &World, limit: Limit) -> usize {
    world.count(|did| *did == Did::Limited(limit))
}

// Issue 5, item 6: defaults that a 5,000-pod cluster never notices, even when all of them start at once.
#[tokio::test(start_paused = true)]
async fn five_thousand_pods_of_one_role_at_once_meet_no_default_limit() {
    let world = World::new();
    world.start();
    crowd(&world, "apps", "sample-app", 0..5_000).await;
    pass(1).await;
    assert_eq!(world.announced("SecretIdDelivered"), 5_000);
    assert_eq!(world.count(|did| matches!(did, Did::Limited(_))), 0);
}

#[tokio::test(start_paused = true)]
async fn a_roles_limit_holds_its_pods_back_counts_them_tells_them_and_claims_nothing_for_them() {
    let world = World::within(Limits { role: Rate::per_second(1), ..free() });
    world.start();
    crowd(&world, "apps", "busy", 0..30).await;
    crowd(&world, "apps", "other", 100..120).await;
    pass(0).await;
    assert_eq!((world.announced("SecretIdDelivered"), claims(&world)), (10 + 20 - 10, 20), "a burst of ten a role");
    assert_eq!(limited(&world, Limit::Role), 20 + 10);
    assert_eq!(world.announced("SecretIdDelayed"), 0, "it is early days");
    pass(4).await;
    assert_eq!((claims(&world), world.wraps()), (20 + 2 * 4, 20 + 2 * 4));
    pass(2).await;
    assert_eq!(world.announced("SecretIdDelayed"), 30 - 2 * 5, "those who have waited for five seconds");
    pass(15).await;
    assert_eq!((world.announced("SecretIdDelivered"), world.wraps()), (50, 50));
    assert_eq!(limited(&world, Limit::Role), 30, "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn a_namespaces_limit_holds_back_that_namespace_alone() {
    let world = World::within(Limits { namespace: Rate::per_second(1), ..free() });
    world.start();
    crowd(&world, "many", "r", 0..30).await;
    crowd(&world, "few", "r", 100..105).await;
    pass(0).await;
    assert_eq!(claims(&world), 10 + 5);
    assert_eq!(limited(&world, Limit::Namespace), 20);
    pass(20).await;
    assert_eq!(world.announced("SecretIdDelivered"), 35);
}

// Issue 5, item 6: the queue is fair between namespaces.
#[tokio::test(start_paused = true)]
async fn thousands_of_waiting_pods_do_not_hold_up_another_namespaces_only_one() {
    for limits in [
        Limits { vault: Rate::per_second(1), ..free() },
        // They share the role, too.
        Limits { role: Rate::per_second(1), ..free() },
    ] {
        let world = World::within(limits);
        world.start();
        crowd(&world, "many", "shared", 0..4_000).await;
        pass(5).await;
        let before = claims(&world);
        assert!(before < 20, "{before} claims");
        crowd(&world, "few", "shared", 10_000..10_001).await;
        pass(2).await;
        let few: IpAddr = address(10_000).parse().unwrap();
        assert_eq!(
            world.count(|did| matches!(did, Did::Push(ip, _) if *ip == few)),
            1,
            "its turn came with the second"
        );
        assert_eq!(claims(&world), before + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_are_in_flight_and_who_waits_costs_no_claim() {
    let world = World::within(Limits { in_flight: 3, ..free() });
    world.start();
    for n in 0..5 {
        world.receiver(&address(n), Receiver::Hangs);
        world.see(&of("apps", "r", n)).await;
    }
    pass(20).await;
    assert_eq!((claims(&world), world.pushes(), world.wraps()), (3, 3, 3));
    assert_eq!((limited(&world, Limit::InFlight), world.announced("SecretIdDelayed")), (2, 2));
    // The first three are given up after 30 s.
    pass(11).await;
    assert!(world.pushes() >= 5, "{} pushes", world.pushes());
}

// Found while building it: dials of dead addresses would have used up the tokens of those that answer.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_asked_nothing_of_vault_uses_up_no_limit() {
    let slow = Rate::MIN;
    let world = World::within(Limits { vault: slow, role: slow, namespace: slow, ..free() });
    world.start();
    world.see(&of("apps", "r", 0)).await;
    world.until("dialled", |w| w.count(|did| matches!(did, Did::Dial(_))) >= 5).await;
    crowd(&world, "apps", "r", 1..2).await;
    pass(10).await;
    assert_eq!(world.announced("SecretIdDelivered"), 1);
    // Now the only token of a hundred seconds is gone.
    world.answers(&address(0), [status(200)]);
    pass(60).await;
    assert_eq!(world.wraps(), 1);
    pass(60).await;
    assert_eq!(world.wraps(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_vault_is_sealed_waiting_pods_use_up_no_limit() {
    let world = World::within(Limits { role: Rate::per_second(1), ..free() });
    world.with(|state| state.trouble.insert("r".into(), VaultTrouble::Sealed));
    world.start();
    crowd(&world, "apps", "r", 0..10).await;
    pass(120).await;
    world.with(|state| state.trouble.clear());
    let before = world.wraps();
    world.until("all served", |w| w.announced("SecretIdDelivered") == 10).await;
    assert!(world.wraps() <= before + 10 + 1, "{} requests for ten pods", world.wraps() - before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_left_gives_its_turn_to_the_next() {
    let world = World::within(Limits { role: Rate::MIN, ..free() });
    world.start();
    crowd(&world, "apps", "r", 0..4).await;
    pass(0).await;
    assert_eq!(claims(&world), 1);
    for n in 1..3 {
        world.say(crate::deliver::ports::PodEvent::Left(of("apps", "r", n).into())).await;
    }
    pass(101).await;
    assert_eq!(claims(&world), 2);
    let last: IpAddr = address(3).parse().unwrap();
    assert_eq!(world.count(|did| matches!(did, Did::Push(ip, _) if *ip == last)), 1);
}

fn restarted(number: usize) -> Pod {
    let mut pod = with_status(of("apps", "r", 0), running(&format!("containerd://apps-0-{number}")));
    if let Some(Wish { target: Target::Init { status, .. }, .. }) = &mut pod.wish {
        let id = format!("containerd://apps-0-{}", number - 1);
        status.last = Some(Termination { id: Some(id.as_str().into()), exit_code: 1, at: None, message: None });
    }
    pod
}

// Issue 5, item 6: crash-looping pods are backed off.
#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_each_time_up_to_a_minute_and_delays_no_other_pod() {
    let world = World::within(free());
    world.answers(&address(0), [status(503)]);
    world.start();
    world.see(&of("apps", "r", 0)).await;
    let mut waits = Vec::new();
    for number in 1..=12 {
        world.until("pushed", |w| w.pushes() >= number).await;
        let begun = tokio::time::Instant::now();
        world.see(&restarted(number)).await;
        world.until("pushed again", |w| w.pushes() > number).await;
        waits.push(begun.elapsed().as_secs_f64());
    }
    assert!(waits[0] < 0.1, "the first restart is served at once: {waits:?}");
    // Each wait is between half of its step and the whole of it, and steps double.
    assert!(waits.windows(3).all(|w| w[2] >= w[0]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 60.1) && waits[11] >= 29.0, "{waits:?}");
    assert_eq!(limited(&world, Limit::Pod), 11);
    assert!(world.announced("SecretIdDelayed") >= 4, "those of more than five seconds");
    // Meanwhile it is in nobody's way, and one that starts for the first time does not wait.
    world.see(&restarted(13)).await;
    crowd(&world, "apps", "r", 1..2).await;
    pass(0).await;
    assert_eq!(world.announced("SecretIdDelivered"), 1);
}

// A loop so fast that the watch misses some of its starts.
#[tokio::test(start_paused = true)]
async fn a_start_that_no_status_told_of_does_not_end_a_crash_loop() {
    let world = World::within(free());
    world.answers(&address(0), [status(503)]);
    world.start();
    world.see(&of("apps", "r", 0)).await;
    for number in [1, 2, 3] {
        world.until("pushed", |w| w.pushes() >= number).await;
        world.see(&restarted(number)).await;
    }
    world.until("pushed", |w| w.pushes() >= 4).await;
    let before = limited(&world, Limit::Pod);
    world.see(&restarted(6)).await;
    world.until("backed off", |w| limited(w, Limit::Pod) > before).await;
}
