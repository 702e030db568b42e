//! Certificates of a testbed: one authority for the control plane, one for each Vault with TLS.
//!
//! Owns: private keys that live on the testbed's tmpfs and nowhere else.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
            .with_context(|| format!("cannot make the authority {name}"))?;
        Ok(Self(issuer))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate and its key.
    pub(crate) fn bundle(&self) -> String {
        self.0.pem() + &self.0.key().serialize_pem()
    }

    /// A certificate that authenticates a client: user name and group of Kubernetes.
    ///
    /// One group, because rcgen keeps one value of each kind in a name.
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<Pair> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, user);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        self.sign(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a server under these names and addresses.
    pub(crate) fn server(&self, name: &str, names: &[&str], addresses: &[Ipv4Addr]) -> Result<Pair> {
        let names: Vec<String> =
            names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string)).collect();
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        self.sign(parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, mut parameters: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Result<Pair> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![purpose];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.0).context("cannot sign a certificate")?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A key pair without a certificate, PEM: private, public.
pub(crate) fn signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}
