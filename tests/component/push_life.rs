//! A delivery from its beginning to its end: addresses that are tried, tokens that run out, and a stop amid a push.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::fake_pods::NODE;
use testbed::poll_until;

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::push_pods::odd_pod;
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_receiver_that_stays_busy_gets_a_fresh_token_before_the_old_one_has_run_out,
    a_push_that_is_under_way_ends_before_the_controller_does,
    the_second_address_is_tried_where_the_first_does_not_answer,
    a_pod_on_its_nodes_network_is_served_and_warned,
    a_sidecar_that_was_restarted_is_told,
}

// reference-behaviour 8: a wrapped token is never sent with too little of its TTL left.
async fn a_receiver_that_stays_busy_gets_a_fresh_token_before_the_old_one_has_run_out(world: &World) -> Result<()> {
    let namespace = namespace(world, "occupied").await?;
    let settings = Settings { wrapping_ttl: "4s", ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "occupied").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Says(409, "", "")]).await?;
    pod.run(world).await?;
    let checks = async {
        let another = || async {
            let pushes = receiver.pushes();
            let first = pushes.first().map(|push| push.attempt().to_owned());
            Ok(pushes.iter().any(|push| Some(push.attempt()) != first.as_deref()).then_some(pushes))
        };
        let pushes = poll_until("a second attempt", LIMIT, another).await?;
        for push in &pushes {
            let begun = pushes.iter().find(|first| first.attempt() == push.attempt()).map_or(push.at, |first| first.at);
            ensure!(push.at - begun <= Duration::from_secs(3), "a token of 4 s was sent after {:?}", push.at - begun);
        }
        Ok(())
    };
    controller.explain(checks).await
}

async fn a_push_that_is_under_way_ends_before_the_controller_does(world: &World) -> Result<()> {
    let namespace = namespace(world, "stops").await?;
    let mut controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "stops").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::TakesAfter(Duration::from_secs(3))]).await?;
    pod.run(world).await?;
    receiver.wait_for(1).await?;
    controller.terminate().await?;
    let code = controller.exit_code().await?;
    let checks = async {
        ensure!(code == Some(0), "exit code {code:?}");
        ensure!(controller.log().contains("INFO delivered"), "the answer was not awaited");
        // Its last Events are written too.
        pod.event(world, "SecretIdDelivered").await?;
        ensure!(receiver.pushes().len() == 1 && world.secret_ids(&pod.role).await?.len() == 1);
        Ok(())
    };
    controller.explain(checks).await
}

async fn the_second_address_is_tried_where_the_first_does_not_answer(world: &World) -> Result<()> {
    let namespace = namespace(world, "dual").await?;
    let controller = Controller::start(world, &namespace).await?;
    Pod::pending(world, &namespace, "first").await?;
    let (role, ip) = (world.approle("odd").await?, world.address());
    let annotations = json!({
        "pod.boostport.com/vault-approle": role, "pod.boostport.com/vault-init-container": "init",
    });
    let mut status = running(&ip.to_string(), 0);
    status["podIP"] = json!("fd00:dead::1");
    status["podIPs"] = json!([{"ip": "fd00:dead::1"}, {"ip": ip}]);
    let receiver = Receiver::start(ip, &[Reaction::Takes]).await?;
    let pod = odd_pod(world, &namespace, "dual", &json!({"/metadata/annotations": annotations}), &status).await?;
    let checks = async {
        receiver.wait_for(1).await?;
        pod.event(world, "SecretIdDelivered").await?;
        ensure!(world.secret_ids(&role).await?.len() == 1);
        Ok(())
    };
    controller.explain(checks).await
}

fn running(ip: &str, restarts: u32) -> serde_json::Value {
    json!({"phase": "Pending", "podIP": ip, "podIPs": [{"ip": ip}], "initContainerStatuses": [{
        "name": "init", "image": "simulated", "imageID": "", "ready": false, "restartCount": restarts,
        "containerID": "containerd://odd", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]})
}

async fn a_pod_on_its_nodes_network_is_served_and_warned(world: &World) -> Result<()> {
    let namespace = namespace(world, "host").await?;
    let controller = Controller::start(world, &namespace).await?;
    Pod::pending(world, &namespace, "first").await?;
    let (role, ip) = (world.approle("odd").await?, world.address());
    let change = json!({
        "/metadata/annotations": {
            "pod.boostport.com/vault-approle": role, "pod.boostport.com/vault-init-container": "init",
        },
        "/spec": {
            "nodeName": NODE, "hostNetwork": true, "automountServiceAccountToken": false,
            "initContainers": [{"name": "init", "image": "simulated"}],
            "containers": [{"name": "app", "image": "simulated"}],
        },
    });
    let receiver = Receiver::start(ip, &[Reaction::Takes]).await?;
    let mut status = running(&ip.to_string(), 0);
    status["hostIP"] = json!(ip);
    status["hostIPs"] = json!([{"ip": ip}]);
    let pod = odd_pod(world, &namespace, "host", &change, &status).await?;
    let checks = async {
        let note = pod.event(world, "HostNetworkPod").await?;
        ensure!(note.contains("50000"), "{note}");
        receiver.wait_for(1).await?;
        pod.event(world, "SecretIdDelivered").await.map(drop)
    };
    controller.explain(checks).await
}

async fn a_sidecar_that_was_restarted_is_told(world: &World) -> Result<()> {
    let namespace = namespace(world, "sidecar").await?;
    let controller = Controller::start(world, &namespace).await?;
    Pod::pending(world, &namespace, "first").await?;
    let ip = world.address();
    let change = json!({"/spec": {
        "nodeName": NODE, "automountServiceAccountToken": false,
        "initContainers": [{"name": "init", "image": "simulated", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "image": "simulated"}],
    }});
    let receiver = Receiver::start(ip, &[Reaction::Takes]).await?;
    let pod = odd_pod(world, &namespace, "sidecar", &change, &running(&ip.to_string(), 1)).await?;
    let checks = async {
        let note = pod.event(world, "SecretIdNotDelivered").await?;
        ensure!(note.contains("first start only"), "{note}");
        ensure!(receiver.pushes().is_empty());
        Ok(())
    };
    controller.explain(checks).await
}
