//! TLS towards Vault: whom we believe, and who we are.
//!
//! Owns the verifier. It believes the configured certificates alone, or the public roots where none is configured,
//! and checks `vault.tls.serverName` instead of the address's host where that is set. The one place where nothing
//! is verified is the fetch of a PKI mount's CA, which sends no token.
//!
//! With `serverName` the name is checked, but the name that the handshake asks for (SNI) remains the address's host:
//! Vault itself does not look at it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use url::Url;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::error::Fatal;
use super::options::{Ca, ClientCertificate, Tls};
use crate::crypto::provider;
use crate::files;
use crate::pem::is_encrypted;

/// What an error about the public roots is about.
const ROOTS: &str = "SSL_CERT_FILE";

/// Whom to believe.
pub(super) enum Trust<'a> {
    /// The public roots that are compiled in.
    Public,
    /// Those of this PEM bundle instead.
    Roots(&'a str),
    /// The certificates of this PEM bundle, which `key` of the configuration gave.
    Bundle { key: &'static str, pem: &'a str },
    /// Anyone: trust on first use.
    Anyone,
}

/// The client's half of TLS as it is configured, with `bundle` as what was read of the CAs; none over plain http.
pub(super) fn towards(url: &Url, bundle: Option<&str>, tls: &Tls) -> Result<Option<ClientConfig>, Fatal> {
    let roots = match (&tls.public_roots, bundle, url.scheme()) {
        (Some(path), None, "https") => Some(text(ROOTS, path)?),
        _ => None,
    };
    let trust = match (bundle, url.scheme()) {
        (_, "http") => return Ok(None),
        (None, _) => roots.as_deref().map_or(Trust::Public, Trust::Roots),
        (Some(pem), _) => {
            let key = match &tls.ca {
                Ca::Pki { .. } => "vault.tls.vaultCABackends",
                Ca::File(_) | Ca::Public => "vault.tls.caCert",
            };
            Trust::Bundle { key, pem }
        }
    };
    client_config(&trust, tls).map(Some)
}

/// The client's half of TLS.
pub(super) fn client_config(trust: &Trust<'_>, tls: &Tls) -> Result<ClientConfig, Fatal> {
    let provider = Arc::new(provider());
    let verifier = verifier(trust, tls.server_name.as_deref(), &provider)?;
    let failed = |cause: rustls::Error| Fatal::Client(cause.to_string());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let Some(client) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = read_identity(client)?;
    builder.with_client_auth_cert(chain, key).map_err(|cause| Fatal::Certificate {
        key: "vault.tls.clientCert",
        why: format!("certificate and key do not fit: {cause}"),
    })
}

/// The certificates in a PEM bundle.
pub(super) fn certificates(key: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Fatal> {
    let bad = |why: String| Fatal::Certificate { key, why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    // The decoder's words quote a line, which in a file that was named by mistake may be a key.
    let found = found.map_err(|_| bad("it is not PEM".to_owned()))?;
    if found.is_empty() {
        return Err(bad("it holds no PEM certificate".to_owned()));
    }
    Ok(found)
}

/// Reads a file that the configuration names.
pub(super) fn read_file(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fatal> {
    files::read(path).map_err(|source| Fatal::File { key, path: path.to_owned(), source })
}

/// The same of a file that holds text.
pub(super) fn text(key: &'static str, path: &Path) -> Result<String, Fatal> {
    let bytes = read_file(key, path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Fatal::Certificate { key, why: "it is not a text".to_owned() })?;
    Ok(text.to_owned())
}

fn read_identity(client: &ClientCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Fatal> {
    let (cert_key, key_key) = ("vault.tls.clientCert", "vault.tls.clientKey");
    let bad = |key, path: &Path, why: &str| Fatal::Certificate { key, why: format!("{}: {why}", path.display()) };
    let chain = certificates(cert_key, &text(cert_key, &client.certificate)?)?;
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let (_, leaf) = leaf.ok_or_else(|| bad(cert_key, &client.certificate, "it is no X.509 certificate"))?;
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    if now > leaf.validity().not_after.timestamp() {
        return Err(bad(cert_key, &client.certificate, "it has expired: renew it"));
    }
    let pem = read_file(key_key, &client.key)?;
    if is_encrypted(&pem) {
        return Err(bad(key_key, &client.key, "the key is encrypted: store it in clear, readable by this user alone"));
    }
    // The decoder's words could quote the key.
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| bad(key_key, &client.key, "it holds no PEM private key"))?;
    Ok((chain, key))
}

fn verifier(trust: &Trust<'_>, name: Option<&str>, provider: &Arc<CryptoProvider>) -> Result<Verifier, Fatal> {
    let name = name.map(|name| ServerName::try_from(name.to_owned())).transpose().map_err(|_| Fatal::Certificate {
        key: "vault.tls.serverName",
        why: "it is neither a host name nor an address".to_owned(),
    })?;
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    let mut verifies = true;
    match trust {
        Trust::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        // A bundle of more than a hundred may have one that is too old to be understood.
        Trust::Roots(pem) => match roots.add_parsable_certificates(certificates(ROOTS, pem)?) {
            (0, _) => return Err(Fatal::Certificate { key: ROOTS, why: "it holds no usable root".to_owned() }),
            (_, 0) => {}
            (_, unusable) => tracing::debug!(unusable, "{ROOTS} holds certificates that cannot be roots"),
        },
        Trust::Anyone => {
            // The roots are not asked; the verifier underneath only checks signatures, and must have some.
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            verifies = false;
        }
        Trust::Bundle { key, pem } => {
            pinned = certificates(key, pem)?;
            for certificate in &pinned {
                roots.add(certificate.clone()).map_err(|cause| Fatal::Certificate { key, why: cause.to_string() })?;
            }
        }
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    let chain = chain.map_err(|cause| Fatal::Client(cause.to_string()))?;
    Ok(Verifier { chain, name, pinned, verifies })
}

struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    name: Option<ServerName<'static>>,
    /// The configured certificates.
    pinned: Vec<CertificateDer<'static>>,
    verifies: bool,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("name", &self.name).field("verifies", &self.verifies).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.verifies {
            return Ok(ServerCertVerified::assertion());
        }
        let name = self.name.as_ref().unwrap_or(server_name);
        let verified = self.chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match verified {
            // A self-signed certificate as `openssl req -x509` makes it is marked as a CA. Go, and so the
            // reference, takes it for a server's when it is itself among the configured ones.
            Err(error) if is_ca_as_leaf(&error) && self.pinned.iter().any(|known| known == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether a chain failed for nothing but this; its dates are checked before.
fn is_ca_as_leaf(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

#[cfg(test)]
mod tests;
