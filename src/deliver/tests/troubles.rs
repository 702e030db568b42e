//! Vault, the ledger or a neighbour is in trouble: nothing is lost, nothing is stormed, nobody else waits.

use super::world::{Did, Receiver, World, status};
use crate::deliver::fixtures::pod;
use crate::deliver::ports::Incident;
use crate::domain::delivery::VaultTrouble;

fn address(n: usize) -> String {
    format!("10.0.{}.{}", n / 250, n % 250 + 1)
}

// Bad-input table: Vault sealed. Pods wait, requests do not storm, service resumes by itself.
#[tokio::test(start_paused = true)]
async fn while_vault_is_sealed_pods_wait_and_then_all_are_served() {
    let world = World::new();
    world.with(|state| state.sealed = true);
    world.start();
    for n in 0..200 {
        world.answers(&address(n), [status(200)]);
        world.see(&pod(&format!("web-{n}"), &address(n))).await;
    }
    world.pass(60).await;
    let asked = world.wraps();
    assert!(asked < 200 + 15, "{asked} requests in a minute");
    assert!(world.announced("VaultUnavailable") >= 200);
    world.with(|state| state.sealed = false);
    world.until("all served", |w| w.announced("SecretIdDelivered") == 200).await;
}

// Bad-input table: unknown role. An Event, no retry storm, and others are served.
#[tokio::test(start_paused = true)]
async fn an_unknown_role_is_told_asked_for_slowly_and_holds_up_nobody() {
    let world = World::new();
    world.with(|state| state.trouble.insert("missing".into(), VaultTrouble::UnknownRole));
    world.start();
    for n in 0..50 {
        let mut lost = pod(&format!("lost-{n}"), &address(n));
        lost.wish.as_mut().unwrap().role = Some("missing".into());
        world.answers(&address(n), [status(200)]);
        world.see(&lost).await;
    }
    world.answers("10.9.0.1", [status(200)]);
    world.see(&pod("web-0", "10.9.0.1")).await;
    world.until("the other one is served", |w| w.announced("SecretIdDelivered") == 1).await;
    world.pass(300).await;
    let asked = world.count(|did| *did == Did::Wrap("missing".into()));
    assert!(asked < 50 + 20, "{asked} requests for a role that does not exist");
    assert!(world.announced("AppRoleRefused") >= 50, "each author is told");
    // Once somebody creates it, all are served. (The receivers never exit, so some are served again meanwhile.)
    world.with(|state| state.trouble.clear());
    let first_time = |w: &World| {
        w.announced("SecretIdDelivered") - w.announced("SecretIdDeliveredAgain").min(w.announced("SecretIdDelivered"))
    };
    world.until("all", |w| first_time(w) >= 51).await;
}

// Found by the fault suite (sim, seeds 38 and 56): a leader that goes on leading was the only one who could tell.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_ledger_does_not_take_is_recorded_all_the_same() {
    let world = World::new();
    world.with(|state| state.outcomes_lost = 3);
    world.start();
    world.answers("10.9.0.1", [status(200)]);
    world.see(&pod("web-0", "10.9.0.1")).await;
    world
        .until("it is settled", |w| w.with(|state| !state.ledger.is_empty() && state.ledger.open().next().is_none()))
        .await;
    assert_eq!((world.pushes(), world.wraps()), (1, 1));
}

// Bad-input table: accepts and hangs; other pods are not delayed.
#[tokio::test(start_paused = true)]
async fn receivers_that_hang_delay_nobody_else() {
    let world = World::new();
    world.start();
    for n in 0..500 {
        world.receiver(&address(n), Receiver::Hangs);
        world.see(&pod(&format!("hung-{n}"), &address(n))).await;
    }
    world.until("all hang", |w| w.pushes() == 500).await;
    let before = tokio::time::Instant::now();
    world.answers("10.9.0.1", [status(200)]);
    world.see(&pod("web-0", "10.9.0.1")).await;
    world.until("served", |w| w.announced("SecretIdDelivered") == 1).await;
    assert!(before.elapsed().as_millis() < 1_000);
}

