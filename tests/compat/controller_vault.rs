//! controller-vault.txt: start with a real Vault and a real API server, good and bad, and the end by SIGTERM.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use testbed::ROOT_TOKEN;

use crate::case::Case;
use crate::controller::{Controller, Settings, program};
use crate::vectors::{Section, sections};
use crate::world::World;

/// reference-behaviour, section 4: a single replica must work. The recorded one died because it could not join
/// another one, which the configuration did not ask for.
const ALONE: &str = "a cluster of one needs nobody else";
/// reference-behaviour, section 3: fatal once Vault has answered; ours: unreachable is retried with back-off.
const WAITS: &str = "a Vault that cannot be reached is waited for";
/// reference-behaviour, section 4 again: who the peers are is of no use to a single replica, so that a service
/// without endpoints is a warning.
const NO_ENDPOINTS: &str = "a service without endpoints is a warning";

/// A case for each recorded start.
pub(crate) fn cases() -> Vec<Case> {
    let one = |section: Section| Case::of(section, move |world| check(world, section));
    sections("controller-vault.txt").into_iter().map(one).collect()
}

async fn check(world: &World, section: Section) -> Result<()> {
    let namespace = world.namespace().await?;
    let good = Settings::good(world, &namespace);
    let with_token = |token: String| Settings { token, ..good.clone() };
    let recorded = section.exit_code().context("no recorded exit code")?;
    match section.title {
        // Bad-input table: root token.
        "root token" => refused(world, &with_token(ROOT_TOKEN.to_owned()), &["root token"]).await?,
        "unknown token" => refused(world, &with_token("hvs.unknown".to_owned()), &["permission denied"]).await?,
        // Bad-input table: token without role.
        "token without a token role (ttl 1h)" => {
            let token = token(world, "auth/token/create", &json!({"ttl": "1h", "policies": ["default"]})).await?;
            refused(world, &with_token(token), &["token role", "vault.skipTokenRoleNameValidation"]).await?;
        }
        "same, skipTokenRoleNameValidation: true" => {
            let token = token(world, "auth/token/create", &json!({"ttl": "1h", "policies": ["default"]})).await?;
            let vault_more = "  skipTokenRoleNameValidation: true\n".to_owned();
            works(world, &Settings { vault_more, ..with_token(token) }).await.context(ALONE)?;
            return Ok(());
        }
        // Bad-input table: token role with explicit max TTL.
        "token role not periodic, explicit_max_ttl" => {
            // It may read its role, as the documents say; else the message would be about that.
            let rules = "path \"auth/token/roles/*\" { capabilities = [\"read\"] }";
            world.bed.vault()?.write_policy("kubernetes-vault-roles", rules).await?;
            let role = json!({"allowed_policies": ["kubernetes-vault-roles"], "explicit_max_ttl": "1h"});
            world.bed.vault()?.write("auth/token/roles/not-periodic", &role).await?;
            let policies = json!({"policies": ["kubernetes-vault-roles"]});
            let token = token(world, "auth/token/create/not-periodic", &policies).await?;
            refused(world, &with_token(token), &["explicit_max_ttl", "period"]).await?;
        }
        // Bad-input table: Vault down.
        "Vault refuses connections" => {
            let settings = Settings { vault: "http://127.0.0.1:9".to_owned(), ..good };
            let mut controller = Controller::start(world, &settings, &[])?;
            controller.running.until("Vault is not usable yet; trying again").await.context(WAITS)?;
            controller.running.until("refused").await?;
            controller.terminate().await?.expect(0, &[]).context(WAITS)?;
        }
        "service without endpoints" => {
            let mut controller = Controller::start(world, &Settings { service: "nosuch".to_owned(), ..good }, &[])?;
            controller.running.until("the endpoints of default/nosuch cannot be read").await.context(NO_ENDPOINTS)?;
            controller.running.until("logged in to Vault").await?;
            let ended = controller.terminate().await?;
            ended.expect(0, &["endpoints \"nosuch\" not found"]).context(NO_ENDPOINTS)?;
            ensure!(!ended.err.contains("Status {"), "a data structure instead of words:\n{}", ended.err);
        }
        "no service account mounted" => {
            let directory = tempfile::tempdir()?;
            let yaml = "vault: {addr: 'http://127.0.0.1:9', token: t}\n\
                        kubernetes: {watchNamespace: default, serviceNamespace: default, service: kubernetes}\n";
            std::fs::write(directory.path().join("kubernetes-vault.yml"), yaml)?;
            let environment = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
            let ended = program(&[], &environment, directory.path())?.end().await?;
            ended.expect(1, &["service account token is mounted", "No such file or directory"])?;
        }
        "good, SIGTERM after 15 s" => {
            works(world, &good).await.context(ALONE)?;
            return Ok(());
        }
        "good config, SIGTERM after 16 s" => {
            works(world, &good).await?;
            ensure!(recorded == 0, "recorded as a failure");
            return Ok(());
        }
        "log-level error: nothing printed in 14 s" => {
            silent(world, &good).await?;
            ensure!(recorded == 0, "recorded as a failure");
            return Ok(());
        }
        _ => bail!("no case for this section"),
    }
    ensure!(recorded == 1, "recorded as a success");
    Ok(())
}

/// Refused with exit code 1, for all of these reasons, and without the token in a word of it.
async fn refused(world: &World, settings: &Settings, texts: &[&str]) -> Result<()> {
    let ended = Controller::start(world, settings, &[])?.running.end().await?;
    ended.expect(1, texts)?;
    ensure!(!ended.printed().contains(&settings.token), "the token got out:\n{}", ended.printed());
    Ok(())
}

/// Starts, takes up work, and ends by SIGTERM with exit code 0.
async fn works(world: &World, settings: &Settings) -> Result<()> {
    let controller = Controller::at_work(world, settings).await?;
    controller.ready(world).await?;
    let ended = controller.terminate().await?;
    ended.expect(0, &[])?;
    ensure!(!ended.printed().contains(&settings.token), "the token got out:\n{}", ended.printed());
    Ok(())
}

/// The same, at log level error: not a word.
async fn silent(world: &World, settings: &Settings) -> Result<()> {
    let controller = Controller::start(world, settings, &["--log-level", "error"])?;
    controller.ready(world).await?;
    controller.metrics_with(world, "kubernetesvault_vault_usable 1").await?;
    let ended = controller.terminate().await?;
    ended.expect(0, &[])?;
    ensure!(ended.printed().is_empty(), "it is not silent:\n{}", ended.printed());
    Ok(())
}

async fn token(world: &World, path: &str, request: &Value) -> Result<String> {
    let answer = world.bed.vault()?.write(path, request).await?;
    Ok(answer.pointer("/auth/client_token").and_then(Value::as_str).context("no token")?.to_owned())
}
