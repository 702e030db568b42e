//! What the configuration says about Vault, in this folder's own words.
//!
//! Owns the checks that need no Vault. No `Debug`: a token may be inside.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::ca::Fingerprint;
use super::error::Fatal;

/// Everything that is needed to work with a Vault.
pub struct Options {
    /// `vault.addr`, byte for byte as configured: it is what init containers are told.
    pub address: String,
    /// `vault.namespace`.
    pub namespace: Option<String>,
    /// `vault.approleMount`, without `auth/`.
    pub approle_mount: String,
    /// `vault.wrappingTTL` as written: Vault itself reads it.
    pub wrapping_ttl: String,
    /// How we get our token.
    pub login: Login,
    /// How Vault proves who it is, and how we do.
    pub tls: Tls,
}

/// How we get our token.
pub enum Login {
    /// `vault.token`.
    Token {
        /// The token.
        token: SecretString,
        /// `vault.skipTokenRoleNameValidation`.
        skip_token_role: bool,
    },
    /// `vault.tokenFile`: somebody else keeps it fresh.
    File(PathBuf),
    /// `vault.kubernetesAuth`.
    Kubernetes {
        /// Its mount, without `auth/`.
        mount: String,
        /// The role to log in with.
        role: String,
        /// The projected service account token, read at each login.
        token_path: PathBuf,
    },
}

/// `vault.tls`.
#[derive(Default)]
pub struct Tls {
    /// Whom to believe.
    pub ca: Ca,
    /// The name that Vault's certificate must carry, where it is not the address's host.
    pub server_name: Option<String>,
    /// Our own certificate.
    pub client: Option<ClientCertificate>,
    /// `SSL_CERT_FILE`: a bundle in place of the public roots that are compiled in.
    pub public_roots: Option<PathBuf>,
}

/// Which certificates verify Vault.
#[derive(Default)]
pub enum Ca {
    /// The public roots.
    #[default]
    Public,
    /// A PEM bundle, and nothing else.
    File(PathBuf),
    /// The CA certificates of PKI mounts of this very Vault, and nothing else.
    Pki {
        /// The mounts.
        mounts: Vec<String>,
        /// Where given, each certificate must have one of these; else the first one seen is trusted.
        fingerprints: Vec<Fingerprint>,
    },
}

/// A certificate with its key, PEM files.
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Options {
    /// The address, checked.
    pub(super) fn url(&self) -> Result<Url, Fatal> {
        let bad = |why: &str| Fatal::Address(why.to_owned());
        let url = Url::parse(&self.address).map_err(|cause| bad(&cause.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("only http:// and https:// are spoken"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("user and password do not belong there"));
        }
        Ok(url)
    }

    /// The mounts that become part of paths.
    pub(super) fn check_mounts(&self) -> Result<(), Fatal> {
        let mut mounts = vec![("vault.approleMount", self.approle_mount.as_str())];
        if let Login::Kubernetes { mount, .. } = &self.login {
            mounts.push(("vault.kubernetesAuth.mount", mount.as_str()));
        }
        if let Ca::Pki { mounts: pki, .. } = &self.tls.ca {
            mounts.extend(pki.iter().map(|mount| ("vault.tls.vaultCABackends", mount.as_str())));
        }
        for (key, mount) in mounts {
            let mut parts = mount.trim_matches('/').split('/');
            // A dot segment would name another path than the one it is put into.
            if parts.any(|part| matches!(part, "" | "." | "..")) {
                return Err(Fatal::Mount { key, mount: mount.to_owned() });
            }
        }
        Ok(())
    }
}
