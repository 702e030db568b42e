//! Outages of Vault itself. These cases run alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubernetes_vault::domain::delivery::VaultTrouble;
use kubernetes_vault::vault::State;
use testbed::ControllerPolicy;
use tokio::time::Instant;

use crate::vault_adapter::{Adapter, options, trouble};
use crate::world::{World, cases};

cases! { ALONE:
    a_sealed_vault_is_named_and_used_again_once_unsealed,
    a_vault_that_is_sealed_at_the_start_is_waited_for,
    a_paused_vault_is_a_timeout,
}

// Bad-input table: Vault sealed; service resumes by itself.
async fn a_sealed_vault_is_named_and_used_again_once_unsealed(world: &World) -> Result<()> {
    let role = world.approle("sealed").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Ours).await?)?).await?;
    world.vault()?.seal().await?;
    let found = adapter.wrap(&role).await;
    let state = adapter.handle.state().borrow().clone();
    world.vault()?.unseal().await?;
    let found = trouble(found?)?;
    ensure!(found == VaultTrouble::Sealed && !found.may_have_issued(), "{found:?}");
    ensure!(matches!(&state, State::Unavailable(why) if why.contains("unseal it")), "{state:?}");
    // Nobody asks: it is noticed all the same.
    adapter.until("usable again", |state| *state == State::Usable).await?;
    adapter.wrap(&role).await??;
    adapter.stop().await
}

async fn a_vault_that_is_sealed_at_the_start_is_waited_for(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    world.vault()?.seal().await?;
    let adapter = Adapter::start(options(world, &token)?);
    let sealed = match &adapter {
        Ok(adapter) => adapter.until("seen sealed", |s| matches!(s, State::Starting(w) if w.contains("sealed"))).await,
        Err(_) => Ok(()),
    };
    world.vault()?.unseal().await?;
    sealed?;
    let adapter = adapter?;
    adapter.until("usable", |state| *state == State::Usable).await?;
    adapter.stop().await
}

// Bad-input table: Vault slow (accepts and never answers), the process itself.
async fn a_paused_vault_is_a_timeout(world: &World) -> Result<()> {
    let role = world.approle("paused").await?;
    let adapter = Adapter::ready(options(world, &world.token(ControllerPolicy::Ours).await?)?).await?;
    world.vault()?.pause().await?;
    let began = Instant::now();
    let found = adapter.wrap(&role).await;
    let took = began.elapsed();
    world.vault()?.resume().await?;
    let found = trouble(found?)?;
    ensure!(matches!(found, VaultTrouble::TimedOut), "{found:?}");
    ensure!(took < Duration::from_secs(15), "it took {took:?}");
    adapter.wrap(&role).await??;
    adapter.stop().await
}
