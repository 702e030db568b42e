//! One attempt and what each answer leads to.

use std::time::Duration;

use super::world::{Did, Receiver, World, bare_200, cut, status};
use crate::deliver::fixtures::{pod, running, with_status};
use crate::deliver::ports::PodEvent;
use crate::domain::delivery::Answer;
use crate::domain::pod::{ContainerState, Termination};

const IP: &str = "10.0.0.1";

async fn served(answers: Vec<Answer>) -> World {
    let world = World::new();
    world.answers(IP, answers);
    world.start();
    world.see(&pod("web-0", IP)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn each_step_waits_for_the_one_before() {
    let world = served(vec![status(200)]).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    let ip = IP.parse().unwrap();
    let steps = vec![
        Did::Claim,
        Did::Dial(ip),
        Did::Wrap("sample-app".into()),
        Did::Issued,
        Did::Push(ip, "token-1".into()),
        Did::HungUp(ip),
        Did::Outcome,
        Did::Delivered,
        Did::Announce("SecretIdDelivered"),
    ];
    assert_eq!(world.trace(), steps);
}

// Defect of the reference: statuses that lag behind make it issue surplus secret_ids. Bench: surplus_secret_ids.
#[tokio::test(start_paused = true)]
async fn a_status_that_lags_behind_costs_no_second_secret_id() {
    let world = served(vec![status(200)]).await;
    world.until("delivered", |w| w.pushes() == 1).await;
    // It has exited: nobody listens, but its status says "running" for 25 s, repeated by each update.
    world.receiver(IP, Receiver::Silent);
    for _ in 0..25 {
        world.see(&pod("web-0", IP)).await;
        world.pass(1).await;
    }
    world.pass(120).await;
    assert_eq!(world.wraps(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_handshake_nothing_is_asked_of_vault() {
    let world = World::new();
    world.start();
    world.see(&pod("web-0", IP)).await;
    world.until("dialled often", |w| w.count(|did| matches!(did, Did::Dial(_))) >= 30).await;
    assert_eq!(world.wraps(), 0);
    assert!(world.announced("InitContainerUnreachable") >= 1);
    // One claim serves all its dials: a pod that does not answer fills no ledger.
    assert_eq!(world.count(|did| *did == Did::Claim), 1);
    world.answers(IP, [status(200)]);
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_receiver_gets_the_same_attempt_again() {
    let world = served(vec![status(409), status(409), status(200)]).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    assert_eq!(world.wraps(), 1);
    assert_eq!(world.pushes(), 3);
}

#[tokio::test(start_paused = true)]
async fn once_a_body_was_sent_no_other_address_of_the_pod_is_tried() {
    let world = World::new();
    let other = "fd00::1".parse().unwrap();
    world.answers(IP, [status(409), status(200)]);
    world.answers("fd00::1", [status(200)]);
    world.start();
    let mut both = pod("web-0", IP);
    both.ips.push(other);
    world.see(&both).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    assert_eq!(world.count(|did| *did == Did::Dial(other)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_neutralised_and_a_fresh_one_follows() {
    for refused in [422, 503, 500, 421] {
        let world = served(vec![status(refused), status(200)]).await;
        world.with(|state| state.found.insert("web-0".into(), pod("web-0", IP)));
        world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
        let neutralised = Did::Neutralise("secret-1".into(), true);
        assert_eq!(world.count(|did| *did == neutralised), 1, "{refused}: {:?}", world.trace());
        assert_eq!(world.wraps(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_token_is_a_security_event() {
    let used = Answer::Complete { status: 422, retry_after: None, named: None, token_used: true, text: "used".into() };
    let world = served(vec![used, status(200)]).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    assert_eq!(world.announced("WrappingTokenUsedByAnother"), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let later = Answer::Complete {
        status: 503,
        retry_after: Some(Duration::from_secs(40)),
        named: None,
        token_used: false,
        text: "".into(),
    };
    let world = served(vec![later, status(200)]).await;
    world.until("refused", |w| w.pushes() == 1).await;
    world.pass(39).await;
    assert_eq!(world.pushes(), 1);
    world.until("pushed again", |w| w.pushes() == 2).await;
}

// Bad-input table: an init container that answers any status.
#[tokio::test(start_paused = true)]
async fn a_final_answer_ends_it_for_this_instance() {
    for last in [400, 404, 405, 412, 301, 204, 418] {
        let world = served(vec![status(last)]).await;
        world.until("refused", |w| w.announced("PushRefused") == 1).await;
        world.pass(600).await;
        assert_eq!(world.pushes(), 1, "{last}");
        assert_eq!(world.count(|did| *did == Did::Neutralise("secret-1".into(), true)), 1);
        // A restart is another instance, and gets its own.
        world.answers(IP, [status(200)]);
        world.see(&with_status(pod("web-0", IP), running("containerd://web-0-1"))).await;
        world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_410_settles_and_its_own_secret_id_is_neutralised() {
    let world = served(vec![status(410)]).await;
    world.until("settled", |w| w.announced("SecretIdDeliveredEarlier") == 1).await;
    assert_eq!(world.count(|did| *did == Did::Neutralise("secret-1".into(), true)), 1);
}

// Bad-input table: closes, hangs, exits while it answers; no secret_id is destroyed while its fate is unknown.
#[tokio::test(start_paused = true)]
async fn an_unknown_attempt_is_never_destroyed_before_its_instance_has_spoken() {
    let world = served(vec![cut(), cut(), status(503), status(503)]).await;
    world.until("three attempts", |w| w.pushes() >= 3).await;
    assert_eq!(
        world.count(|did| matches!(did, Did::Neutralise(name, _) if name == "secret-1" || name == "secret-2")),
        0
    );
    let failed = ContainerState::Terminated(Termination {
        id: Some("containerd://web-0-0".into()),
        exit_code: 1,
        at: None,
        message: None,
    });
    world.receiver(IP, Receiver::Silent);
    world.see(&with_status(pod("web-0", IP), failed)).await;
    for name in ["secret-1", "secret-2"] {
        let neutralised = Did::Neutralise(name.into(), true);
        world.until("refused by its exit", |w| w.count(|did| *did == neutralised) == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn our_200_refuses_the_earlier_unknown_and_a_go_200_does_not() {
    let ours = served(vec![cut(), status(200)]).await;
    ours.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    assert_eq!(ours.count(|did| *did == Did::Neutralise("secret-1".into(), true)), 1);
    let go = served(vec![cut(), bare_200()]).await;
    go.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    assert_eq!(go.count(|did| matches!(did, Did::Neutralise(..))), 0);
}

#[tokio::test(start_paused = true)]
async fn done_but_still_running_is_served_again_only_if_it_answers_a_handshake() {
    let world = served(vec![bare_200()]).await;
    world.until("delivered", |w| w.announced("SecretIdDelivered") == 1).await;
    world.receiver(IP, Receiver::Silent);
    world.pass(100).await;
    assert_eq!(world.wraps(), 1);
    world.answers(IP, [bare_200()]);
    world.until("served again", |w| w.announced("SecretIdDelivered") == 2).await;
    assert_eq!(world.announced("SecretIdDeliveredAgain"), 1);
}

// Bad-input table: two pods of the same name in two namespaces.
#[tokio::test(start_paused = true)]
async fn pods_of_one_name_are_each_served_once() {
    let world = World::new();
    world.start();
    let (one, mut two) = (pod("web-0", "10.0.0.1"), pod("web-0", "10.0.0.2"));
    two.reference.namespace = "other".into();
    two.reference.uid = "another-uid".into();
    world.answers("10.0.0.1", [status(200)]);
    world.answers("10.0.0.2", [status(200)]);
    for _ in 0..3 {
        world.see(&one).await;
        world.see(&two).await;
    }
    world.until("both", |w| w.announced("SecretIdDelivered") == 2).await;
    world.say(PodEvent::Synced).await;
    world.pass(10).await;
    assert_eq!(world.pushes(), 2);
}
