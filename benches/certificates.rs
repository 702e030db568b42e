//! A CA of this run, and the metrics page's and a scraper's certificates of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

/// A certificate that both ends may show, and the CA of it.
pub(crate) struct Certificates {
    ca: CertifiedIssuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Certificates {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::default();
        // Where the controllers of a run serve their pages.
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        Ok(Self { ca, certificate, key })
    }

    /// Writes the files into `folder`: what `prometheus.tls` is to say.
    pub(crate) fn write(&self, folder: &Path) -> Result<Value> {
        let file = |name: &str, pem: String| {
            let path = folder.join(name);
            std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display())).map(|()| path)
        };
        Ok(json!({
            "certFile": file("metrics.crt", self.certificate.pem())?,
            "certKey": file("metrics.key", self.key.serialize_pem())?,
            "caCert": file("scrapers.crt", self.ca.pem())?,
        }))
    }

    /// A scraper that shows the certificate and believes the CA.
    pub(crate) fn scraper(&self) -> Result<reqwest::Client> {
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(self.scraper_config()?);
        builder.build().context("cannot make a scraper")
    }

    /// The same, as the TLS library has it.
    pub(crate) fn scraper_config(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone())?;
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(anyhow::Error::msg)?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.certificate.der().clone()], key)
            .context("cannot use a certificate of our own")
    }
}
