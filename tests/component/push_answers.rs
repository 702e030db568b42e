//! Every complete answer of an init container, end to end: what the pod's author is told, and what is left in Vault.
//!
//! Bad-input table: init container that answers any status.

use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;
use testbed::ControllerPolicy;

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { ALL:
    a_push_that_is_taken_is_one_secret_id,
    answers_that_end_it_leave_nothing_behind,
    a_receiver_that_was_done_earlier_is_settled,
    answers_that_ask_for_another_try_get_a_fresh_secret_id,
    a_busy_receiver_gets_the_same_attempt_again,
    a_used_wrapping_token_is_a_security_event,
    under_the_references_policy_a_refused_one_cannot_be_had_any_more,
}

async fn a_push_that_is_taken_is_one_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "taken").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "taken").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let push = &receiver.wait_for(1).await?[0];
            let note = pod.event(world, "SecretIdDelivered").await?;
            ensure!(note.contains(push.attempt()), "{note}");
            let message = &push.message;
            ensure!(message["podName"] == "taken" && message["podNamespace"] == namespace.as_str(), "{message}");
            ensure!(world.secret_ids(&pod.role).await?.len() == 1);
            let log = controller.log();
            let token = message["token"].as_str().unwrap_or("no token in the push");
            ensure!(!log.contains(token) && !log.contains("hvs."), "a token was logged");
            Ok(())
        })
        .await
}

async fn answers_that_end_it_leave_nothing_behind(world: &World) -> Result<()> {
    let namespace = namespace(world, "final").await?;
    let controller = Controller::start(world, &namespace).await?;
    let statuses = [201, 204, 299, 302, 400, 404, 405, 412, 418];
    let mut served = Vec::new();
    for status in statuses {
        let pod = Pod::pending(world, &namespace, &format!("final-{status}")).await?;
        let head = if status == 302 { "location: https://10.99.0.1/\r\n" } else { "" };
        let body = if status == 204 { "" } else { "no" };
        let receiver = Receiver::start(pod.ip, &[Reaction::Says(status, head, body)]).await?;
        pod.run(world).await?;
        served.push((status, pod, receiver));
    }
    controller
        .explain(async {
            for (status, pod, receiver) in &served {
                let note = pod.event(world, "PushRefused").await?;
                ensure!(note.contains(&status.to_string()), "{note}");
                world.wait_for_secret_ids(&pod.role, 0).await?;
                ensure!(receiver.pushes().len() == 1, "{status}: pushed {} times", receiver.pushes().len());
            }
            Ok(())
        })
        .await
}

async fn a_receiver_that_was_done_earlier_is_settled(world: &World) -> Result<()> {
    let namespace = namespace(world, "done").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "done").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Says(410, "", "")]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            pod.event(world, "SecretIdDeliveredEarlier").await?;
            world.wait_for_secret_ids(&pod.role, 0).await?;
            ensure!(receiver.pushes().len() == 1);
            Ok(())
        })
        .await
}

async fn answers_that_ask_for_another_try_get_a_fresh_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "again").await?;
    let controller = Controller::start(world, &namespace).await?;
    let mut served = Vec::new();
    for (status, head) in [(500, ""), (503, "retry-after: 3\r\n"), (599, ""), (422, ""), (421, "")] {
        let pod = Pod::pending(world, &namespace, &format!("again-{status}")).await?;
        let script = [Reaction::Says(status, head, "expired: or so"), Reaction::Takes];
        let receiver = Receiver::start(pod.ip, &script).await?;
        pod.run(world).await?;
        served.push((status, pod, receiver));
    }
    controller
        .explain(async {
            for (status, pod, receiver) in &served {
                let pushes = receiver.wait_for(2).await?;
                pod.event(world, "SecretIdDelivered").await?;
                ensure!(pushes[0].attempt() != pushes[1].attempt(), "{status}: the same attempt again");
                ensure!(pushes[0].message["token"] != pushes[1].message["token"], "{status}: the same token again");
                let pause = pushes[1].at - pushes[0].at;
                ensure!(pause >= Duration::from_millis(450), "{status}: again after {pause:?}");
                if *status == 503 {
                    ensure!(pause >= Duration::from_secs(3), "Retry-After was not honoured: {pause:?}");
                }
                if *status != 421 {
                    ensure!(pod.event(world, "SecretIdRetrying").await?.contains(&status.to_string()));
                }
                // The refused one is gone, the accepted one is there.
                world.wait_for_secret_ids(&pod.role, 1).await?;
            }
            Ok(())
        })
        .await
}

async fn a_busy_receiver_gets_the_same_attempt_again(world: &World) -> Result<()> {
    let namespace = namespace(world, "busy").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "busy").await?;
    let busy = Reaction::Says(409, "", "");
    let receiver = Receiver::start(pod.ip, &[busy.clone(), busy, Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let pushes = receiver.wait_for(3).await?;
            pod.event(world, "SecretIdDelivered").await?;
            ensure!(pushes.iter().all(|push| push.message == pushes[0].message), "another attempt");
            ensure!(world.secret_ids(&pod.role).await?.len() == 1);
            Ok(())
        })
        .await
}

// Bad-input table: a used wrapping token says loudly that somebody else may have unwrapped it.
async fn a_used_wrapping_token_is_a_security_event(world: &World) -> Result<()> {
    let namespace = namespace(world, "used").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "used").await?;
    let used = Reaction::Says(422, "", "used: Vault does not know the wrapping token");
    let receiver = Receiver::start(pod.ip, &[used, Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let note = pod.event(world, "WrappingTokenUsedByAnother").await?;
            ensure!(note.contains("SECURITY") && note.contains("audit log"), "{note}");
            receiver.wait_for(2).await?;
            world.wait_for_secret_ids(&pod.role, 1).await?;
            ensure!(controller.log().contains("SECURITY"));
            Ok(())
        })
        .await
}

async fn under_the_references_policy_a_refused_one_cannot_be_had_any_more(world: &World) -> Result<()> {
    let namespace = namespace(world, "reference").await?;
    let settings = Settings { policy: ControllerPolicy::Reference, ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "reference").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Says(400, "", "no")]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            pod.event(world, "PushRefused").await?;
            let token = receiver.pushes()[0].message["token"].as_str().unwrap_or_default().to_owned();
            let gone = || async {
                let body = json!({"token": token});
                let lookup = world.vault()?.call(Method::POST, "sys/wrapping/lookup", None, Some(&body)).await;
                Ok(lookup.is_err().then_some(()))
            };
            testbed::poll_until("the end of the wrapping token", crate::world::LIMIT, gone).await
        })
        .await
}
