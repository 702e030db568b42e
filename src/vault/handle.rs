//! What the workflow holds: [`SecretIssuer`] over Vault, and how Vault is.
//!
//! Owns nothing of its own: clones share all.

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderValue;
use secrecy::SecretString;
use tokio::sync::{Semaphore, watch};

use super::memory::Memory;
use super::session::{Session, State};
use super::{neutralise, wrap};
use crate::deliver::ports::{Neutralised, SecretIdRequest, SecretIssuer, VaultAddress, WrappedSecretId};
use crate::domain::delivery::VaultTrouble;
use crate::domain::ids::RoleName;
use crate::domain::ledger::Accessors;

/// What all requests share.
pub(super) struct Shared {
    pub(super) session: Arc<Session>,
    pub(super) mount: String,
    pub(super) namespace: Option<String>,
    pub(super) wrapping_ttl: HeaderValue,
    /// Roles that refuse metadata.
    pub(super) without_metadata: Memory<RoleName, ()>,
    /// Whether we may destroy `secret_id`s of a role.
    pub(super) may_destroy: Memory<RoleName, bool>,
    pub(super) neutralising: Semaphore,
}

/// See the module.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// How Vault is, now and whenever that changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.session.watch()
    }
}

#[async_trait]
impl SecretIssuer for Handle {
    async fn usable(&self) {
        self.shared.session.usable().await;
    }

    fn unusable_because(&self) -> String {
        match &*self.state().borrow() {
            State::Starting(cause) | State::Unavailable(cause) => cause.to_string(),
            State::Usable => String::new(),
        }
    }

    async fn wrap(&self, request: &SecretIdRequest) -> Result<WrappedSecretId, VaultTrouble> {
        wrap::wrap(&self.shared, request).await
    }

    async fn neutralise(&self, role: &RoleName, accessors: &Accessors, token: Option<SecretString>) -> Neutralised {
        neutralise::neutralise(&self.shared, role, accessors, token).await
    }

    fn address(&self) -> Arc<VaultAddress> {
        self.shared.session.address()
    }
}
