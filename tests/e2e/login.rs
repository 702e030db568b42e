//! The controller's own way into Vault: tokens that run out, tokens that are replaced, logins of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::sample;
use super::rollout::ensured;
use super::stage::{Plan, Stage, controller_policy, controller_token};

/// Of the controller's token in the first case.
const PERIOD: &str = "20s";
/// At half of a period: the token would be gone before the third.
const RENEWALS: f64 = 3.0;
/// Between two renewals by the case itself.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Longer than a token of the login below lives at most.
const MAX_TTL: &str = "20s";
const NAME: &str = "kubernetes-vault";

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("a_token_with_a_short_period_is_kept_alive", On::Any, |cluster| renewal(cluster).boxed_local()),
    ("a_token_file_that_changes_is_read_again", On::Testbed, |cluster| token_file(cluster).boxed_local()),
    ("a_service_account_logs_in_and_again", On::Testbed, |cluster| kubernetes(cluster).boxed_local()),
];

async fn renewal(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { period: PERIOD, ..Plan::new("renewal") }).await?;
    // All cases come up at once, and this controller may be up later than its token would live.
    tokio::select! {
        kept = keep_alive(&cluster, &stage.token) => kept.map(|never| match never {})?,
        served = async { stage.pod("before").create().await?.served().await } => served.map(drop)?,
    }
    let renewals = async || -> Result<Option<f64>> {
        Ok(sample(&stage.controller.metrics(&cluster).await?, "kubernetesvault_vault_token_renewal_requests_total"))
    };
    let enough = renewals().await?.unwrap_or_default() + RENEWALS;
    let counted = eventually("third renewal from now on", LIMIT, || async {
        Ok(renewals().await?.filter(|count| *count >= enough))
    });
    stage.blame(counted.await).await?;
    stage.pod("after").create().await?.served().await?;
    let metrics = stage.controller.metrics(&cluster).await?;
    let failures = sample(&metrics, "kubernetesvault_vault_token_renewal_request_failures_total");
    stage.blame(ensured(failures == Some(0.0), format!("{failures:?} renewals failed"))).await
}

/// Renews a token until dropped.
async fn keep_alive(cluster: &Cluster, token: &str) -> Result<Infallible> {
    let mut due = tokio::time::interval(RENEW_EVERY);
    loop {
        due.tick().await;
        cluster.vault.write("auth/token/renew", &json!({"token": token})).await?;
    }
}

/// As an agent beside the controller writes it, on a volume that both mount.
async fn token_file(cluster: Arc<Cluster>) -> Result<()> {
    let mut plan = Plan::new("file");
    let variable = json!({"name": "VAULT_TOKEN", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "token"}}});
    let mount = json!({"name": "token", "mountPath": "/token"});
    plan.vault = json!({"tokenFile": "/token/vault-token"});
    plan.volumes = vec![json!({"name": "token", "emptyDir": {"medium": "Memory"}})];
    plan.mounts = vec![mount.clone()];
    plan.init_containers = vec![json!({
        "name": "agent", "image": "shell:1", "env": [variable], "volumeMounts": [mount],
        "command": ["/bin/sh", "-c", "printf '%s\\n' \"$VAULT_TOKEN\" > /token/vault-token"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    })];
    let stage = Stage::up(&cluster, plan).await?;
    stage.pod("before").create().await?.served().await?;
    let next = controller_token(&cluster, stage.name).await?;
    let pod = stage.controller.pod(&cluster).await?;
    let script = format!("echo {next} > /token/next && mv /token/next /token/vault-token");
    cluster.shell(&stage.controller.namespace, &pod, NAME, &script).await?;
    cluster.vault.write("auth/token/revoke", &json!({"token": stage.token})).await?;
    stage.pod("after").create().await?.served().await?;
    Ok(())
}

async fn kubernetes(cluster: Arc<Cluster>) -> Result<()> {
    let (name, mount) = ("account", "clusters/e2e");
    set_up_login(&cluster, name, mount).await?;
    let mut plan = Plan::new(name);
    plan.vault = json!({"kubernetesAuth": {"mount": mount, "role": NAME}});
    let stage = Stage::up(&cluster, plan).await?;
    stage.pod("before").create().await?.served().await?;
    let first = controllers_tokens(&cluster, mount).await?;
    ensure!(!first.is_empty(), "the controller's token did not come from a login");
    // Its maximum TTL comes: another login, and the old token goes.
    let replaced = eventually("second login", LIMIT, || async {
        let now = controllers_tokens(&cluster, mount).await?;
        Ok((!now.is_empty() && now.iter().all(|accessor| !first.contains(accessor))).then_some(()))
    });
    stage.blame(replaced.await).await?;
    stage.pod("after").create().await?.served().await?;
    Ok(())
}

/// Vault asks the API server about tokens, as an account that may.
async fn set_up_login(cluster: &Cluster, name: &str, mount: &str) -> Result<()> {
    let reviewer = format!("{name}-reviewer");
    cluster.namespace(&reviewer).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": reviewer},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": reviewer}],
    });
    cluster.apply(&binding).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), &reviewer);
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}}))?;
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = token.status.context("a token request without an answer")?.token;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &reviewer);
    let ca = eventually("CA of the cluster", LIMIT, || async {
        let map = maps.get_opt("kube-root-ca.crt").await?;
        Ok(map.and_then(|map| map.data?.remove("ca.crt")))
    })
    .await?;
    let vault = &cluster.vault;
    vault.enable_auth(mount, "kubernetes").await?;
    let config = json!({
        "kubernetes_host": cluster.bed()?.control_plane().url(), "kubernetes_ca_cert": ca,
        "token_reviewer_jwt": token, "disable_local_ca_jwt": true,
    });
    vault.write(&format!("auth/{mount}/config"), &config).await?;
    let role = json!({
        "bound_service_account_names": [NAME], "bound_service_account_namespaces": [format!("{name}-system")],
        "token_policies": [controller_policy(name)], "token_ttl": "10s", "token_max_ttl": MAX_TTL,
        "audience": "https://kubernetes.default.svc",
    });
    vault.write(&format!("auth/{mount}/role/{NAME}"), &role).await.map(drop)
}

/// The accessors of the tokens that came from the login.
async fn controllers_tokens(cluster: &Cluster, mount: &str) -> Result<Vec<String>> {
    cluster.vault.tokens(|data| data["path"] == format!("auth/{mount}/login")).await
}
