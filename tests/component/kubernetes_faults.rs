//! The whole controller before an API server whose answers are broken on their way, or that denies it all it can.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::fake_pods::FakePod;
use testbed::{ControllerPolicy, poll_until};
use tokio::time::Instant;

use crate::api_proxy::ApiProxy;
use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::kubernetes_watch::watcher_kubeconfig;
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_storm_of_ended_watches_is_no_busy_loop_and_loses_no_pod,
    a_pod_that_cannot_be_decoded_hides_no_other,
    the_references_permissions_are_enough_and_missing_ones_are_one_warning,
}

// Bad-input table: EOF storms: no busy loop, no log flood, nothing missed.
async fn a_storm_of_ended_watches_is_no_busy_loop_and_loses_no_pod(world: &World) -> Result<()> {
    let namespace = namespace(world, "storm").await?;
    let proxy = ApiProxy::start(world, None).await?;
    let settings = Settings { kubeconfig: Some(proxy.kubeconfig()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "storm").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    let before = proxy.watches();
    let began = Instant::now();
    proxy.storm(true);
    let checks = async {
        let ended = || async { Ok((proxy.watches() >= before + 8).then_some(())) };
        poll_until("eight further watches", LIMIT, ended).await?;
        ensure!(began.elapsed() >= Duration::from_secs(2), "eight watches within {:?}", began.elapsed());
        pod.run(world).await?;
        proxy.storm(false);
        receiver.wait_for(1).await?;
        pod.event(world, "SecretIdDelivered").await?;
        let lines = controller.log().matches("the watch of pods was interrupted").count();
        ensure!((1..=4).contains(&lines), "{lines} lines about one storm");
        ensure!(world.secret_ids(&pod.role).await?.len() == 1);
        Ok(())
    };
    controller.explain(checks).await
}

// Bad-input table: one undecodable pod.
async fn a_pod_that_cannot_be_decoded_hides_no_other(world: &World) -> Result<()> {
    let namespace = namespace(world, "spoilt").await?;
    let proxy = ApiProxy::start(world, Some((r#""hostNetwork":true"#, r#""hostNetwork":"no""#))).await?;
    // One is in the list, one comes by the watch.
    spoilt(world, &namespace, "listed").await?;
    let settings = Settings { kubeconfig: Some(proxy.kubeconfig()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    spoilt(world, &namespace, "watched").await?;
    let pod = Pod::pending(world, &namespace, "sound").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    let checks = async {
        receiver.wait_for(1).await?;
        pod.event(world, "SecretIdDelivered").await?;
        let met = controller.metric("kubernetesvault_watch_undecodable_pods_total").await?;
        ensure!(met >= 2.0, "{met} pods were counted");
        let log = controller.log();
        ensure!(log.contains("a pod cannot be decoded and is left out") && log.contains("spoilt"), "not told");
        Ok(())
    };
    controller.explain(checks).await
}

// reference-behaviour 7: an unchanged installation may list and watch pods, and ask for secret_ids; nothing else.
async fn the_references_permissions_are_enough_and_missing_ones_are_one_warning(world: &World) -> Result<()> {
    let namespace = namespace(world, "denied").await?;
    let kubeconfig = Some(watcher_kubeconfig(world, &namespace).await?);
    let settings = Settings { kubeconfig, policy: ControllerPolicy::Reference, ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let mut served = Vec::new();
    for index in 0..3 {
        let pod = Pod::pending(world, &namespace, &format!("denied-{index}")).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Closes, Reaction::Takes]).await?;
        pod.run(world).await?;
        served.push((pod, receiver));
    }
    let checks = async {
        for (pod, receiver) in &served {
            receiver.wait_for(2).await?;
            pod.exit(world, 0, &format!("attempt={}", receiver.pushes()[1].attempt())).await?;
        }
        let taken = || async { Ok((controller.log().matches("INFO delivered").count() == 3).then_some(())) };
        poll_until("three deliveries", LIMIT, taken).await?;
        let warned = || async { Ok(controller.log().contains("events.k8s.io").then_some(())) };
        poll_until("a warning about Events", LIMIT, warned).await?;
        let warnings = controller.log().lines().filter(|line| line.contains("events.k8s.io")).count();
        ensure!(warnings == 1, "{warnings} warnings about Events");
        ensure!(served[0].0.events(world).await?.is_empty());
        Ok(())
    };
    controller.explain(checks).await
}

/// A pod whose `hostNetwork` is spoilt on its way to the controller.
pub(crate) async fn spoilt(world: &World, namespace: &str, name: &str) -> Result<()> {
    // Its service account is there once another could be created.
    create(world, &FakePod::plain(namespace, &format!("before-{name}"))).await?;
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"nodeName": testbed::fake_pods::NODE, "hostNetwork": true, "automountServiceAccountToken": false,
                 "containers": [{"name": "app", "image": "simulated"}]},
    }))?;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(world.bed.client(), namespace);
    pods.create(&kube::api::PostParams::default(), &pod).await?;
    Ok(())
}
