//! What a wrapped secret_id is made of, as the real Vault shows it, and how a refused role is told.

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::deliver::ports::{Neutralised, SecretIssuer as _};
use kubernetes_vault::domain::delivery::VaultTrouble;
use kubernetes_vault::domain::ids::RoleName;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use testbed::ControllerPolicy;

use crate::fault_proxy::FaultProxy;
use crate::vault_adapter::{Adapter, options, plain, static_token, trouble};
use crate::world::{World, cases};

cases! { ALL:
    a_secret_id_is_wrapped_once_and_names_its_pod,
    an_unknown_role_is_told_and_nothing_else_is_asked,
    roles_with_spaces_and_upper_case_are_served,
    a_name_outside_the_grammar_is_never_asked_for,
    metadata_that_a_policy_refuses_is_left_out_after_one_try,
    a_role_that_the_policy_does_not_cover_is_forbidden,
    a_mount_that_does_not_exist_is_named,
    a_mount_of_several_parts_is_used_for_everything,
}

async fn a_secret_id_is_wrapped_once_and_names_its_pod(world: &World) -> Result<()> {
    let (vault, role) = (world.vault()?, world.approle("wrapped").await?);
    let mut options = options(world, &world.token(ControllerPolicy::Ours).await?)?;
    "90s".clone_into(&mut options.wrapping_ttl);
    let adapter = Adapter::ready(options).await?;
    let secret = adapter.wrap(&role).await??;
    ensure!(secret.ttl_seconds == 90, "wrapped for {} s", secret.ttl_seconds);

    let token = secret.token.expose_secret();
    let wrapping = vault.call(Method::POST, "sys/wrapping/lookup", None, Some(&json!({"token": token}))).await?;
    ensure!(wrapping["data"]["creation_path"] == format!("auth/approle/role/{role}/secret-id"), "{wrapping}");
    ensure!(wrapping["data"]["creation_ttl"] == 90, "{wrapping}");

    let accessor = secret.accessors.secret_id.as_deref().context("no accessor of the secret_id")?;
    ensure!(world.secret_ids(&role).await? == [accessor]);
    let path = format!("auth/approle/role/{role}/secret-id-accessor/lookup");
    let entry = vault.write(&path, &json!({"secret_id_accessor": accessor})).await?;
    let expected = json!({
        "pod": "app-0", "podNamespace": "team", "podUID": "11111111-2222", "serviceAccount": "app",
        "node": "node-1", "attempt": "00ff",
    });
    ensure!(entry["data"]["metadata"] == expected, "{}", entry["data"]["metadata"]);

    let unwrapped = vault.call(Method::POST, "sys/wrapping/unwrap", Some(token), None).await?;
    ensure!(unwrapped["data"]["secret_id_accessor"] == accessor);
    ensure!(unwrapped["data"]["secret_id"].as_str().is_some_and(|id| !id.is_empty()));
    let again = vault.call(Method::POST, "sys/wrapping/unwrap", Some(token), None).await;
    ensure!(again.is_err(), "it could be unwrapped twice");
    adapter.stop().await
}

// Bad-input table: unknown role.
async fn an_unknown_role_is_told_and_nothing_else_is_asked(world: &World) -> Result<()> {
    let proxy = FaultProxy::start(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let adapter = Adapter::ready(plain(&proxy.url(), static_token(&token))).await?;
    let missing = world.name("missing");
    let found = trouble(adapter.wrap(&missing).await?)?;
    ensure!(found == VaultTrouble::UnknownRole, "{found:?}");
    let asked: Vec<String> = proxy.seen("/auth/approle").into_iter().map(|seen| seen.path).collect();
    ensure!(asked == [format!("/v1/auth/approle/role/{missing}/secret-id")], "{asked:?}");
    // A refused role says nothing about Vault: others are served.
    adapter.wrap(&world.approle("known").await?).await??;
    adapter.stop().await
}

async fn roles_with_spaces_and_upper_case_are_served(world: &World) -> Result<()> {
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Ours).await?)?).await?;
    let (number, vault) = (world.number(), world.vault()?);
    for role in [format!("Team.One_{number}"), format!("UPPER-{number}"), format!("dotted.name.{number}")] {
        vault.create_approle("approle", &role, &["default"]).await?;
        adapter.wrap(&role).await?.with_context(|| role.clone())?;
    }
    // Vault's AppRole has no role of a name with a space, whatever its documentation says: told, not served.
    let found = trouble(adapter.wrap(&format!("with space {number}")).await?)?;
    ensure!(found == VaultTrouble::UnknownRole, "{found:?}");
    adapter.stop().await
}

