//! Limits of the whole controller: they are kept, they show, and they are fair.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::fake_pods::{self, FakePod};
use testbed::poll_until;

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_limit_that_holds_pods_back_shows_in_metric_and_event_and_costs_nothing,
    a_namespaces_crowd_does_not_hold_up_the_only_pod_of_another,
    with_as_many_in_flight_as_may_be_nothing_more_is_claimed,
}

/// So many pods of one role that take their push.
async fn crowd(world: &World, namespace: &str, role: &str, pods: usize) -> Result<Vec<(Pod, Receiver)>> {
    let mut crowd = Vec::new();
    for n in 0..pods {
        let pod = Pod::of(world, FakePod::asking_for(namespace, &format!("crowd-{n}"), role), role).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        crowd.push((pod, receiver));
    }
    Ok(crowd)
}

fn served(crowd: &[(Pod, Receiver)]) -> usize {
    crowd.iter().filter(|(_, receiver)| !receiver.pushes().is_empty()).count()
}

async fn wait_for_served(crowd: &[(Pod, Receiver)], count: usize) -> Result<()> {
    let what = format!("{count} served pods");
    poll_until(&what, LIMIT, || async { Ok((served(crowd) >= count).then_some(())) }).await
}

fn with_limits(lines: &str) -> Settings {
    Settings { sections: format!("limits: {{{lines}}}\n"), ..Settings::default() }
}

// Issue 5, item 6. Ten at once, then one in ten seconds.
async fn a_limit_that_holds_pods_back_shows_in_metric_and_event_and_costs_nothing(world: &World) -> Result<()> {
    let namespace = namespace(world, "limited").await?;
    let role = world.approle("limited").await?;
    let controller = Controller::start_with(world, &namespace, with_limits("perRolePerSecond: 0.1")).await?;
    let crowd = crowd(world, &namespace, &role, 3).await?;
    let checks = async {
        wait_for_served(&crowd, 1).await?;
        // Whoever is not served yet waits for its turn.
        let waiting = crowd.iter().find(|(_, receiver)| receiver.pushes().is_empty());
        let Some((waiting, _)) = waiting else { anyhow::bail!("all were served at once") };
        let note = waiting.event(world, "SecretIdDelayed").await?;
        ensure!(note.contains("limits.perRolePerSecond"), "{note}");
        ensure!(controller.metric("kubernetesvault_limited_total{limit=\"role\"}").await? == 2.0);
        ensure!(controller.metric("kubernetesvault_limited_total{limit=\"vault\"}").await? == 0.0);
        let (pushed, issued) = (served(&crowd), world.secret_ids(&role).await?.len());
        ensure!(issued <= pushed + 1, "{issued} secret_ids for {pushed} pushes");
        let claims = controller.metric("kubernetesvault_ledger_entries").await?;
        ensure!(claims <= issued as f64 + 1.0, "{claims} entries in the ledger for {issued} secret_ids");
        wait_for_served(&crowd, 3).await?;
        ensure!(world.secret_ids(&role).await?.len() == 3, "one secret_id a pod");
        Ok(())
    };
    controller.explain(checks).await
}

// Issue 5, item 6: the queue is fair between namespaces, whichever limit makes pods wait.
async fn a_namespaces_crowd_does_not_hold_up_the_only_pod_of_another(world: &World) -> Result<()> {
    let stem = world.name("fair");
    let (many, few) = (format!("{stem}-many"), format!("{stem}-few"));
    for name in [&many, &few] {
        fake_pods::create_namespace(&world.bed.client(), name).await?;
    }
    let role = world.approle("fair").await?;
    let settings = with_limits("vaultRequestsPerSecond: 0.5");
    let controller = Controller::start_with(world, &format!("~^{stem}-"), settings).await?;
    // Five at once, then one in two seconds: the last of them has its turn after a minute.
    let crowd = crowd(world, &many, &role, 30).await?;
    let checks = async {
        let limited = || async {
            let limited = controller.metric("kubernetesvault_limited_total{limit=\"vault\"}").await?;
            Ok((limited >= 5.0).then_some(()))
        };
        poll_until("some that wait", LIMIT, limited).await?;
        let only = Pod::of(world, FakePod::asking_for(&few, "only", &role), &role).await?;
        let receiver = Receiver::start(only.ip, &[Reaction::Takes]).await?;
        let before = served(&crowd);
        only.run(world).await?;
        receiver.wait_for(1).await?;
        let passed_over = served(&crowd) - before;
        // Its own turn, one of the crowd's, and what came before the watch had shown it.
        ensure!(passed_over <= 4, "{passed_over} of the crowd were served before it");
        ensure!(served(&crowd) < 25, "there was no crowd any more");
        Ok(())
    };
    controller.explain(checks).await
}

async fn with_as_many_in_flight_as_may_be_nothing_more_is_claimed(world: &World) -> Result<()> {
    let namespace = namespace(world, "flights").await?;
    let controller = Controller::start_with(world, &namespace, with_limits("inFlight: 1")).await?;
    let slow = Pod::pending(world, &namespace, "slow").await?;
    let hangs = Receiver::start(slow.ip, &[Reaction::TakesAfter(Duration::from_secs(12))]).await?;
    slow.run(world).await?;
    let checks = async {
        hangs.wait_for(1).await?;
        let next = Pod::pending(world, &namespace, "next").await?;
        let receiver = Receiver::start(next.ip, &[Reaction::Takes]).await?;
        next.run(world).await?;
        let note = next.event(world, "SecretIdDelayed").await?;
        ensure!(note.contains("limits.inFlight"), "{note}");
        ensure!(controller.metric("kubernetesvault_limited_total{limit=\"in_flight\"}").await? == 1.0);
        ensure!(world.secret_ids(&next.role).await?.is_empty() && receiver.pushes().is_empty());
        receiver.wait_for(1).await?;
        slow.event(world, "SecretIdDelivered").await?;
        next.event(world, "SecretIdDelivered").await.map(drop)
    };
    controller.explain(checks).await
}
