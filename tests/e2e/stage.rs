//! What a case stands on: namespaces, an AppRole with a policy and a secret, a controller with a token.
//!
//! Everything carries the case's name, so that cases do not see each other.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::controller::{Controller, Rbac, Settings};
use super::workload::Workload;

const OURS: &str = include_str!("../../deploy/vault/kubernetes-vault.hcl");
const MINIMAL: &str = include_str!("../../deploy/vault/kubernetes-vault-minimal.hcl");

/// What the controller may do in Vault: one of the policies in `deploy/vault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Ours,
    /// What an installation of the Go version has.
    Reference,
}

/// How a stage differs from the usual one.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// `kubernetes.watchNamespace`; the namespace `name`, as a regular expression, unless set.
    pub(crate) watch: Option<String>,
    pub(crate) rbac: Rbac,
    pub(crate) policy: Policy,
    /// Period of the controller's token.
    pub(crate) period: &'static str,
    pub(crate) mount: &'static str,
    /// Uses of a secret_id; 0, for ever, keeps used ones in Vault's list.
    pub(crate) secret_id_uses: u32,
    /// The section `vault` of the configuration, instead of address and token from the environment.
    pub(crate) vault: Value,
    pub(crate) volumes: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    pub(crate) init_containers: Vec<Value>,
    /// What runs instead of the quick start's Deployment.
    pub(crate) replicas: Option<Vec<Value>>,
    /// The section `raft` of the configuration.
    pub(crate) raft: Value,
    /// The section `prometheus` of the configuration.
    pub(crate) prometheus: Value,
    /// What the controller may do in Vault beside its policy.
    pub(crate) rules: String,
}

impl Plan {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            watch: None,
            rbac: Rbac::Cluster,
            policy: Policy::Ours,
            period: "1h",
            mount: "approle",
            secret_id_uses: 1,
            vault: json!({"token": "$VAULT_TOKEN"}),
            volumes: Vec::new(),
            mounts: Vec::new(),
            init_containers: Vec::new(),
            replicas: None,
            raft: json!({}),
            prometheus: json!({"address": ":9090"}),
            rules: String::new(),
        }
    }
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) cluster: Arc<Cluster>,
    /// Name of the case: of its namespace, its AppRole and its secret.
    pub(crate) name: &'static str,
    pub(crate) mount: &'static str,
    pub(crate) role_id: String,
    pub(crate) controller: Controller,
    /// The controller's Vault token.
    pub(crate) token: String,
}

impl Stage {
    /// Sets up Vault and the namespaces, and applies the controller.
    pub(crate) async fn up(cluster: &Arc<Cluster>, plan: Plan) -> Result<Self> {
        let name = plan.name;
        let role_id = prepare_vault(cluster, &plan).await?;
        let token = controller_token(cluster, name).await?;
        cluster.namespace(name).await?;
        // A plain namespace is served from within: there is a Role in it, and nothing outside.
        let system = if plan.rbac == Rbac::OneNamespace { name.to_owned() } else { format!("{name}-system") };
        cluster.namespace(&system).await?;
        let mut vault = plan.vault;
        vault["addr"] = json!("$VAULT_ADDR");
        if cluster.vault.ca.is_some() && vault.get("tls").is_none() {
            vault["tls"] = json!({"caCert": "/kubernetes-vault/ca.crt"});
        }
        let config = json!({
            "vault": vault,
            "kubernetes": {
                "watchNamespace": plan.watch.unwrap_or_else(|| format!("~^{name}$")),
                "serviceNamespace": system, "service": "kubernetes-vault",
            },
            "raft": plan.raft,
            "prometheus": plan.prometheus,
            "log": {"level": "debug"},
        });
        let settings = Settings {
            namespace: &system,
            rbac: plan.rbac,
            config,
            token: &token,
            volumes: plan.volumes,
            mounts: plan.mounts,
            init_containers: plan.init_containers,
            replicas: plan.replicas,
        };
        let controller = Controller::apply(cluster, &settings).await?;
        Ok(Self { cluster: cluster.clone(), name, mount: plan.mount, role_id, controller, token })
    }

    /// A pod of this case: the sample application with its init container, in the case's namespace.
    pub(crate) fn pod(&self, name: &str) -> Workload<'_> {
        Workload::new(self, name)
    }

    /// Adds what the controller logged to an error.
    pub(crate) async fn blame<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let log = self.controller.logs(&self.cluster).await.unwrap_or_default();
                Err(error.context(format!("the controller's log:\n{}\n", super::cluster::tail(&log))))
            }
        }
    }

    /// The accessors of the secret_ids that the role still has.
    pub(crate) async fn secret_ids(&self) -> Result<Vec<String>> {
        self.cluster.vault.secret_ids(self.mount, self.name).await
    }

    /// One for each secret_id that was used to log in.
    pub(crate) async fn logins(&self) -> Result<Vec<String>> {
        self.cluster.vault.logins(self.mount, self.name).await
    }
}

/// A real kubelet's containers cost something also when nobody looks at them any more. On a testbed they stay, for a
/// look at them.
impl Drop for Stage {
    fn drop(&mut self) {
        if self.cluster.has_log_files() {
            return;
        }
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        let names = [self.name.to_owned(), self.controller.namespace.clone()];
        tokio::spawn(async move {
            for name in names {
                // Both are one where a Role serves its own namespace.
                let _ = namespaces.delete(&name, &DeleteParams::background()).await;
            }
        });
    }
}

/// A token of the case's token role.
pub(crate) async fn controller_token(cluster: &Cluster, name: &str) -> Result<String> {
    let request = json!({"policies": [controller_policy(name)]});
    let answer = cluster.vault.write(&format!("auth/token/create/{}", controller_policy(name)), &request).await?;
    let token = answer["auth"]["client_token"].as_str().context("Vault's answer has no token")?;
    Ok(token.to_owned())
}

/// The name of the controller's policy, and of its token role.
pub(crate) fn controller_policy(name: &str) -> String {
    format!("kubernetes-vault-{name}")
}

/// Returns the role_id.
async fn prepare_vault(cluster: &Cluster, plan: &Plan) -> Result<String> {
    let (vault, name, mount) = (&cluster.vault, plan.name, plan.mount);
    vault.enable_auth(mount, "approle").await?;
    let application = format!("path \"secret/data/{name}/*\" {{ capabilities = [\"read\"] }}");
    vault.write_policy(name, &application).await?;
    vault
        .write(&format!("secret/data/{name}/greeting"), &json!({"data": {"message": format!("hello {name}")}}))
        .await?;
    let role = json!({
        "token_policies": [name], "secret_id_num_uses": plan.secret_id_uses, "secret_id_ttl": "10m", "token_period": "6h",
    });
    vault.write(&format!("auth/{mount}/role/{name}"), &role).await?;
    let rules = if plan.policy == Policy::Ours { OURS } else { MINIMAL };
    let controller = controller_policy(name);
    let rules = rules
        .replace("auth/approle/role/sample-app/", &format!("auth/{mount}/role/{name}/"))
        .replace("auth/token/roles/kubernetes-vault\"", &format!("auth/token/roles/{controller}\""));
    vault.write_policy(&controller, &(rules + &plan.rules)).await?;
    let definition =
        json!({"allowed_policies": [controller], "period": plan.period, "orphan": true, "renewable": true});
    vault.write(&format!("auth/token/roles/{controller}"), &definition).await?;
    let answer = vault.read(&format!("auth/{mount}/role/{name}/role-id")).await?;
    Ok(answer["data"]["role_id"].as_str().context("Vault's answer has no role_id")?.to_owned())
}
