//! The section `prometheus`.
//!
//! Owns the rules about which keys of `prometheus.tls` go together. Files are not opened here, but where they are used.

use std::path::PathBuf;

use super::lenient::{Context, Section, Setting};
use super::listen::{self, ListenAddr};
use super::names::is_segment;
use super::rules::{check_pair, mount, mounts};

/// Where and how `/metrics` is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prometheus {
    /// `prometheus.address`: the address to listen on. Default `:80`, or `:443` with a certificate.
    pub address: ListenAddr,
    /// `prometheus.tls`: where it is set, metrics are never served in clear.
    pub tls: Option<PrometheusTls>,
}

/// `prometheus.tls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrometheusTls {
    /// The certificate that is served.
    pub certificate: ServingCertificate,
    /// Who signs the certificates of scrapers; with it, a scraper without one is refused.
    pub clients: Option<ClientCas>,
}

/// Where a serving certificate comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServingCertificate {
    /// Issued by Vault and renewed at half of its life.
    VaultPki {
        /// `prometheus.tls.vaultCertBackend`: the PKI mount.
        mount: String,
        /// `prometheus.tls.vaultCertRole`: the role of that mount.
        role: String,
    },
    /// PEM files that somebody else renews.
    Files {
        /// `prometheus.tls.certFile`: the certificate and its chain.
        cert: PathBuf,
        /// `prometheus.tls.certKey`: its key.
        key: PathBuf,
    },
}

/// Which CAs may have signed a scraper's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientCas {
    /// `prometheus.tls.vaultCABackends`: the CAs of these PKI mounts.
    VaultPki(Vec<String>),
    /// `prometheus.tls.caCert`: a PEM file.
    File(PathBuf),
}

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Prometheus {
    let problems_before = cx.problems.len();
    let tls = read_tls(&section.section("tls", cx), cx);
    // With a problem the value is never used; 443 keeps a false collision of ports out of the report.
    let default = if tls.is_some() || cx.problems.len() > problems_before { 443 } else { 80 };
    Prometheus { address: listen::read(section, ListenAddr::port(default), cx), tls }
}

fn read_tls(section: &Section<'_>, cx: &mut Context<'_>) -> Option<PrometheusTls> {
    let backend = section.text("vaultCertBackend", cx);
    let role = section.text("vaultCertRole", cx);
    let cert = section.text("certFile", cx);
    let key = section.text("certKey", cx);
    check_pair(section, [("vaultCertBackend", &backend), ("vaultCertRole", &role)], cx);
    check_pair(section, [("certFile", &cert), ("certKey", &key)], cx);
    if let (Some(vault), Some(file)) = (backend.as_ref().or(role.as_ref()), cert.as_ref().or(key.as_ref())) {
        cx.problem(
            &vault.spot,
            format!(
                "and {} contradict each other: take the certificate from Vault (prometheus.tls.vaultCertBackend and \
                 prometheus.tls.vaultCertRole) or from files (prometheus.tls.certFile and prometheus.tls.certKey), \
                 not both",
                file.spot.key
            ),
        );
    }
    let has_pair = (backend.is_some() && role.is_some()) || (cert.is_some() && key.is_some());
    let clients = read_clients(section, has_pair, cx);
    let certificate = match (backend, role, cert, key) {
        (Some(backend), Some(role), ..) => vault_certificate(&backend, role, cx),
        (_, _, Some(cert), Some(key)) => {
            Some(ServingCertificate::Files { cert: cert.value.into(), key: key.value.into() })
        }
        _ => None,
    };
    Some(PrometheusTls { certificate: certificate?, clients })
}

fn read_clients(section: &Section<'_>, has_certificate: bool, cx: &mut Context<'_>) -> Option<ClientCas> {
    let backends = section.list("vaultCABackends", cx);
    let file = section.text("caCert", cx);
    if let (Some(backends), Some(_)) = (&backends, &file) {
        cx.problem(
            &backends.spot,
            "and prometheus.tls.caCert contradict each other: name the CAs of scrapers by one of them",
        );
    }
    let first = backends.as_ref().map(|setting| &setting.spot).or(file.as_ref().map(|setting| &setting.spot));
    if let (Some(spot), false) = (first, has_certificate) {
        cx.problem(
            spot,
            "needs a serving certificate: set prometheus.tls.vaultCertBackend and prometheus.tls.vaultCertRole, or \
             prometheus.tls.certFile and prometheus.tls.certKey",
        );
    }
    match (backends, file) {
        (Some(backends), _) => Some(ClientCas::VaultPki(mounts(&backends.value, cx))),
        (None, Some(file)) => Some(ClientCas::File(file.value.into())),
        (None, None) => None,
    }
}

fn vault_certificate(
    backend: &Setting<String>,
    role: Setting<String>,
    cx: &mut Context<'_>,
) -> Option<ServingCertificate> {
    let mount = mount(backend, cx);
    if !is_segment(&role.value) {
        cx.problem(&role.spot, "must be the name of a role of that mount: no slashes, no spaces, none of ? # % \\");
        return None;
    }
    Some(ServingCertificate::VaultPki { mount: mount?, role: role.value })
}
