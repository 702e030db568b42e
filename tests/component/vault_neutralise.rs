//! Putting a secret_id out of the world, under our policy, under the reference's, and with neither way.

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::deliver::ports::{Neutralised, SecretIssuer as _};
use kubernetes_vault::domain::ids::RoleName;
use kubernetes_vault::domain::ledger::Accessors;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use testbed::ControllerPolicy;

use crate::fault_proxy::{Fault, FaultProxy};
use crate::vault_adapter::{Adapter, options, plain, static_token};
use crate::world::{World, cases};

cases! { ALL:
    under_our_policy_it_is_destroyed,
    what_is_gone_already_counts_as_destroyed,
    under_the_references_policy_its_wrapping_token_is_used_up,
    with_neither_way_it_is_left_to_expire,
    a_destruction_that_fails_falls_back_to_unwrapping,
}

async fn under_our_policy_it_is_destroyed(world: &World) -> Result<()> {
    let role = world.approle("destroyed").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Ours).await?)?).await?;
    let (gone, kept) = (adapter.wrap(&role).await??, adapter.wrap(&role).await??);
    let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &gone.accessors, Some(gone.token)).await;
    ensure!(how == Neutralised::Destroyed, "{how:?}");
    let kept = kept.accessors.secret_id.context("no accessor")?;
    ensure!(world.secret_ids(&role).await? == [&*kept], "another one was destroyed, or none");
    adapter.stop().await
}

async fn what_is_gone_already_counts_as_destroyed(world: &World) -> Result<()> {
    let role = world.approle("gone").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Ours).await?)?).await?;
    let accessors = adapter.wrap(&role).await??.accessors;
    for _ in 0..2 {
        let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &accessors, None).await;
        ensure!(how == Neutralised::Destroyed, "{how:?}");
    }
    let never = Accessors { wrapping: "w".into(), secret_id: Some("00000000-0000-0000-0000-000000000000".into()) };
    let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &never, None).await;
    ensure!(how == Neutralised::Destroyed, "{how:?}");
    adapter.stop().await
}

async fn under_the_references_policy_its_wrapping_token_is_used_up(world: &World) -> Result<()> {
    let role = world.approle("unwrapped").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Reference).await?)?).await?;
    let secret = adapter.wrap(&role).await??;
    let copy = SecretString::from(secret.token.expose_secret());
    let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &secret.accessors, Some(secret.token)).await;
    ensure!(how == Neutralised::Unwrapped, "{how:?}");
    let unwrap = world.vault()?.call(Method::POST, "sys/wrapping/unwrap", Some(copy.expose_secret()), None).await;
    ensure!(unwrap.is_err(), "the secret_id can still be had");
    adapter.stop().await
}

async fn with_neither_way_it_is_left_to_expire(world: &World) -> Result<()> {
    let role = world.approle("left").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Reference).await?)?).await?;
    let secret = adapter.wrap(&role).await??;
    // A leader that took over knows the accessors alone.
    let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &secret.accessors, None).await;
    ensure!(how == Neutralised::LeftToExpire, "{how:?}");
    ensure!(world.secret_ids(&role).await?.len() == 1);
    adapter.stop().await
}

async fn a_destruction_that_fails_falls_back_to_unwrapping(world: &World) -> Result<()> {
    let role = world.approle("fallback").await?;
    let proxy = FaultProxy::start(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let adapter = Adapter::ready(plain(&proxy.url(), static_token(&token))).await?;
    let secret = adapter.wrap(&role).await??;
    proxy.inject("/destroy", Fault::Answer(500, Vec::new(), r#"{"errors":["storage is broken"]}"#), 100);
    let how = adapter.handle.neutralise(&RoleName::parse(&role)?, &secret.accessors, Some(secret.token)).await;
    ensure!(how == Neutralised::Unwrapped, "{how:?}");
    ensure!(!proxy.seen("/destroy").is_empty() && proxy.seen("/destroy").len() <= 3, "no bounded retries");
    adapter.stop().await
}
