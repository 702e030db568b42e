//! How Vault is verified: the bundle of the push or of VAULT_CACERT alone, else the public roots.
//!
//! Must never: accept a certificate that none of these vouches for, or add a bundle to the public roots.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The one TLS provider of this program, without what loads keys from outside: none ever comes from there.
///
/// Called from here alone, which lets the linker leave RSA's signing out.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider { key_provider: &NoKeys, ..ring::default_provider() }
}

#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no keys from outside".to_owned()))
    }
}

/// The certificates of a PEM bundle, at least one.
pub(crate) fn roots_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "it is not a valid PEM bundle")?;
    if certificates.is_empty() { Err("there is no certificate in it") } else { Ok(certificates) }
}

/// A client's configuration that trusts `bundle` alone, or the public roots where there is none.
///
/// `public_roots`: SSL_CERT_FILE, a bundle in place of the roots that are compiled in.
pub(crate) fn client(bundle: Option<&[u8]>, public_roots: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let named = match (bundle, public_roots) {
        (Some(pem), _) => roots_of(pem).map_err(|e| format!("the CA bundle: {e}"))?,
        (None, Some(path)) => {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|e| format!("cannot read SSL_CERT_FILE ({shown}): {e}"))?;
            roots_of(&pem).map_err(|e| format!("SSL_CERT_FILE ({shown}): {e}"))?
        }
        (None, None) => Vec::new(),
    };
    if named.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    } else {
        // As Go, and unlike some: a bundle with one strange certificate in it still serves with the others.
        let (added, _) = roots.add_parsable_certificates(named.iter().cloned());
        if added == 0 {
            return Err("the CA bundle: none of its certificates can be used".to_owned());
        }
    }
    let provider = Arc::new(provider());
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| format!("the CA bundle: {e}"))?;
    let verifier = Arc::new(Verifier { chains, named, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The usual verification, and one more case that Go accepts and webpki refuses: a self-signed CA certificate
/// that the server presents as its own and that the bundle names, as many a small Vault is set up.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    /// The bundle's certificates; empty with the public roots, whose operators know better.
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // webpki comes to this error only after it found the certificate's validity in order.
            Err(error) if is_ca_as_server(&error) && self.named.contains(end_entity) => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// rustls hands this one of webpki's errors through without a type of its own.
fn is_ca_as_server(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(rustls::CertificateError::Other(other))
        if format!("{:?}", other.0).contains("CaUsedAsEndEntity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn self_signed(name: &str, is_ca: bool, end: (i32, u8, u8)) -> (String, CertificateDer<'static>) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().clone())
    }

    fn verify(pem: &str, presented: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let named = roots_of(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        let provider = Arc::new(ring::default_provider());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let verifier = Verifier { chains, named, provider };
        // 2026-11-23
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_795_392_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(presented, &[], &name, &[], now).map(drop)
    }

    #[test]
    fn a_vault_that_is_its_own_ca_is_accepted_when_the_bundle_names_it() {
        let (pem, certificate) = self_signed("vault", true, (2030, 1, 1));
        let (other_pem, other) = self_signed("vault", true, (2030, 1, 1));
        let (old_pem, old) = self_signed("vault", true, (2020, 1, 1));
        let (_, leaf) = self_signed("vault", false, (2030, 1, 1));
        assert!(verify(&pem, &certificate, "vault").is_ok());
        assert!(verify(&format!("{other_pem}{pem}"), &certificate, "vault").is_ok());
        assert!(verify(&pem, &certificate, "other").is_err(), "another name");
        assert!(verify(&other_pem, &certificate, "vault").is_err(), "another key");
        assert!(verify(&pem, &other, "vault").is_err(), "another key");
        assert!(verify(&old_pem, &old, "vault").is_err(), "its time is up");
        assert!(verify(&pem, &leaf, "vault").is_err(), "not signed by it");
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        assert!(client(Some(b"nothing"), None).is_err());
        assert!(client(Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), None).is_err());
        assert!(client(None, Some(Path::new("/nonexistent"))).unwrap_err().contains("SSL_CERT_FILE"));
        assert!(client(None, None).is_ok());
    }
}
