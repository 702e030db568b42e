//! The whole controller while a server is away: pods wait, are told, and are served once it is back.

use anyhow::{Result, ensure};
use testbed::ControllerPolicy;

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::push_unknown::settled;
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { BESIDE:
    a_vault_that_limits_the_rate_is_waited_for,
    an_answer_that_vault_lost_leaves_one_to_expire_and_serves_the_pod,
    a_redirect_to_another_host_is_told_on_the_pod,
}

cases! { ALONE:
    pods_wait_for_a_sealed_vault_and_are_served_once_it_is_unsealed,
    pods_that_start_while_the_api_server_is_away_are_served,
}

struct Scene {
    proxy: FaultProxy,
    controller: Controller,
    pod: Pod,
    receiver: Receiver,
}

/// A controller behind a proxy, and a pod that waits for its init container to run.
async fn scene(world: &World, stem: &str) -> Result<Scene> {
    let namespace = namespace(world, stem).await?;
    let proxy = FaultProxy::start(world).await?;
    let settings = Settings { vault: Some(proxy.url()), policy: ControllerPolicy::Ours, ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, stem).await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    Ok(Scene { proxy, controller, pod, receiver })
}

// Bad-input table: 429; cause in Event; nothing lost.
async fn a_vault_that_limits_the_rate_is_waited_for(world: &World) -> Result<()> {
    let scene = scene(world, "limited").await?;
    scene.proxy.inject("/secret-id", Fault::Answer(429, vec![("retry-after", "2".into())], "{}"), 2);
    scene.pod.run(world).await?;
    scene
        .controller
        .explain(async {
            let note = scene.pod.event(world, "VaultUnavailable").await?;
            ensure!(note.contains("limits the rate"), "{note}");
            scene.receiver.wait_for(1).await?;
            ensure!(scene.proxy.seen("/secret-id").len() == 3, "asked {} times", scene.proxy.seen("/secret-id").len());
            ensure!(world.secret_ids(&scene.pod.role).await?.len() == 1);
            Ok(())
        })
        .await
}

async fn an_answer_that_vault_lost_leaves_one_to_expire_and_serves_the_pod(world: &World) -> Result<()> {
    let scene = scene(world, "lost-answer").await?;
    scene.proxy.inject("/secret-id", Fault::LoseAnswer, 1);
    scene.pod.run(world).await?;
    scene
        .controller
        .explain(async {
            scene.receiver.wait_for(1).await?;
            scene.pod.event(world, "SecretIdDelivered").await?;
            ensure!(world.secret_ids(&scene.pod.role).await?.len() == 2);
            let metrics = scene.controller.metrics().await?;
            ensure!(metrics.lines().any(|l| l.contains("answer_lost") && l.ends_with(" 1")), "{metrics}");
            Ok(())
        })
        .await
}

// Bad-input table: redirect to another host: the token is never sent there.
async fn a_redirect_to_another_host_is_told_on_the_pod(world: &World) -> Result<()> {
    let scene = scene(world, "redirect").await?;
    let other = FaultProxy::start(world).await?;
    let to = format!("{}/v1/auth/approle/role/{}/secret-id", other.url(), scene.pod.role);
    scene.proxy.inject("/secret-id", Fault::Answer(307, vec![("location", to)], ""), 2);
    scene.pod.run(world).await?;
    scene
        .controller
        .explain(async {
            let note = scene.pod.event(world, "VaultUnavailable").await?;
            ensure!(note.contains("redirects to another host") && note.contains(&other.url()), "{note}");
            scene.receiver.wait_for(1).await?;
            ensure!(other.seen("").is_empty(), "the other host was asked");
            Ok(())
        })
        .await
}

// Bad-input table: Vault sealed: nothing lost, cause in Event, service resumes by itself.
async fn pods_wait_for_a_sealed_vault_and_are_served_once_it_is_unsealed(world: &World) -> Result<()> {
    let namespace = namespace(world, "sealed").await?;
    let controller = Controller::start(world, &namespace).await?;
    let mut pods = Vec::new();
    for index in 0..5 {
        let pod = Pod::pending(world, &namespace, &format!("sealed-{index}")).await?;
        pods.push((Receiver::start(pod.ip, &[Reaction::Takes]).await?, pod));
    }
    world.vault()?.seal().await?;
    let told = async {
        for (_, pod) in &pods {
            pod.run(world).await?;
        }
        for (receiver, pod) in &pods {
            let note = pod.event(world, "VaultUnavailable").await?;
            ensure!(note.contains("sealed"), "{note}");
            ensure!(receiver.pushes().is_empty());
        }
        Ok(())
    };
    let told = controller.explain(told).await;
    world.vault()?.unseal().await?;
    told?;
    controller
        .explain(async {
            for (receiver, pod) in &pods {
                receiver.wait_for(1).await?;
                pod.event(world, "SecretIdDelivered").await?;
                ensure!(world.secret_ids(&pod.role).await?.len() == 1);
            }
            Ok(())
        })
        .await
}

// Bad-input table: API server restart: service continues, nothing missed, no log flood.
async fn pods_that_start_while_the_api_server_is_away_are_served(world: &World) -> Result<()> {
    let namespace = namespace(world, "restart").await?;
    let controller = Controller::start(world, &namespace).await?;
    let before = Pod::pending(world, &namespace, "before").await?;
    let first = Receiver::start(before.ip, &[Reaction::Closes, Reaction::Takes]).await?;
    before.run(world).await?;
    first.wait_for(1).await?;
    // One whose attempt is open, and that goes before the watch is back.
    let gone = Pod::pending(world, &namespace, "gone").await?;
    let third = Receiver::start(gone.ip, &[Reaction::Closes]).await?;
    gone.run(world).await?;
    third.wait_for(1).await?;
    drop(third);
    let plane = world.bed.control_plane();
    plane.kill_api_server().await;
    // A retry needs no API server.
    let during = first.wait_for(2).await;
    plane.start_api_server().await?;
    during?;
    testbed::fake_pods::delete(&world.bed.client(), &gone.fake).await?;
    controller
        .explain(async {
            let after = Pod::pending(world, &namespace, "after").await?;
            let second = Receiver::start(after.ip, &[Reaction::Takes]).await?;
            after.run(world).await?;
            second.wait_for(1).await?;
            after.event(world, "SecretIdDelivered").await?;
            world.wait_for_secret_ids(&before.role, 1).await?;
            settled(&controller, &gone).await?;
            ensure!(world.secret_ids(&gone.role).await?.len() == 1, "destroyed although it may have been used");
            ensure!(first.pushes().len() == 2, "served again after the restart");
            let complaints = controller.log().matches("the watch of pods was interrupted").count();
            ensure!(complaints <= 10, "{complaints} lines about one outage");
            Ok(())
        })
        .await
}
