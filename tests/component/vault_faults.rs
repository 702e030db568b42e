//! A Vault, or a network before it, that misbehaves: each trouble is told apart, and service resumes by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubernetes_vault::domain::delivery::VaultTrouble;
use kubernetes_vault::vault::State;
use testbed::ControllerPolicy;
use tokio::time::Instant;

use crate::fault_proxy::{Fault, FaultProxy};
use crate::vault_adapter::{Adapter, plain, static_token, trouble};
use crate::world::{World, cases};

cases! { ALL:
    a_vault_that_never_answers_is_a_timeout_within_the_limit,
    a_reset_connection_is_unreachable_and_the_next_request_works,
    a_cut_answer_is_no_answer,
    an_answer_lost_after_creation_is_known_as_possibly_issued,
    a_rate_limit_carries_its_retry_after,
    a_server_error_carries_its_retry_after_and_says_nothing_about_the_role,
    a_standby_is_told_from_a_rate_limit,
    another_host_never_sees_the_token,
    a_wrapping_of_something_else_is_not_used,
    the_start_waits_for_a_vault_that_is_down_and_honours_retry_after,
}

struct Scene {
    proxy: FaultProxy,
    adapter: Adapter,
    role: String,
}

async fn scene(world: &World, stem: &str) -> Result<Scene> {
    let role = world.approle(stem).await?;
    let proxy = FaultProxy::start(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let adapter = Adapter::ready(plain(&proxy.url(), static_token(&token))).await?;
    Ok(Scene { proxy, adapter, role })
}

impl Scene {
    async fn fails_once(&self, fault: Fault) -> Result<VaultTrouble> {
        self.proxy.inject("/secret-id", fault, 1);
        let found = trouble(self.adapter.wrap(&self.role).await?)?;
        let asked = self.proxy.seen("/secret-id").len();
        ensure!(asked == 1, "the adapter retried by itself: {asked} requests");
        Ok(found)
    }

    async fn works(self) -> Result<()> {
        self.adapter.wrap(&self.role).await??;
        self.adapter.until("usable", |state| *state == State::Usable).await?;
        self.adapter.stop().await
    }
}

// Bad-input table: Vault slow (accepts and never answers).
async fn a_vault_that_never_answers_is_a_timeout_within_the_limit(world: &World) -> Result<()> {
    let scene = scene(world, "hang").await?;
    let began = Instant::now();
    let found = scene.fails_once(Fault::Hang).await?;
    ensure!(found == VaultTrouble::TimedOut && found.may_have_issued(), "{found:?}");
    ensure!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    ensure!(matches!(&*scene.adapter.handle.state().borrow(), State::Unavailable(_)));
    scene.works().await
}

// Bad-input table: Vault down.
async fn a_reset_connection_is_unreachable_and_the_next_request_works(world: &World) -> Result<()> {
    let scene = scene(world, "reset").await?;
    let found = scene.fails_once(Fault::Reset).await?;
    ensure!(matches!(found, VaultTrouble::Unreachable(_)) && found.may_have_issued(), "{found:?}");
    ensure!(world.secret_ids(&scene.role).await?.is_empty());
    scene.works().await
}

async fn a_cut_answer_is_no_answer(world: &World) -> Result<()> {
    let scene = scene(world, "cut").await?;
    let found = scene.fails_once(Fault::Truncate).await?;
    ensure!(found.may_have_issued() && !found.concerns_role_alone(), "{found:?}");
    ensure!(world.secret_ids(&scene.role).await?.len() == 1, "Vault had executed it");
    scene.works().await
}

async fn an_answer_lost_after_creation_is_known_as_possibly_issued(world: &World) -> Result<()> {
    let scene = scene(world, "lost").await?;
    let found = scene.fails_once(Fault::LoseAnswer).await?;
    ensure!(matches!(found, VaultTrouble::Unreachable(_)) && found.may_have_issued(), "{found:?}");
    ensure!(world.secret_ids(&scene.role).await?.len() == 1, "Vault had executed it");
    scene.works().await
}

// Bad-input table: 429, Retry-After honoured.
async fn a_rate_limit_carries_its_retry_after(world: &World) -> Result<()> {
    let scene = scene(world, "limited").await?;
    let body = r#"{"errors":["request path \"auth/approle\": rate limit quota exceeded"]}"#;
    let found = scene.fails_once(Fault::Answer(429, vec![("Retry-After", "7".into())], body)).await?;
    let expected = VaultTrouble::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    ensure!(found == expected && !found.concerns_role_alone() && !found.may_have_issued(), "{found:?}");
    scene.works().await
}

// Bad-input table: 5xx.
async fn a_server_error_carries_its_retry_after_and_says_nothing_about_the_role(world: &World) -> Result<()> {
    for (status, body) in [(503, "upstream connect error"), (500, r#"{"errors":["internal error"]}"#), (502, "")] {
        let scene = scene(world, "broken").await?;
        let found = scene.fails_once(Fault::Answer(status, vec![("Retry-After", "3".into())], body)).await?;
        let expected = VaultTrouble::Unavailable { status, retry_after: Some(Duration::from_secs(3)) };
        ensure!(found == expected && !found.concerns_role_alone(), "{found:?}");
        scene.works().await?;
    }
    // What a gateway says of a path is nothing that Vault says of a role.
    let scene = scene(world, "gateway").await?;
    let found = scene.fails_once(Fault::Answer(404, Vec::new(), "<html>not here</html>")).await?;
    ensure!(matches!(found, VaultTrouble::Unavailable { status: 404, .. }), "{found:?}");
    scene.works().await
}

// Bad-input table: standby.
async fn a_standby_is_told_from_a_rate_limit(world: &World) -> Result<()> {
    let scene = scene(world, "standby").await?;
    let found = scene.fails_once(Fault::Answer(473, Vec::new(), "")).await?;
    ensure!(found == VaultTrouble::Standby, "{found:?}");
    scene.works().await
}

// Bad-input table: redirect to another host; the token is never sent to another host.
async fn another_host_never_sees_the_token(world: &World) -> Result<()> {
    let scene = scene(world, "redirected").await?;
    let other = FaultProxy::start(world).await?;
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/v1/auth/approle/role/{}/secret-id", other.url(), scene.role);
        scene.proxy.inject("/secret-id", Fault::Answer(status, vec![("Location", to)], ""), 1);
        let found = trouble(scene.adapter.wrap(&scene.role).await?)?;
        ensure!(matches!(found, VaultTrouble::Redirected(_)), "{status}: {found:?}");
        ensure!(found.to_string().contains(&other.url()), "{found}");
    }
    ensure!(other.seen("").is_empty(), "it was asked: {:?}", other.seen(""));
    ensure!(world.secret_ids(&scene.role).await?.is_empty());
    scene.works().await
}

async fn a_wrapping_of_something_else_is_not_used(world: &World) -> Result<()> {
    let scene = scene(world, "swapped").await?;
    let body = r#"{"wrap_info":{"token":"hvs.not-ours","accessor":"a","ttl":60,
        "creation_time":"2026-01-01T00:00:00Z","creation_path":"auth/approle/role/other/secret-id"}}"#;
    let found = scene.fails_once(Fault::Answer(200, Vec::new(), body)).await?;
    ensure!(matches!(found, VaultTrouble::WrongAnswer(_)), "{found:?}");
    ensure!(!found.to_string().contains("hvs."), "a token is in the message: {found}");
    scene.works().await
}

// Bad-input table: nothing is usable before Vault has answered; service begins by itself.
async fn the_start_waits_for_a_vault_that_is_down_and_honours_retry_after(world: &World) -> Result<()> {
    let proxy = FaultProxy::start(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let role = world.approle("later").await?;
    proxy.inject("/lookup-self", Fault::Reset, 1);
    proxy.inject("/lookup-self", Fault::Answer(503, vec![("Retry-After", "2".into())], ""), 1);
    let began = Instant::now();
    let adapter = Adapter::start(plain(&proxy.url(), static_token(&token)))?;
    let early = trouble(adapter.wrap(&role).await?)?;
    ensure!(matches!(early, VaultTrouble::NotLoggedIn(_)), "{early:?}");
    adapter.until("usable", |state| *state == State::Usable).await?;
    ensure!(began.elapsed() >= Duration::from_secs(2), "Retry-After was not honoured: {:?}", began.elapsed());
    adapter.wrap(&role).await??;
    proxy.heal();
    adapter.stop().await
}
