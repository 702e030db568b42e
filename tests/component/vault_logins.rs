//! The other ways to a token: Kubernetes auth, checked by a real API server, and a file that somebody keeps fresh.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::PostParams;
use kubernetes_vault::vault::{Login, Options};
use serde_json::json;
use testbed::fake_pods::create_namespace;
use testbed::{ControllerPolicy, controller_rules};

use crate::vault_adapter::{Adapter, options};
use crate::world::{World, cases};

cases! { ALL:
    a_service_account_logs_in_and_its_token_is_revoked_at_the_end,
    a_service_account_that_the_role_does_not_allow_is_refused,
    a_token_file_that_changes_is_taken_over,
    a_token_file_is_looked_at_while_its_former_token_still_works,
    a_token_file_with_a_line_break_at_its_end_is_fine,
}

/// Kubernetes auth in the real Vault against the real API server; the options of the service account `name`.
async fn kubernetes_auth(world: &World, namespace: &str, name: &str) -> Result<Options> {
    let (vault, plane) = (world.vault()?, world.bed.control_plane());
    let mount = world.name("kubernetes");
    let client = world.bed.client();
    create_namespace(&client, namespace).await?;
    let reviewer = service_account(world, namespace, "reviewer").await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": format!("{namespace}-reviewer")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": namespace}],
    }))?;
    Api::all(client).create(&PostParams::default(), &binding).await?;
    vault.enable_auth(&mount, "kubernetes").await?;
    let config = json!({
        "kubernetes_host": plane.url(), "kubernetes_ca_cert": plane.ca(), "token_reviewer_jwt": reviewer,
    });
    vault.write(&format!("auth/{mount}/config"), &config).await?;
    let policy = world.name("kubernetes-policy");
    vault.write_policy(&policy, &controller_rules(ControllerPolicy::Ours, "approle", "none")).await?;
    let role = json!({
        "bound_service_account_names": ["kubernetes-vault"], "bound_service_account_namespaces": [namespace],
        "token_policies": [policy], "token_ttl": "1h",
    });
    vault.write(&format!("auth/{mount}/role/controller"), &role).await?;
    let token_path = world.bed.directory().join(world.name("projected"));
    std::fs::write(&token_path, service_account(world, namespace, name).await?)?;
    let mut options = options(world, "unused")?;
    options.login = Login::Kubernetes { mount, role: "controller".to_owned(), token_path };
    Ok(options)
}

async fn service_account(world: &World, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(world.bed.client(), namespace);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let made = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    Ok(made.status.context("no token")?.token)
}

async fn a_service_account_logs_in_and_its_token_is_revoked_at_the_end(world: &World) -> Result<()> {
    let namespace = world.name("login");
    let adapter = Adapter::ready(kubernetes_auth(world, &namespace, "kubernetes-vault").await?).await?;
    adapter.wrap(&world.approle("login").await?).await??;
    let tokens = tokens_of(world, &namespace).await?;
    ensure!(tokens == 1, "{tokens} tokens of this service account");
    adapter.stop().await?;
    ensure!(tokens_of(world, &namespace).await? == 0, "its token was not revoked");
    Ok(())
}

/// How many tokens Vault knows that were made for service accounts of `namespace`.
async fn tokens_of(world: &World, namespace: &str) -> Result<usize> {
    let vault = world.vault()?;
    let mut tokens = 0;
    for accessor in vault.list("auth/token/accessors").await? {
        // A token of another case may go meanwhile.
        let Ok(info) = vault.write("auth/token/lookup-accessor", &json!({"accessor": accessor})).await else {
            continue;
        };
        tokens += usize::from(info["data"]["meta"]["service_account_namespace"] == namespace);
    }
    Ok(tokens)
}

async fn a_service_account_that_the_role_does_not_allow_is_refused(world: &World) -> Result<()> {
    let namespace = world.name("stranger");
    let text = Adapter::fatal(kubernetes_auth(world, &namespace, "stranger").await?).await?;
    ensure!(text.contains("role \"controller\"") && text.contains("bound service account names"), "{text}");
    Ok(())
}

fn token_file(world: &World, content: &str) -> Result<PathBuf> {
    let path = world.bed.directory().join(world.name("token"));
    std::fs::write(&path, content)?;
    Ok(path)
}

async fn a_token_file_that_changes_is_taken_over(world: &World) -> Result<()> {
    let (first, second) = (world.token(ControllerPolicy::Ours).await?, world.token(ControllerPolicy::Ours).await?);
    let path = token_file(world, &first)?;
    let mut options = options(world, "unused")?;
    options.login = Login::File(path.clone());
    let adapter = Adapter::ready(options).await?;
    // A file that is being written, or holds nonsense, changes nothing.
    std::fs::write(&path, "hvs.half-of-a-tok")?;
    let role = world.approle("rotated").await?;
    adapter.wrap(&role).await??;
    std::fs::write(&path, format!("{second}\n"))?;
    // The former one is dead: only its successor can serve. It is noticed by the next request.
    world.vault()?.write("auth/token/revoke", &json!({"token": first})).await?;
    let served = || async { Ok(adapter.wrap(&role).await?.is_ok().then_some(())) };
    testbed::poll_until("a secret_id by the second token", Duration::from_secs(20), served).await?;
    adapter.stop().await
}

/// On a runtime whose time can be moved: the file is looked at twice a minute.
async fn a_token_file_is_looked_at_while_its_former_token_still_works(world: &World) -> Result<()> {
    let (first, second) = (world.token(ControllerPolicy::Ours).await?, world.token(ControllerPolicy::Ours).await?);
    let path = token_file(world, &first)?;
    let mut options = options(world, "unused")?;
    options.login = Login::File(path.clone());
    let role = world.approle("looked-at").await?;
    std::thread::scope(|scope| {
        let own_time = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(rotated(options, &path, &second, &role))
        });
        own_time.join().map_err(|_| anyhow::anyhow!("the case panicked"))?
    })
}

async fn rotated(options: Options, path: &Path, second: &str, role: &str) -> Result<()> {
    let adapter = Adapter::ready(options).await?;
    let grants = |wanted| {
        let meter = adapter.meter.clone();
        let look = move || {
            let granted = meter.grants.load(Ordering::Relaxed) == wanted;
            async move { Ok(granted.then_some(())) }
        };
        testbed::poll_until("another token", Duration::from_secs(20), look)
    };
    grants(1).await?;
    let half_a_minute_passes = || async {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
    };
    // What no Vault knows, and what is no token: the one before it stays in use.
    for nonsense in ["hvs.half-of-a-tok", "", "two\nlines"] {
        std::fs::write(path, nonsense)?;
        half_a_minute_passes().await;
        adapter.wrap(role).await??;
    }
    std::fs::write(path, second)?;
    half_a_minute_passes().await;
    grants(2).await?;
    adapter.stop().await
}

async fn a_token_file_with_a_line_break_at_its_end_is_fine(world: &World) -> Result<()> {
    let path = token_file(world, &format!("  {}\n", world.token(ControllerPolicy::Ours).await?))?;
    let mut options = options(world, "unused")?;
    options.login = Login::File(path);
    Adapter::ready(options).await?.stop().await
}
