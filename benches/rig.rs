//! What every section stands on: the testbed, its AppRoles, the two binaries, the namespaces.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kube::Client;
use testbed::{ControlPlaneOptions, ControllerPolicy, Testbed, TokenRole, fake_pods};

/// Each section has pods of its own: a namespace, an AppRole of that name.
pub(crate) const SECTIONS: [&str; 8] =
    ["tokens", "random", "burst", "pending", "failover", "random3", "burst3", "operators"];

pub(crate) struct Rig {
    pub(crate) bed: Testbed,
    pub(crate) client: Client,
    /// The controller's token.
    pub(crate) token: String,
    pub(crate) controller: PathBuf,
    pub(crate) init: PathBuf,
}

impl Rig {
    pub(crate) async fn start() -> Result<Self> {
        let binary = |name: &str| -> Result<PathBuf> {
            let path = std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_file());
            path.with_context(|| format!("{name} must name a binary: start this by `make bench`"))
        };
        let (controller, init) = (binary("KV_CONTROLLER_BIN")?, binary("KV_INIT_BIN")?);
        let audited = ControlPlaneOptions { audit: true, ..ControlPlaneOptions::default() };
        let bed = Testbed::builder().nodes(0).control_plane(audited).start().await?;
        let client = bed.client();
        testbed::fake_node::register(&client).await?;
        let vault = bed.vault()?;
        for section in SECTIONS {
            vault.set_up_app(section).await?;
            fake_pods::create_namespace(&client, section).await?;
        }
        let token = vault.create_controller_token(ControllerPolicy::Ours, &TokenRole::default()).await?;
        Ok(Self { client, token, controller, init, bed })
    }

    /// The `role_id` of a section's AppRole.
    pub(crate) async fn role_id(&self, section: &str) -> Result<String> {
        let answer = self.bed.vault()?.read(&format!("auth/approle/role/{section}/role-id")).await?;
        let id = answer.pointer("/data/role_id").and_then(|id| id.as_str());
        Ok(id.context("Vault's answer has no role_id")?.to_owned())
    }
}
