//! TLS for those who call us: between replicas, who is a peer and who is not; and towards scrapers.
//!
//! Owns the certificates by which replicas know each other, the rules for a peer's certificate, and the words for a
//! handshake that failed. Between replicas mutual TLS 1.3 alone: nothing is resumed, nothing is sent early, so nothing
//! can be replayed. Owns also how PEM files are read.
//!
//! Must never: let a byte through to or from somebody without the cluster's identity, take "any certificate of this
//! CA" for a peer's, write a key anywhere, or put a secret into an error.
//!
//! Two things for whoever uses it. With TLS 1.3 a client's handshake is over before the server has judged the client's
//! certificate: a refusal arrives with the first read, so [`explain`] is for its errors as well. And the certificate
//! that a server shows can be seen by anybody who can reach its port. It names namespace and service, and it lets
//! guesses at the secret be tried at home: which is why `config` takes none that can be guessed.

mod derive;
mod facts;
mod failure;
mod files;
mod go_version;
mod guard;
mod identity;
mod issued;
mod pem;
mod scrapers;
mod verify;

#[cfg(test)]
mod tests;

pub use self::facts::{Validity, expiry};
pub use self::failure::{PeerTlsFailure, explain};
pub use self::files::PeerFiles;
pub use self::go_version::speaks_go_version;
pub use self::guard::Guarded;
pub use self::identity::{Channel, ClusterIdentity};
pub use self::issued::{FormerCa, IssuedPeer, PEER_TTL};
pub use self::pem::Named;
pub use self::scrapers::{ScraperCas, Shown, scraper_config, scraper_refusal};
pub use self::verify::Scope;

/// Why there is no identity. Never holds a secret, nor anything of a file but its path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {key} ({})", path.display())]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The path that it names.
        path: std::path::PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and cannot be used.
    #[error("{key} ({}) cannot be used: {why}", path.display())]
    Unusable {
        /// The key of the configuration.
        key: &'static str,
        /// The path that it names.
        path: std::path::PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// What Vault's PKI gave cannot be used.
    #[error("what Vault's PKI gave cannot be used: {why}")]
    Issued {
        /// What is wrong with it.
        why: String,
    },
    /// A CA was not derived, or a certificate not made.
    #[error("cannot make the certificate that this replica shows to its peers ({what})")]
    Make {
        /// What was being done.
        what: &'static str,
    },
    /// The TLS library refused the whole.
    #[error("cannot set TLS up")]
    Setup(#[source] rustls::Error),
}
