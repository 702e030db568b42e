//! How the whole controller starts: refused by Vault for good, or waiting for it.

use anyhow::{Result, ensure};
use testbed::{ROOT_TOKEN, poll_until};

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_token_that_is_refused_ends_the_controller_with_code_1,
    pods_wait_for_a_vault_that_is_down_at_the_start,
}

// Bad-input table: root token: refused at start, naming the reason and the remedy; exit 1.
async fn a_token_that_is_refused_ends_the_controller_with_code_1(world: &World) -> Result<()> {
    for (token, words) in [(ROOT_TOKEN, "root token"), ("hvs.nobody-made-this", "give a token that is valid")] {
        let settings = Settings { token: Some(token.to_owned()), ..Settings::default() };
        let mut controller = Controller::spawn(world, "default", settings).await?;
        let code = controller.exit_code().await?;
        let log = controller.log();
        ensure!(code == Some(1) && log.contains(words), "exit code {code:?}:\n{log}");
        ensure!(!log.contains(token), "the token was logged");
    }
    Ok(())
}

// Bad-input table: Vault down: pods wait, cause in Event, service begins by itself.
async fn pods_wait_for_a_vault_that_is_down_at_the_start(world: &World) -> Result<()> {
    let namespace = namespace(world, "down").await?;
    let proxy = FaultProxy::start(world).await?;
    proxy.inject("", Fault::Reset, usize::MAX);
    let settings = Settings { vault: Some(proxy.url()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "down").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    let checks = async {
        let note = pod.event(world, "VaultUnavailable").await?;
        ensure!(note.contains("The pod waits"), "{note}");
        let told = || async { Ok(controller.log().contains("cannot be reached").then_some(())) };
        poll_until("a line about Vault", LIMIT, told).await?;
        ensure!(receiver.pushes().is_empty());
        proxy.heal();
        receiver.wait_for(1).await?;
        ensure!(proxy.seen("/secret-id").len() == 1);
        pod.event(world, "SecretIdDelivered").await.map(drop)
    };
    controller.explain(checks).await
}
