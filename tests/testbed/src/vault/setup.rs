//! What an operator sets up in Vault for us: AppRoles, policies, token roles, secrets.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Vault;

/// Where the KV store (version 2) is mounted.
pub const KV_MOUNT: &str = "secret";

/// What the controller's token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerPolicy {
    /// What an installation of the Go version has: ask for secret_ids, read its token role.
    Reference,
    /// The same, and destroying a secret_id by its accessor.
    Ours,
}

/// A token role for the controller's token.
#[derive(Clone, Debug)]
pub struct TokenRole {
    /// Its name.
    pub name: String,
    /// Period of its tokens, in Vault's grammar.
    pub period: String,
}

impl Default for TokenRole {
    fn default() -> Self {
        Self { name: "kubernetes-vault".into(), period: "6h".into() }
    }
}

impl Vault {
    /// Enables an auth method at a mount. Enabling it twice is no error.
    pub async fn enable_auth(&self, mount: &str, kind: &str) -> Result<()> {
        let mounts = self.read("sys/auth").await?;
        if mounts.get(format!("{mount}/")).is_some() {
            return Ok(());
        }
        self.write(&format!("sys/auth/{mount}"), &json!({"type": kind})).await.map(drop)
    }

    /// Enables AppRole at its usual mount.
    pub async fn enable_approle(&self) -> Result<()> {
        self.enable_auth("approle", "approle").await
    }

    /// Makes an AppRole with these policies; returns its role_id.
    pub async fn create_approle(&self, mount: &str, name: &str, policies: &[&str]) -> Result<String> {
        let path = format!("auth/{mount}/role/{name}");
        let role = json!({"token_policies": policies, "secret_id_num_uses": 1, "token_period": "6h"});
        self.write(&path, &role).await?;
        let answer = self.read(&format!("{path}/role-id")).await?;
        let role_id = answer.pointer("/data/role_id").and_then(Value::as_str);
        Ok(role_id.context("Vault's answer has no role_id")?.to_owned())
    }

    /// All that an application needs: AppRole enabled, a policy to read `secret/<app>/*`, the role of that
    /// name, and a secret at `secret/<app>/greeting`. Returns the role_id.
    pub async fn set_up_app(&self, app: &str) -> Result<String> {
        self.enable_approle().await?;
        let rules = format!("path \"{KV_MOUNT}/data/{app}/*\" {{ capabilities = [\"read\"] }}");
        self.write_policy(app, &rules).await?;
        self.write_secret(&format!("{app}/greeting"), &json!({"message": format!("hello {app}")})).await?;
        self.create_approle("approle", app, &[app]).await
    }

    /// Writes a policy.
    pub async fn write_policy(&self, name: &str, rules: &str) -> Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": rules})).await.map(drop)
    }

    /// Writes a secret to the KV store.
    pub async fn write_secret(&self, path: &str, data: &Value) -> Result<()> {
        self.write(&format!("{KV_MOUNT}/data/{path}"), &json!({"data": data})).await.map(drop)
    }

    /// The controller's policy, token role and a periodic token of it: what `vault.token` wants.
    pub async fn create_controller_token(&self, policy: ControllerPolicy, role: &TokenRole) -> Result<String> {
        self.write_policy(&role.name, &controller_rules(policy, "approle", &role.name)).await?;
        let definition = json!({
            "allowed_policies": [role.name], "period": role.period, "orphan": true, "renewable": true,
        });
        self.write(&format!("auth/token/roles/{}", role.name), &definition).await?;
        self.create_token(&role.name, &[&role.name]).await
    }

    /// A token of a token role.
    pub async fn create_token(&self, role: &str, policies: &[&str]) -> Result<String> {
        let answer = self.write(&format!("auth/token/create/{role}"), &json!({"policies": policies})).await?;
        let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
        Ok(token.context("Vault's answer has no token")?.to_owned())
    }
}

/// The controller's policy for AppRoles at `mount`.
#[must_use]
pub fn controller_rules(policy: ControllerPolicy, mount: &str, token_role: &str) -> String {
    let reference = format!(
        "path \"auth/{mount}/role/+/secret-id\" {{ capabilities = [\"update\"] }}\n\
         path \"auth/token/roles/{token_role}\" {{ capabilities = [\"read\"] }}\n"
    );
    match policy {
        ControllerPolicy::Reference => reference,
        ControllerPolicy::Ours => format!(
            "{reference}path \"auth/{mount}/role/+/secret-id-accessor/destroy\" {{ capabilities = [\"update\"] }}\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_policy_may_destroy() {
        let ours = controller_rules(ControllerPolicy::Ours, "approle", "kv");
        let reference = controller_rules(ControllerPolicy::Reference, "approle", "kv");
        assert!(ours.starts_with(&reference));
        assert!(ours.contains("secret-id-accessor/destroy"));
        assert!(!reference.contains("destroy"));
    }
}