// Invariant 1: no push in a term whose lease has run out; what was issued is put out of the world.
#[tokio::test(start_paused = true)]
async fn without_a_lease_nothing_is_sent_and_the_secret_id_is_neutralised() {
    let world = World::new();
    world.with(|state| state.lease_lost = true);
    world.answers("10.0.0.1", [status(200)]);
    world.start();
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.until("neutralised", |w| w.count(|did| matches!(did, Did::Neutralise(..))) >= 1).await;
    assert_eq!(world.pushes(), 0);
    assert!(world.count(|did| *did == Did::Incident(Incident::NeverSent)) >= 1);
}

// Found by `make bench`: the init container's connection was held for as long as the leader was cut off.
#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_record_what_was_issued_hangs_up_at_once() {
    let world = World::new();
    world.with(|state| state.no_majority = true);
    world.answers("10.0.0.1", [status(200)]);
    world.start();
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.until("issued", |w| w.wraps() == 1).await;
    world.pass(5).await;
    assert_eq!((world.count(|did| matches!(did, Did::HungUp(_))), world.pushes()), (1, 0));
    assert_eq!(world.count(|did| *did == Did::Outcome), 0, "there is still no majority");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_has_grown_old_is_confirmed_before_vault_is_asked() {
    let world = World::new();
    world.start();
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.with(|state| state.lease_lost = true);
    // Longer than a claim counts as fresh, and than two dials are apart.
    world.pass(15).await;
    world.answers("10.0.0.1", [status(200)]);
    world.pass(60).await;
    assert_eq!(world.wraps(), 0);
    world.with(|state| state.lease_lost = false);
    world.until("served", |w| w.announced("SecretIdDelivered") == 1).await;
}

// Bad-input table: an IP that went to another pod.
#[tokio::test(start_paused = true)]
async fn while_two_live_pods_show_one_address_neither_is_served() {
    let world = World::new();
    world.answers("10.0.0.1", [status(200)]);
    world.start();
    let mut stranger = pod("old", "10.0.0.1");
    stranger.wish = None;
    world.see(&stranger).await;
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.until("told", |w| w.announced("PodAddressShared") >= 1).await;
    world.pass(30).await;
    assert_eq!(world.pushes(), 0);
    world.say(crate::deliver::ports::PodEvent::Left(stranger.into())).await;
    world.until("served", |w| w.announced("SecretIdDelivered") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn once_the_leadership_ends_nothing_more_is_claimed() {
    let world = World::new();
    let service = world.start();
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.until("claimed", |w| w.count(|did| *did == Did::Claim) == 1).await;
    world.ended.cancel();
    service.await.unwrap();
    world.answers("10.0.0.1", [status(200)]);
    world.pass(60).await;
    assert_eq!(world.pushes(), 0);
}

// Bad-input table: Vault down or sealed when the controller starts. Nothing is claimed until the checks pass.
#[tokio::test(start_paused = true)]
async fn before_the_token_is_checked_nothing_is_claimed_and_pods_are_told_why() {
    let world = World::new();
    world.with(|state| state.not_logged_in = Some("Vault is sealed; unseal it"));
    world.answers("10.0.0.1", [status(200)]);
    world.start();
    world.see(&pod("web-0", "10.0.0.1")).await;
    world.until("told", |w| w.announced("VaultUnavailable") == 1).await;
    world.pass(60).await;
    assert_eq!(world.count(|did| *did == Did::Claim), 0);
    world.log_in();
    world.until("served", |w| w.announced("SecretIdDelivered") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_costs_its_own_pod_alone() {
    let world = World::new();
    world.receiver("10.0.0.1", Receiver::Panics);
    world.answers("10.0.0.2", [status(200)]);
    world.start();
    world.see(&pod("bad", "10.0.0.1")).await;
    world.until("it died", |w| w.pushes() == 1).await;
    world.see(&pod("good", "10.0.0.2")).await;
    world.until("the other one is served", |w| w.announced("SecretIdDelivered") == 1).await;
    // Its address is free again for whoever gets it next.
    world.say(crate::deliver::ports::PodEvent::Left(pod("bad", "10.0.0.1").into())).await;
    world.answers("10.0.0.1", [status(200)]);
    world.see(&pod("next", "10.0.0.1")).await;
    world.until("its successor too", |w| w.announced("SecretIdDelivered") == 2).await;
}
