//! A leadership ends: what is under way ends within a bound, and nothing new is begun.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::world::{Did, Receiver, World, status};
use crate::deliver::fixtures::pod;
use crate::domain::limits::{Limits, Rate};

const IP: &str = "10.0.0.1";

/// Longer than any drain may take.
const LIMIT: Duration = Duration::from_secs(60);

/// SIGTERM, or another leader: ends the leadership, and says how long the service went on.
async fn ends_after(world: &World, service: tokio::task::JoinHandle<()>) -> Duration {
    let begun = Instant::now();
    world.ended.cancel();
    timeout(LIMIT, service).await.expect("it ends").unwrap();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_push_that_is_under_way_ends_and_is_recorded() {
    let world = World::new();
    world.receiver(IP, Receiver::TakesAfter(Duration::from_secs(7)));
    let service = world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("pushed", |w| w.pushes() == 1).await;
    let took = ends_after(&world, service).await;
    assert!((6..8).contains(&took.as_secs()), "{took:?}");
    assert_eq!(world.announced("SecretIdDelivered"), 1);
    assert!(world.with(|state| state.ledger.open().next().is_none()), "its outcome is in the ledger");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_holds_up_the_end_for_ten_seconds_at_most() {
    let world = World::new();
    world.receiver(IP, Receiver::Hangs);
    let service = world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("pushed", |w| w.pushes() == 1).await;
    let took = ends_after(&world, service).await;
    assert_eq!(took.as_secs(), 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_limit_is_not_begun_and_does_not_hold_up_the_end() {
    let world = World::within(Limits { vault: Rate::MIN, ..Limits::default() });
    let service = world.start();
    for n in 1..=20 {
        let ip = format!("10.0.0.{n}");
        world.answers(&ip, [status(200)]);
        world.see(&pod(&format!("web-{n}"), &ip)).await;
    }
    world.until("the first is served", |w| w.announced("SecretIdDelivered") == 1).await;
    let took = ends_after(&world, service).await;
    assert!(took.as_secs() < 1, "{took:?}");
    world.pass(300).await;
    assert_eq!((world.count(|did| *did == Did::Claim), world.pushes()), (1, 1));
}
