//! `explain`, tried on a Vault that misbehaves, and on names and addresses that were used twice.

use anyhow::{Result, ensure};
use testbed::fake_pods;
use testbed::poll_until;

use crate::commands::{DENIED, explained};
use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    each_trouble_with_vault_is_explained,
    a_vault_that_never_was_there_is_explained,
    each_of_two_pods_of_one_name_is_explained_by_itself,
}

// Bad-input table: Vault down, standby, 429, 5xx, slow, redirect to another host. (Sealed: commands.rs.)
async fn each_trouble_with_vault_is_explained(world: &World) -> Result<()> {
    let namespace = namespace(world, "troubled").await?;
    let (proxy, other) = (FaultProxy::start(world).await?, FaultProxy::start(world).await?);
    let settings = Settings { vault: Some(proxy.url()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    // Not before it is logged in: then everything is refused alike.
    poll_until("a login", LIMIT, || async { Ok(controller.log().contains("logged in to Vault").then_some(())) })
        .await?;
    let elsewhere = vec![("Location", format!("{}/v1/x", other.url()))];
    let host = format!("redirects to another host ({})", other.url());
    let own_error = r#"{"errors":["internal error"]}"#;
    let rows = [
        ("down", Fault::Reset, "vaultUnavailable", "Vault cannot be reached"),
        ("standby", Fault::Answer(473, Vec::new(), ""), "vaultUnavailable", "a standby that does not forward"),
        ("limited", Fault::Answer(429, Vec::new(), ""), "vaultUnavailable", "limits the rate of requests"),
        ("broken", Fault::Answer(500, Vec::new(), own_error), "vaultUnavailable", "Vault answers 500"),
        ("moved", Fault::Answer(302, elsewhere, ""), "vaultUnavailable", host.as_str()),
        ("slow", Fault::Hang, "vaultUnavailable", "did not answer in time"),
        // The token is good, so it is this role that is refused.
        ("denied", Fault::Answer(403, Vec::new(), DENIED), "roleRefused", "Vault denies permission"),
    ];
    let last = rows.len() - 1;
    let checks = async {
        for (index, (name, fault, kind, words)) in rows.into_iter().enumerate() {
            proxy.inject("/secret-id", fault, usize::MAX);
            let pod = Pod::pending(world, &namespace, name).await?;
            let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
            pod.run(world).await?;
            let name = format!("{namespace}/{name}");
            explained(&controller, &name, kind, 1, &[words]).await?;
            proxy.heal();
            // A role that was refused is asked for again later than anybody likes to wait here.
            if index < last {
                receiver.wait_for(1).await?;
                explained(&controller, &name, "deliveredStillRuns", 0, &["took its secret_id"]).await?;
            }
        }
        ensure!(other.seen("").is_empty(), "another host was asked");
        Ok(())
    };
    // A row for each fault makes it too large for a stack.
    controller.explain(Box::pin(checks)).await
}

// Bad-input table: Vault down, and with a wrong certificate, from the start on.
async fn a_vault_that_never_was_there_is_explained(world: &World) -> Result<()> {
    let real = world.vault()?.address();
    for (stem, vault, words) in [
        ("nobody", "https://127.0.0.1:1", ["Vault cannot be reached", "refused"]),
        ("unproven", real, ["invalid peer certificate", "UnknownIssuer"]),
    ] {
        let namespace = namespace(world, stem).await?;
        let settings = Settings { vault: Some(vault.to_owned()), ..Settings::default() };
        let controller = Controller::spawn(world, &namespace, settings).await?;
        let pod = Pod::pending(world, &namespace, stem).await?;
        let _receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        let name = format!("{namespace}/{stem}");
        controller.explain(explained(&controller, &name, "vaultUnavailable", 1, &words)).await?;
    }
    Ok(())
}

// Bad-input table: two pods of the same name in two namespaces; a pod deleted and re-created under its name; an IP that
// two pods show, and that went to another pod.
async fn each_of_two_pods_of_one_name_is_explained_by_itself(world: &World) -> Result<()> {
    let stem = world.name("namesakes");
    let (one, two) = (format!("{stem}-one"), format!("{stem}-two"));
    for name in [&one, &two] {
        fake_pods::create_namespace(&world.bed.client(), name).await?;
    }
    let controller = Controller::start(world, &format!("~^{stem}-")).await?;
    let served = Pod::pending(world, &one, "twin").await?;
    let receiver = Receiver::start(served.ip, &[Reaction::Takes]).await?;
    served.run(world).await?;
    let silent = Pod::pending(world, &two, "twin").await?;
    silent.run(world).await?;
    let (one, two) = (format!("{one}/twin"), format!("{two}/twin"));
    let checks = async {
        let attempt = receiver.wait_for(1).await?[0].attempt().to_owned();
        explained(&controller, &one, "deliveredStillRuns", 0, &[&attempt]).await?;
        explained(&controller, &two, "unreachable", 1, &["refused"]).await?;
        fake_pods::delete(&world.bed.client(), &served.fake).await?;
        explained(&controller, &one, "deleted", 1, &[&attempt, "was taken"]).await?;
        // What its namesake got is not its own, also while it shows the other one's address.
        create(world, &served.fake).await?;
        explained(&controller, &one, "initContainerNotStarted", 0, &[]).await?;
        let again = Pod { ip: silent.ip, id: "containerd://again".to_owned(), ..served };
        again.run(world).await?;
        let address = again.ip.to_string();
        explained(&controller, &one, "addressShared", 1, &[&address]).await?;
        explained(&controller, &two, "addressShared", 1, &[&address]).await?;
        fake_pods::delete(&world.bed.client(), &silent.fake).await?;
        let _takes = Receiver::start(again.ip, &[Reaction::Takes]).await?;
        explained(&controller, &one, "deliveredStillRuns", 0, &["took its secret_id"]).await?;
        explained(&controller, &two, "deleted", 1, &["given up before anything was sent"]).await
    };
    controller.explain(checks).await
}
