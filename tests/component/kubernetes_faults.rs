//! The whole controller before an API server whose answers are broken on their way.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::fake_pods::FakePod;
use testbed::poll_until;
use tokio::time::Instant;

use crate::api_proxy::ApiProxy;
use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_storm_of_ended_watches_is_no_busy_loop_and_loses_no_pod,
    a_pod_that_cannot_be_decoded_hides_no_other,
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
        let met = controller.metric("kubernetesvault_watch_undecodable_pods").await?;
        ensure!(met >= 2.0, "{met} pods were counted");
        let log = controller.log();
        ensure!(log.contains("a pod cannot be decoded and is left out") && log.contains("spoilt"), "not told");
        Ok(())
    };
    controller.explain(checks).await
}

/// A pod whose `hostNetwork` is spoilt on its way to the controller.
async fn spoilt(world: &World, namespace: &str, name: &str) -> Result<()> {
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
