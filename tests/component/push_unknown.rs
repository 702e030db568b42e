//! Init containers that do not answer, or not completely: nothing is destroyed while its fate is unknown, and no
//! other pod is delayed.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::controller::{Controller, Pod, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { ALL:
    one_that_hangs_delays_no_other_and_is_tried_again_after_the_limit,
    an_attempt_without_an_answer_is_kept_until_the_exit_says_that_it_was_not_used,
    an_attempt_without_an_answer_is_kept_when_the_exit_says_success,
    the_termination_message_names_the_attempt_that_was_used,
    a_later_attempt_that_is_taken_by_name_refuses_the_earlier_ones,
    a_go_style_200_leaves_the_earlier_ones_unknown,
    a_pod_that_vanishes_without_a_word_keeps_its_secret_id,
    a_pod_that_left_pending_has_taken_its_secret_id,
    one_that_has_taken_a_push_and_still_waits_is_served_once_more,
    an_answer_of_a_gibibyte_is_no_answer,
    one_that_speaks_plain_http_or_refuses_costs_no_secret_id,
}

// Bad-input table: accepts and hangs; other pods are not delayed.
async fn one_that_hangs_delays_no_other_and_is_tried_again_after_the_limit(world: &World) -> Result<()> {
    let namespace = namespace(world, "hangs").await?;
    let controller = Controller::start(world, &namespace).await?;
    let mut hanging = Vec::new();
    for index in 0..3 {
        let pod = Pod::pending(world, &namespace, &format!("hangs-{index}")).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Hangs, Reaction::Takes]).await?;
        pod.run(world).await?;
        hanging.push((pod, receiver));
    }
    controller
        .explain(async {
            for (pod, receiver) in &hanging {
                receiver.wait_for(1).await?;
                // Unknown: kept.
                ensure!(world.secret_ids(&pod.role).await?.len() == 1);
            }
            let quick = Pod::pending(world, &namespace, "quick").await?;
            let receiver = Receiver::start(quick.ip, &[Reaction::Takes]).await?;
            let began = Instant::now();
            quick.run(world).await?;
            receiver.wait_for(1).await?;
            ensure!(began.elapsed() < Duration::from_secs(5), "another pod waited {:?}", began.elapsed());
            for (pod, receiver) in &hanging {
                let pushes = receiver.wait_for(2).await?;
                ensure!(pushes[1].at - pushes[0].at >= Duration::from_secs(30), "the sender did not wait");
                world.wait_for_secret_ids(&pod.role, 1).await?;
            }
            Ok(())
        })
        .await
}

/// A pod whose init container got one push and gave no complete answer; it takes no further one.
async fn unanswered(world: &World, namespace: &str, name: &str, reaction: Reaction) -> Result<(Pod, String)> {
    let pod = Pod::pending(world, namespace, name).await?;
    let receiver = Receiver::start(pod.ip, &[reaction]).await?;
    pod.run(world).await?;
    let attempt = receiver.wait_for(1).await?[0].attempt().to_owned();
    // It is gone before a second attempt: there is nothing to shake hands with any more.
    drop(receiver);
    ensure!(world.secret_ids(&pod.role).await?.len() == 1, "destroyed while its fate was unknown");
    Ok((pod, attempt))
}

// Bad-input table: closes; exits while it answers (without success).
async fn an_attempt_without_an_answer_is_kept_until_the_exit_says_that_it_was_not_used(world: &World) -> Result<()> {
    let namespace = namespace(world, "closes").await?;
    let controller = Controller::start(world, &namespace).await?;
    controller
        .explain(async {
            for (name, reaction) in [("closes", Reaction::Closes), ("cuts", Reaction::Cuts)] {
                let (pod, _) = unanswered(world, &namespace, name, reaction).await?;
                pod.event(world, "SecretIdRetrying").await?;
                ensure!(world.secret_ids(&pod.role).await?.len() == 1, "destroyed while its fate was unknown");
                pod.exit(world, 1, "").await?;
                world.wait_for_secret_ids(&pod.role, 0).await?;
            }
            Ok(())
        })
        .await
}

// Bad-input table: exits while it answers (with success).
async fn an_attempt_without_an_answer_is_kept_when_the_exit_says_success(world: &World) -> Result<()> {
    let namespace = namespace(world, "success").await?;
    let controller = Controller::start(world, &namespace).await?;
    controller
        .explain(async {
            let (pod, _) = unanswered(world, &namespace, "success", Reaction::Closes).await?;
            pod.event(world, "SecretIdRetrying").await?;
            pod.exit(world, 0, "").await?;
            settled(&controller, &pod).await?;
            ensure!(world.secret_ids(&pod.role).await?.len() == 1, "an accepted secret_id was destroyed");
            Ok(())
        })
        .await
}

/// Waits until the end of a pod's init container has settled its attempts.
pub(crate) async fn settled(controller: &Controller, pod: &Pod) -> Result<()> {
    let name = format!("pod={}/{}", pod.fake.namespace, pod.fake.name);
    let told = |line: &str| line.contains("settles its attempts") && line.contains(&name);
    let look = || async { Ok(controller.log().lines().any(told).then_some(())) };
    testbed::poll_until(&format!("the settling of {name}"), crate::world::LIMIT, look).await
}

async fn the_termination_message_names_the_attempt_that_was_used(world: &World) -> Result<()> {
    let namespace = namespace(world, "named").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "named").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Closes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let pushes = receiver.wait_for(2).await?;
            drop(receiver);
            ensure!(world.secret_ids(&pod.role).await?.len() >= 2, "destroyed while its fate was unknown");
            pod.exit(world, 0, &format!("attempt={}", pushes[0].attempt())).await?;
            world.wait_for_secret_ids(&pod.role, 1).await
        })
        .await
}

