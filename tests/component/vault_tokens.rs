//! Which tokens the adapter refuses, with reason and remedy, and how it keeps a good one alive.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::domain::delivery::VaultTrouble;
use kubernetes_vault::vault::Login;
use serde_json::{Value, json};
use testbed::{ControllerPolicy, ROOT_TOKEN, TokenRole, poll_until};

use crate::fault_proxy::FaultProxy;
use crate::vault_adapter::{Adapter, options, plain, static_token, trouble};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_root_token_is_refused,
    a_token_that_is_not_renewable_is_refused,
    a_token_without_a_token_role_is_refused_unless_that_check_is_off,
    a_token_role_with_an_explicit_max_ttl_is_refused,
    a_token_role_without_a_period_is_refused,
    a_token_role_that_cannot_be_read_is_refused,
    a_token_that_vault_does_not_know_is_refused,
    a_token_with_a_short_period_is_renewed,
    a_token_that_is_revoked_is_no_refusal_of_the_role,
}

async fn refused(world: &World, token: &str, words: &[&str]) -> Result<()> {
    let text = Adapter::fatal(options(world, token)?).await?;
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text:?}");
    }
    ensure!(!text.contains(token), "the token is in the message");
    Ok(())
}

pub(crate) async fn created(world: &World, path: &str, body: Value) -> Result<String> {
    let answer = world.vault()?.write(path, &body).await?;
    let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
    Ok(token.context("no token")?.to_owned())
}

/// A token of a token role that is defined as `definition` says.
pub(crate) async fn of_role(world: &World, definition: Value) -> Result<String> {
    let name = world.name("odd");
    let rules = testbed::controller_rules(ControllerPolicy::Ours, "approle", &name);
    world.vault()?.write_policy(&name, &rules).await?;
    world.vault()?.write(&format!("auth/token/roles/{name}"), &definition).await?;
    created(world, &format!("auth/token/create/{name}"), json!({"policies": [name]})).await
}

// Bad-input table: root token.
async fn a_root_token_is_refused(world: &World) -> Result<()> {
    refused(world, ROOT_TOKEN, &["vault.token must not be used", "root token", "vault token create -role"]).await
}

// Bad-input table: non-renewable token.
async fn a_token_that_is_not_renewable_is_refused(world: &World) -> Result<()> {
    let body = json!({"policies": ["default"], "renewable": false, "ttl": "1h"});
    let token = created(world, "auth/token/create", body).await?;
    refused(world, &token, &["not renewable", "renewable=true", "not created from a token role"]).await
}

// Bad-input table: token without role.
async fn a_token_without_a_token_role_is_refused_unless_that_check_is_off(world: &World) -> Result<()> {
    let token = created(world, "auth/token/create", json!({"policies": ["default"], "period": "1h"})).await?;
    refused(world, &token, &["not created from a token role", "vault.skipTokenRoleNameValidation"]).await?;
    let mut options = options(world, &token)?;
    options.login = Login::Token { token: token.as_str().into(), skip_token_role: true };
    Adapter::ready(options).await?.stop().await
}

// Bad-input table: token role with explicit max TTL.
async fn a_token_role_with_an_explicit_max_ttl_is_refused(world: &World) -> Result<()> {
    let token = of_role(world, json!({"period": "1h", "explicit_max_ttl": "2h", "renewable": true})).await?;
    refused(world, &token, &["explicit max TTL", "explicit_max_ttl=0"]).await
}

async fn a_token_role_without_a_period_is_refused(world: &World) -> Result<()> {
    let token = of_role(world, json!({"renewable": true})).await?;
    refused(world, &token, &["has no period", "set period="]).await
}

async fn a_token_role_that_cannot_be_read_is_refused(world: &World) -> Result<()> {
    let name = world.name("hidden");
    let path = format!("auth/token/roles/{name}");
    world.vault()?.write(&path, &json!({"period": "1h", "renewable": true})).await?;
    let token = created(world, &format!("auth/token/create/{name}"), json!({"policies": ["default"]})).await?;
    refused(world, &token, &["cannot be read", "permission denied", &format!("allow read on {path}")]).await
}

async fn a_token_that_vault_does_not_know_is_refused(world: &World) -> Result<()> {
    let unknown = "hvs.this-token-was-never-made";
    refused(world, unknown, &["Vault refuses vault.token", "give a token that is valid"]).await
}

async fn a_token_with_a_short_period_is_renewed(world: &World) -> Result<()> {
    let role = TokenRole { name: world.name("short"), period: "4s".into() };
    let token = world.vault()?.create_controller_token(ControllerPolicy::Ours, &role).await?;
    let approle = world.approle("renewed").await?;
    let adapter = Adapter::ready(options(world, &token)?).await?;
    // Four renewals are twice its period: without them it would be dead by now.
    let renewed = || async { Ok((adapter.meter.renewals.load(Ordering::Relaxed) >= 4).then_some(())) };
    poll_until("four renewals", LIMIT, renewed).await?;
    ensure!(adapter.meter.failed_renewals.load(Ordering::Relaxed) == 0);
    adapter.wrap(&approle).await?.map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    adapter.stop().await
}

async fn a_token_that_is_revoked_is_no_refusal_of_the_role(world: &World) -> Result<()> {
    let proxy = FaultProxy::start(world).await?;
    let (token, role) = (world.token(ControllerPolicy::Ours).await?, world.approle("revoked").await?);
    let adapter = Adapter::ready(plain(&proxy.url(), static_token(&token))).await?;
    world.vault()?.write("auth/token/revoke", &json!({"token": token})).await?;
    let found = trouble(adapter.wrap(&role).await?)?;
    ensure!(matches!(found, VaultTrouble::NotLoggedIn(_)) && !found.concerns_role_alone(), "{found:?}");
    // Nobody asks with a dead token again.
    let asked = proxy.seen("/secret-id").len();
    let found = trouble(adapter.wrap(&role).await?)?;
    ensure!(matches!(found, VaultTrouble::NotLoggedIn(_)), "{found:?}");
    ensure!(proxy.seen("/secret-id").len() == asked, "Vault was asked again");
    adapter.stop().await
}
