//! TLS towards scrapers of `/metrics`: what is shown to them, and whom we believe.
//!
//! Owns the server's configuration, made anew as a whole whenever a part of it changes: a verifier of client
//! certificates cannot be changed in place. TLS 1.2 and 1.3, as the Go version had it. Nothing is resumed: a scraper
//! whose CA was removed must not come back by a ticket.
//!
//! Must never: hand out a configuration with a certificate that clients would refuse.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use secrecy::SecretString;

use super::Error;
use super::facts::{self, Validity};
use super::pem::{self, Named};
use crate::crypto::provider;
use crate::domain::ids::Timestamp;

/// A certificate with its chain and its key, checked. No `Debug`: it holds a key.
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// When the chain is valid.
    pub validity: Validity,
}

impl Shown {
    /// From PEM files.
    ///
    /// # Errors
    /// The file that cannot be used at `now`, and why.
    pub fn from_files(cert: &Named, key: &Named, now: Timestamp) -> Result<Self, Error> {
        let chain = cert.certificates()?;
        let validity = facts::check_server(&chain, now).map_err(|why| cert.unusable(why))?;
        let shown = Self { chain, key: key.private_key()?, validity };
        // Whether they belong together shows when a configuration is made.
        match shown.config(None) {
            Ok(_) => Ok(shown),
            Err(rustls::Error::InconsistentKeys(_)) => Err(key.unusable(format!(
                "it is not the key of the certificate in {} ({})",
                cert.key,
                cert.path.display()
            ))),
            Err(other) => Err(key.unusable(other.to_string())),
        }
    }

    /// What Vault's PKI has issued: the certificate, what stands between it and the CA, and its key, all PEM.
    ///
    /// # Errors
    /// What of it cannot be used at `now`.
    pub fn from_vault(
        certificate: &str,
        ca_chain: &[String],
        key: &SecretString,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let unfit = |why: String| Error::Issued { why };
        let (chain, key) = pem::issued(certificate, ca_chain, key)?;
        let validity = facts::check_server(&chain, now).map_err(unfit)?;
        let shown = Self { chain, key, validity };
        shown.config(None).map_err(|cause| unfit(cause.to_string()))?;
        Ok(shown)
    }

    fn config(&self, clients: Option<RootCertStore>) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|cause| rustls::Error::General(cause.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Who may scrape: whoever has a certificate of one of these CAs.
#[derive(Clone)]
pub struct ScraperCas {
    roots: RootCertStore,
    /// When all of them are valid.
    pub validity: Validity,
}

impl ScraperCas {
    /// From a PEM file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn from_file(file: &Named) -> Result<Self, Error> {
        let certificates = file.certificates()?;
        let validity = facts::validity(&certificates).map_err(|why| file.unusable(why))?;
        Ok(Self { roots: file.roots()?, validity })
    }

    /// From what Vault's PKI mounts hold.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn from_vault(bundle: &str) -> Result<Self, Error> {
        let unfit = |why: String| Error::Issued { why };
        let certificates = pem::certificates(bundle.as_bytes()).map_err(|why| unfit(why.to_owned()))?;
        let validity = facts::validity(&certificates).map_err(unfit)?;
        Ok(Self { roots: pem::roots(certificates).map_err(unfit)?, validity })
    }
}

/// The server's half of TLS, with a certificate for each scraper to show where `clients` is set.
///
/// # Errors
/// The TLS library refused the whole.
pub fn scraper_config(shown: &Shown, clients: Option<&ScraperCas>) -> Result<Arc<ServerConfig>, Error> {
    shown.config(clients.map(|clients| clients.roots.clone())).map(Arc::new).map_err(Error::Setup)
}

/// Why the handshake of a scraper failed, as a metric's label.
pub fn scraper_refusal(error: &std::io::Error) -> &'static str {
    use super::PeerTlsFailure as Failure;
    match super::explain(error) {
        Failure::NoCertificate => "no_certificate",
        Failure::AnotherCa
        | Failure::AnotherName
        | Failure::OutOfTime
        | Failure::AnotherPurpose
        | Failure::BadCertificate(_) => "bad_certificate",
        Failure::NotTls => "not_tls",
        _ => "other",
    }
}