async fn a_later_attempt_that_is_taken_by_name_refuses_the_earlier_ones(world: &World) -> Result<()> {
    let namespace = namespace(world, "later").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "later").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Closes, Reaction::Cuts, Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            receiver.wait_for(3).await?;
            pod.event(world, "SecretIdDelivered").await?;
            world.wait_for_secret_ids(&pod.role, 1).await
        })
        .await
}

async fn a_go_style_200_leaves_the_earlier_ones_unknown(world: &World) -> Result<()> {
    let namespace = namespace(world, "go").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "go").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Closes, Reaction::Says(200, "", "")]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            receiver.wait_for(2).await?;
            pod.event(world, "SecretIdDelivered").await?;
            ensure!(world.secret_ids(&pod.role).await?.len() == 2, "destroyed while its fate was unknown");
            // It ends without success after all: neither of them was used for good.
            pod.exit(world, 1, "").await?;
            settled(&controller, &pod).await?;
            world.wait_for_secret_ids(&pod.role, 1).await
        })
        .await
}

async fn a_pod_that_vanishes_without_a_word_keeps_its_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "vanishes").await?;
    let controller = Controller::start(world, &namespace).await?;
    controller
        .explain(async {
            let (pod, _) = unanswered(world, &namespace, "vanishes", Reaction::Closes).await?;
            pod.event(world, "SecretIdRetrying").await?;
            testbed::fake_pods::delete(&world.bed.client(), &pod.fake).await?;
            settled(&controller, &pod).await?;
            ensure!(world.secret_ids(&pod.role).await?.len() == 1, "destroyed although it may have been used");
            let counted = controller.metrics().await?;
            ensure!(counted.lines().any(|l| l.contains("fate_unknown") && l.ends_with(" 1")), "{counted}");
            Ok(())
        })
        .await
}

async fn a_pod_that_left_pending_has_taken_its_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "passed").await?;
    let controller = Controller::start(world, &namespace).await?;
    let checks = async {
        let (pod, _) = unanswered(world, &namespace, "passed", Reaction::Closes).await?;
        pod.event(world, "SecretIdRetrying").await?;
        // No status between "running" and this one is seen: it leaves the selection, and is read by name.
        testbed::fake_pods::set_running(&world.bed.client(), &pod.fake, pod.ip, &pod.id).await?;
        settled(&controller, &pod).await?;
        ensure!(world.secret_ids(&pod.role).await?.len() == 1, "an accepted secret_id was destroyed");
        let counted = controller.metric("kubernetesvault_incidents_total{kind=\"fate_unknown\"}").await?;
        ensure!(counted == 0.0, "its fate is known");
        Ok(())
    };
    controller.explain(checks).await
}

async fn one_that_has_taken_a_push_and_still_waits_is_served_once_more(world: &World) -> Result<()> {
    let namespace = namespace(world, "reopened").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "reopened").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    let checks = async {
        let pushes = receiver.wait_for(2).await?;
        ensure!(pushes[1].at - pushes[0].at >= Duration::from_secs(29), "it was not given the time to exit");
        pod.event(world, "SecretIdDeliveredAgain").await.map(drop)
    };
    controller.explain(checks).await
}

// Bad-input table: answers 1 GiB.
async fn an_answer_of_a_gibibyte_is_no_answer(world: &World) -> Result<()> {
    let namespace = namespace(world, "floods").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "floods").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Floods, Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let pushes = receiver.wait_for(2).await?;
            // It was cut off long before it had sent everything.
            ensure!(pushes[1].at - pushes[0].at < Duration::from_secs(20));
            pod.event(world, "SecretIdDelivered").await?;
            world.wait_for_secret_ids(&pod.role, 1).await?;
            let peak = controller.metric("process_resident_memory_bytes").await?;
            ensure!(peak < 200e6, "the controller holds {peak} bytes");
            Ok(())
        })
        .await
}

// Bad-input table: speaks plain HTTP; refuses; accepts and hangs before the handshake.
async fn one_that_speaks_plain_http_or_refuses_costs_no_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "deaf").await?;
    let controller = Controller::start(world, &namespace).await?;
    let mut pods = Vec::new();
    for (name, reaction) in
        [("plain", Some(Reaction::PlainHttp)), ("mute", Some(Reaction::NoHandshake)), ("absent", None)]
    {
        let pod = Pod::pending(world, &namespace, name).await?;
        let receiver = match reaction {
            Some(reaction) => Some(Receiver::start(pod.ip, &[reaction]).await?),
            None => None,
        };
        pod.run(world).await?;
        pods.push((pod, receiver));
    }
    controller
        .explain(async {
            for (pod, _) in &pods {
                let note = pod.event(world, "InitContainerUnreachable").await?;
                ensure!(note.contains(&pod.ip.to_string()) && note.contains("50000"), "{note}");
                ensure!(world.secret_ids(&pod.role).await?.is_empty(), "{}: a secret_id was made", pod.fake.name);
            }
            // None was made and destroyed again either.
            let metrics = controller.metrics().await?;
            ensure!(
                !metrics.contains("kubernetesvault_vault_secret_id_requests_total{"),
                "Vault was asked:\n{metrics}"
            );
            // Once it listens it is served.
            let (pod, receiver) = &mut pods[2];
            *receiver = Some(Receiver::start(pod.ip, &[Reaction::Takes]).await?);
            pod.event(world, "SecretIdDelivered").await?;
            Ok(())
        })
        .await
}
