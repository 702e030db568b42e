//! The leader's view of a pod, as the workflow goes on.

use super::*;
use crate::deliver::fixtures::{pod, running, with_status};
use crate::deliver::ports::PodEvent;
use crate::deliver::tests::world::{Receiver, World, status};
use crate::domain::announcement::Announcement;
use crate::domain::delivery::VaultTrouble;

/// A leader that answers at the desk.
fn leader(world: &World) -> Desk {
    let desk = Desk::default();
    world.start_answering(desk.open());
    desk
}

fn uid(name: &str) -> PodUid {
    pod(name, "10.0.0.1").reference.uid
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_answer_is_seen_waiting_with_its_failures() {
    let world = World::new();
    let desk = leader(&world);
    world.see(&pod("a", "10.0.0.1")).await;
    world.pass(20).await;
    let work = desk.ask(&uid("a")).await.unwrap();
    assert_eq!((work.stage, work.at_work), (Some(Seen::Waiting), false));
    assert!(work.dial_failures > 5, "{work:?}");
    assert!(work.next.is_some_and(|next| next <= Duration::from_secs(5)), "{work:?}");
    assert!(work.seen_for.is_some_and(|seen| seen >= Duration::from_secs(19)), "{work:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_told_with_its_cause_of_one_role_or_of_all() {
    for (trouble, reason) in [(VaultTrouble::UnknownRole, "AppRoleRefused"), (VaultTrouble::Sealed, "VaultUnavailable")]
    {
        let world = World::new();
        world.with(|state| state.trouble.insert("sample-app".to_owned(), trouble.clone()));
        let desk = leader(&world);
        world.answers("10.0.0.1", [status(200)]);
        world.see(&pod("a", "10.0.0.1")).await;
        world.until("a refusal", |world| world.announced(reason) > 0).await;
        let (why, _) = desk.ask(&uid("a")).await.unwrap().gate.unwrap();
        assert_eq!(why.reason(), reason);
        assert!(why.note().contains(&trouble.to_string()), "{why:?}");
        assert!(!matches!(why, Announcement::Delivered { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_hangs_is_under_way_and_one_that_was_taken_is_settled() {
    let world = World::new();
    let desk = leader(&world);
    world.receiver("10.0.0.1", Receiver::Hangs);
    world.answers("10.0.0.2", [status(200)]);
    world.see(&pod("hangs", "10.0.0.1")).await;
    world.see(&pod("takes", "10.0.0.2")).await;
    world.until("two pushes", |world| world.pushes() == 2).await;
    world.until("an outcome", |world| world.announced("SecretIdDelivered") == 1).await;
    assert!(desk.ask(&uid("hangs")).await.unwrap().at_work);
    assert_eq!(desk.ask(&uid("takes")).await.unwrap().stage, Some(Seen::Settled));
}

// Bad-input table: an IP that two pods show.
#[tokio::test(start_paused = true)]
async fn an_address_that_two_pods_show_is_told() {
    let world = World::new();
    let desk = leader(&world);
    let mut other = pod("b", "10.0.0.1");
    other.wish = None;
    world.see(&other).await;
    world.see(&pod("a", "10.0.0.1")).await;
    world.until("told", |world| world.announced("PodAddressShared") > 0).await;
    let work = desk.ask(&uid("a")).await.unwrap();
    assert_eq!(work.address, Some(AddressTaken::Shared("10.0.0.1".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_serves_and_a_leader_that_has_gone_give_no_answer() {
    let world = World::new();
    let desk = leader(&world);
    assert_eq!(desk.ask(&uid("unknown")).await, None);
    let waiting = with_status(pod("a", "10.0.0.1"), running("containerd://a-0"));
    world.see(&waiting).await;
    world.say(PodEvent::Synced).await;
    world.until("a dial", |world| !world.trace().is_empty()).await;
    assert!(desk.ask(&uid("a")).await.is_some());
    world.ended.cancel();
    world.pass(1).await;
    assert_eq!(desk.ask(&uid("a")).await, None, "its rows went with it");
    assert_eq!(Desk::default().ask(&uid("a")).await, None, "nobody ever led");
}