// Bad-input table: role with `../`, `/`, `%2f`, newline, 10 kB, non-ASCII.
async fn a_name_outside_the_grammar_is_never_asked_for(_: &World) -> Result<()> {
    let long = "a".repeat(10_000);
    for name in ["../root", "a/b", "a%2fb", "a\nb", long.as_str(), "rôle", "", ".", ".."] {
        ensure!(RoleName::parse(name).is_err(), "{name:?} was taken");
    }
    Ok(())
}

async fn metadata_that_a_policy_refuses_is_left_out_after_one_try(world: &World) -> Result<()> {
    let (name, role) = (world.name("bare"), world.approle("bare").await?);
    let vault = world.vault()?;
    let rules = format!(
        "path \"auth/approle/role/+/secret-id\" {{ capabilities = [\"update\"] allowed_parameters = {{ \"cidr_list\" = [] }} }}\n\
         path \"auth/token/roles/{name}\" {{ capabilities = [\"read\"] }}"
    );
    vault.write_policy(&name, &rules).await?;
    let definition = json!({"allowed_policies": [name], "period": "1h", "renewable": true, "orphan": true});
    vault.write(&format!("auth/token/roles/{name}"), &definition).await?;
    let token = vault.create_token(&name, &[&name]).await?;
    let proxy = FaultProxy::start(world).await?;
    let adapter = Adapter::ready(plain(&proxy.url(), static_token(&token))).await?;
    for _ in 0..2 {
        adapter.wrap(&role).await??;
    }
    let bodies: Vec<Value> =
        proxy.seen("/secret-id").iter().map(|seen| serde_json::from_str(&seen.body)).collect::<Result<_, _>>()?;
    ensure!(bodies.len() == 3, "asked {} times", bodies.len());
    ensure!(bodies[0]["metadata"].is_string() && bodies[1] == json!({}) && bodies[2] == json!({}), "{bodies:?}");
    ensure!(world.secret_ids(&role).await?.len() == 2);
    adapter.stop().await
}

async fn a_role_that_the_policy_does_not_cover_is_forbidden(world: &World) -> Result<()> {
    let name = world.name("narrow");
    let vault = world.vault()?;
    let rules = format!("path \"auth/token/roles/{name}\" {{ capabilities = [\"read\"] }}");
    vault.write_policy(&name, &rules).await?;
    let definition = json!({"allowed_policies": [name], "period": "1h", "renewable": true});
    vault.write(&format!("auth/token/roles/{name}"), &definition).await?;
    let token = vault.create_token(&name, &[&name]).await?;
    let adapter = Adapter::ready(options(world, &token)?).await?;
    let found = trouble(adapter.wrap(&world.approle("uncovered").await?).await?)?;
    ensure!(matches!(found, VaultTrouble::Forbidden(_)), "{found:?}");
    ensure!(found.to_string().contains("\"update\" on this role's secret-id path"), "{found}");
    adapter.stop().await
}

async fn a_mount_that_does_not_exist_is_named(world: &World) -> Result<()> {
    let name = world.name("elsewhere");
    let vault = world.vault()?;
    let rules = testbed::controller_rules(ControllerPolicy::Ours, "nowhere", &name);
    vault.write_policy(&name, &rules).await?;
    let definition = json!({"allowed_policies": [name], "period": "1h", "renewable": true});
    vault.write(&format!("auth/token/roles/{name}"), &definition).await?;
    let token = vault.create_token(&name, &[&name]).await?;
    let mut options = options(world, &token)?;
    "nowhere".clone_into(&mut options.approle_mount);
    let adapter = Adapter::ready(options).await?;
    let found = trouble(adapter.wrap("any").await?)?.to_string();
    ensure!(found.contains("vault.approleMount"), "{found}");
    adapter.stop().await
}

async fn a_mount_of_several_parts_is_used_for_everything(world: &World) -> Result<()> {
    let (vault, name) = (world.vault()?, world.name("parts"));
    let mount = format!("teams/{name}/approle");
    vault.enable_auth(&mount, "approle").await?;
    vault.create_approle(&mount, "app", &["default"]).await?;
    vault.write_policy(&name, &testbed::controller_rules(ControllerPolicy::Ours, &mount, &name)).await?;
    let definition = json!({"allowed_policies": [name], "period": "1h", "renewable": true});
    vault.write(&format!("auth/token/roles/{name}"), &definition).await?;
    let mut options = options(world, &vault.create_token(&name, &[&name]).await?)?;
    options.approle_mount = format!("{mount}/");
    let adapter = Adapter::ready(options).await?;
    let secret = adapter.wrap("app").await??;
    let listed = format!("auth/{mount}/role/app/secret-id");
    ensure!(vault.list(&listed).await?.len() == 1);
    let how = adapter.handle.neutralise(&RoleName::parse("app")?, &secret.accessors, None).await;
    ensure!(how == Neutralised::Destroyed && vault.list(&listed).await?.is_empty(), "{how:?}");
    adapter.stop().await
}
