//! What ends the controller, and what an answer of Vault means otherwise.
//!
//! Pure. Owns the table of status codes. Must never let a secret into a text: causes come from
//! [`Answer::errors`] alone.

use std::path::PathBuf;

use super::answer::Answer;
use super::check::TokenFault;
use crate::domain::delivery::VaultTrouble;

/// Why there is no point in going on: the configuration, or the token, has to be changed.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// `vault.addr` is no address.
    #[error("vault.addr is not usable: {0}")]
    Address(String),
    /// A mount that is no path.
    #[error("{key}: {mount:?} is not a mount path")]
    Mount {
        /// The configuration's key.
        key: &'static str,
        /// What it says.
        mount: String,
    },
    /// A value that cannot be sent as a header.
    #[error("{key} has characters that an HTTP header cannot carry (a newline, a control character)")]
    Header {
        /// The configuration's key.
        key: &'static str,
    },
    /// A file that has to be read was not.
    #[error("{key}: {path} cannot be read")]
    File {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Certificates or a key that cannot be used.
    #[error("{key}: {why}")]
    Certificate {
        /// The configuration's key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A proxy's address that cannot be used.
    #[error("{variable} is not the address of a proxy")]
    Proxy {
        /// The environment variable.
        variable: &'static str,
    },
    /// The HTTP client could not be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// Vault's CA is not the pinned one.
    #[error(
        "the CA certificate of the PKI mount {mount:?} has the SHA-256 {found}, which vault.tls.caFingerprint does \
         not allow; if the CA was changed on purpose change the fingerprint, otherwise somebody stands in between"
    )]
    Fingerprint {
        /// The mount.
        mount: String,
        /// What was found.
        found: String,
    },
    /// Vault does not have the CA.
    #[error("vault.tls.vaultCABackends: Vault gives no CA certificate for the PKI mount {mount:?}: {why}")]
    PkiMount {
        /// The mount.
        mount: String,
        /// Vault's own words.
        why: String,
    },
    /// Vault does not know our token, or denies it `lookup-self`.
    #[error(
        "Vault refuses {origin}: {cause}; give a token that is valid and whose policies allow auth/token/lookup-self \
         (the default policy does)"
    )]
    TokenRefused {
        /// Where it came from.
        origin: &'static str,
        /// Vault's own words.
        cause: String,
    },
    /// Vault knows it, but it must not be used.
    #[error("{origin} must not be used: {}", list(faults))]
    Token {
        /// Where it came from.
        origin: &'static str,
        /// Everything that is wrong with it.
        faults: Vec<TokenFault>,
    },
    /// Kubernetes auth refused us.
    #[error(
        "Vault refuses the login at auth/{mount}/login with role {role:?}: {cause}; check the role's bound service \
         account names and namespaces, its audience, and that Vault can reach the API server"
    )]
    Login {
        /// The mount.
        mount: String,
        /// The role.
        role: String,
        /// Vault's own words.
        cause: String,
    },
}

fn list(faults: &[TokenFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a step of the start did not succeed.
pub(super) enum Stopped {
    /// There is no point in trying again.
    Fatal(Fatal),
    /// It may work later.
    Trouble(VaultTrouble),
}

impl From<Fatal> for Stopped {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl Stopped {
    /// For a log, of something that is tried again in any case.
    pub(super) fn into_trouble(self) -> VaultTrouble {
        match self {
            Self::Fatal(fatal) => VaultTrouble::NotLoggedIn(fatal.to_string()),
            Self::Trouble(trouble) => trouble,
        }
    }
}

/// What an answer that is no success means, before anything is known of the path that was asked for.
pub(super) fn classify(answer: &Answer) -> VaultTrouble {
    let status = answer.status;
    let retry_after = answer.retry_after;
    let errors = answer.errors();
    let cause = || errors.clone().unwrap_or_default();
    match status {
        403 => VaultTrouble::Forbidden(cause()),
        // On sys/health alone 429 says "standby", and its body says so too.
        429 if answer.says_standby() => VaultTrouble::Standby,
        429 => VaultTrouble::RateLimited { retry_after },
        472 | 473 => VaultTrouble::Standby,
        503 if cause().to_ascii_lowercase().contains("sealed") => VaultTrouble::Sealed,
        // Vault's own refusals are JSON with "errors". Anything else of these codes comes from something in
        // between, and says nothing about the role.
        400 | 404 | 405 | 413 | 422 if errors.is_some() => VaultTrouble::Rejected { status, cause: cause() },
        200..=299 => VaultTrouble::WrongAnswer(format!("an answer with status {status} was not expected")),
        _ => VaultTrouble::Unavailable { status, retry_after },
    }
}

/// Whether Vault has answered about us, so that waiting does not help.
pub(super) fn is_verdict(trouble: &VaultTrouble) -> bool {
    matches!(trouble, VaultTrouble::Forbidden(_) | VaultTrouble::Rejected { .. })
}

/// What Vault itself said, for humans.
pub(super) fn words(trouble: &VaultTrouble) -> String {
    match trouble {
        VaultTrouble::Forbidden(cause) if cause.is_empty() => "permission denied".to_owned(),
        VaultTrouble::Forbidden(cause) => cause.clone(),
        VaultTrouble::Rejected { status, cause } => format!("{status}: {cause}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
