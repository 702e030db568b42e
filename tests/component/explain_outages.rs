//! `explain`, tried on an API server whose watches end, that forgets where they were, and that is away.

use anyhow::{Context as _, Result};
use testbed::fake_pods::FakePod;
use testbed::poll_until;

use crate::api_proxy::ApiProxy;
use crate::commands::{Printed, explained, program};
use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { BESIDE:
    a_storm_of_ended_watches_is_explained,
}

cases! { ALONE:
    an_api_server_that_is_away_and_one_that_forgot_our_place_are_explained,
}

/// What is said of the watch, where it is not up to date.
async fn trouble(controller: &Controller, pod: &str) -> Result<Option<String>> {
    let arguments = ["explain", "pod", pod, "--output=json"];
    let json = Printed::of(controller.command(program(), &arguments).output().await?)?.json()?;
    let facts = json["facts"].as_array().context("no facts")?;
    let watch = facts.iter().find(|fact| fact["name"] == "watch");
    Ok(watch.and_then(|fact| fact["text"].as_str()).map(str::to_owned))
}

// Bad-input table: EOF storms.
async fn a_storm_of_ended_watches_is_explained(world: &World) -> Result<()> {
    let namespace = namespace(world, "stormy").await?;
    let proxy = ApiProxy::start(world, None).await?;
    let settings = Settings { kubeconfig: Some(proxy.kubeconfig()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "stormy").await?;
    let name = format!("{namespace}/stormy");
    let checks = async {
        explained(&controller, &name, "initContainerNotStarted", 0, &[]).await?;
        proxy.storm(true);
        poll_until("a watch that is told to be in trouble", LIMIT, || async {
            Ok(trouble(&controller, &name).await?.filter(|text| text.starts_with("not up to date: ")))
        })
        .await?;
        let _receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        proxy.storm(false);
        explained(&controller, &name, "deliveredStillRuns", 0, &["took its secret_id"]).await?;
        poll_until("a watch that is well", LIMIT, || async {
            Ok(trouble(&controller, &name).await?.is_none().then_some(()))
        })
        .await
    };
    controller.explain(checks).await
}

// Bad-input table: 410; API server restart.
async fn an_api_server_that_is_away_and_one_that_forgot_our_place_are_explained(world: &World) -> Result<()> {
    let namespace = namespace(world, "away").await?;
    let controller = Controller::start(world, &namespace).await?;
    let before = Pod::pending(world, &namespace, "before").await?;
    let first = Receiver::start(before.ip, &[Reaction::Takes]).await?;
    before.run(world).await?;
    first.wait_for(1).await?;
    let [before, after] = ["before", "after"].map(|pod| format!("{namespace}/{pod}"));
    explained(&controller, &before, "deliveredStillRuns", 0, &[]).await?;
    // What is written elsewhere moves the revision on: our place is older than all that the new server remembers, and
    // is answered 410.
    for index in 0..5 {
        create(world, &FakePod::plain("default", &world.name(&format!("away-{index}")))).await?;
    }
    let plane = world.bed.control_plane();
    plane.kill_api_server().await;
    let told = explained(&controller, &before, "unreadable", 1, &["cannot be read"]).await;
    plane.start_api_server().await?;
    told?;
    let checks = async {
        let pod = Pod::pending(world, &namespace, "after").await?;
        let _second = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        explained(&controller, &after, "deliveredStillRuns", 0, &["took its secret_id"]).await?;
        explained(&controller, &before, "deliveredStillRuns", 0, &["took its secret_id"]).await
    };
    controller.explain(checks).await
}
