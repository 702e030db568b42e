//! From the configuration to what adapters are given.
//!
//! Owns nothing but translations.

use std::sync::Arc;

use crate::config::{Config, Login, VaultRoots, WatchNamespace};
use crate::domain::handover;
use crate::k8s::watch::NamespaceFilter;
use crate::vault;

pub(super) fn namespaces(watch: &WatchNamespace) -> NamespaceFilter {
    match watch.exact() {
        Some(name) => NamespaceFilter::One(name.into()),
        None => {
            let watch = watch.clone();
            NamespaceFilter::Matching(Arc::new(move |namespace| watch.matches(namespace)))
        }
    }
}

/// The variable by which other programs are told of public roots, too.
const PUBLIC_ROOTS: &str = "SSL_CERT_FILE";

pub(super) fn vault_options(config: &Config) -> vault::Options {
    let vault = &config.vault;
    let login = match &vault.login {
        Login::Token(token) => {
            vault::Login::Token { token: token.clone(), skip_token_role: vault.skip_token_role_name_validation }
        }
        Login::TokenFile(path) => vault::Login::File(path.clone()),
        Login::Kubernetes(auth) => vault::Login::Kubernetes {
            mount: auth.mount.clone(),
            role: auth.role.clone(),
            token_path: auth.token_path.clone(),
        },
    };
    let ca = match &vault.tls.roots {
        VaultRoots::Public => vault::Ca::Public,
        VaultRoots::File(path) => vault::Ca::File(path.clone()),
        VaultRoots::PkiMounts { mounts, fingerprints } => vault::Ca::Pki {
            mounts: mounts.clone(),
            fingerprints: fingerprints.iter().copied().map(vault::Fingerprint::from).collect(),
        },
    };
    let client = vault.tls.client.as_ref();
    vault::Options {
        address: vault.addr.as_str().to_owned(),
        namespace: vault.namespace.clone(),
        approle_mount: vault.approle_mount.clone(),
        wrapping_ttl: vault.wrapping_ttl.as_str().to_owned(),
        login,
        tls: vault::Tls {
            ca,
            server_name: vault.tls.server_name.clone(),
            client: client
                .map(|pair| vault::ClientCertificate { certificate: pair.cert.clone(), key: pair.key.clone() }),
            public_roots: std::env::var_os(PUBLIC_ROOTS).filter(|path| !path.is_empty()).map(Into::into),
        },
    }
}

/// Whether this replica leaves the cluster when it stops.
pub(super) fn leaves(config: &Config, bound_to_pod: bool) -> bool {
    use crate::config::LeaveOnTerminate;
    let policy = match config.raft.leave_on_terminate {
        LeaveOnTerminate::Auto => handover::LeaveOnTerminate::Auto,
        LeaveOnTerminate::Always => handover::LeaveOnTerminate::Always,
        LeaveOnTerminate::Never => handover::LeaveOnTerminate::Never,
    };
    policy.leaves(bound_to_pod)
}
