//! Whether a certificate is a peer's.
//!
//! Owns the rule, the same on both ends: of our CA, and for our service by name. A CA of a company or of a Kubernetes
//! cluster signs for others too, and none of these may speak Raft.
//!
//! Must never: look at the name that was dialled (peers are dialled by address), accept a wildcard (it says a zone, not
//! this service), or leave the check of a signature out.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// Which cluster a replica belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// `kubernetes.serviceNamespace`.
    pub namespace: String,
    /// `kubernetes.service`.
    pub service: String,
    /// `raft.clusterName`; empty where it is not set. Only derived CAs know it.
    pub cluster: String,
}

impl Scope {
    /// The URI SAN of a peer.
    pub fn uri(&self) -> String {
        format!("kubernetes-vault://{}/{}/peer", self.namespace, self.service)
    }

    /// The DNS SANs that stand for it: what certificates of a service usually have. Not the service's name alone, which
    /// a service of another namespace may have as well.
    fn dns_names(&self) -> [String; 2] {
        let name = format!("{}.{}", self.service, self.namespace);
        [format!("{name}.svc"), name]
    }

    /// What a peer's certificate must have, in words.
    pub(super) fn required(&self) -> String {
        let [long, short] = self.dns_names();
        format!("the URI {} or the DNS name {long} or {short}", self.uri())
    }

    fn is_named_by(&self, certificate: &CertificateDer<'_>, naming: Naming) -> Result<bool, Error> {
        let certificate = webpki::EndEntityCert::try_from(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let (uri, names) = (self.uri(), self.dns_names());
        // webpki's own check would let a wildcard pass.
        let is_ours = |found: &str| names.iter().any(|name| name.eq_ignore_ascii_case(found));
        let by_uri = certificate.valid_uri_names().any(|found| found == uri);
        Ok(by_uri || (naming == Naming::UriOrService && certificate.valid_dns_names().any(is_ours)))
    }
}

/// By which names a certificate is a peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Naming {
    /// By the URI of the scope, or by the service's DNS name.
    UriOrService,
    /// By the URI alone.
    Uri,
}

/// Judges certificates of peers, of those who call and of those who are called.
pub(super) struct PeerVerifier {
    scope: Scope,
    naming: Naming,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub(super) fn new(
        scope: Scope,
        naming: Naming,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider)).build()?;
        Ok(Self { scope, naming, roots, clients, algorithms: provider.signature_verification_algorithms })
    }

    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.scope.is_named_by(certificate, self.naming)? {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    /// Both roles at once: what a peer would say of our own certificate.
    pub(super) fn check_own(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.verify_client_cert(end_entity, intermediates, now)?;
        self.verify_called(end_entity, intermediates, now)
    }

    /// Whether whoever has shown `chain` would be taken for a peer at `now`, whoever has called.
    pub(super) fn believes(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        self.check_own(chain, now).is_ok()
    }

    fn verify_called(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        self.check_name(end_entity)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// TLS 1.2 is not spoken here.
fn no_tls12() -> Error {
    Error::General("replicas speak TLS 1.3 alone".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_called(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None: they would tell whoever asks the names of our CAs, and a peer has one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.check_name(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
