//! Who scrapes over TLS: a CA of files, a PKI of Vault, folders that swap a link as mounted Secrets do, and one scrape.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cluster::Cluster;
use super::vault::Vault;

/// How long a certificate lives.
pub(crate) const LIFE: Duration = Duration::from_secs(60);
/// Where the metrics page is served over TLS.
pub(crate) const PORT: u16 = 9443;
/// The name in the certificate of the metrics page.
const NAME: &str = "kubernetes-vault";
/// One scrape, handshake included.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A CA outside of Vault.
pub(crate) struct FileCa(CertifiedIssuer<'static, KeyPair>);

impl FileCa {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For servers and clients, for a minute.
    pub(crate) fn issue(&self, names: &[&str]) -> Result<Pair> {
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = rcgen::date_time_ymd(1970, 1, 1)
            + Duration::try_from(Timestamp::now().duration_since(Timestamp::UNIX_EPOCH))?;
        (params.not_before, params.not_after) = (now - Duration::from_secs(5), now + LIFE);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

/// A PKI mount of Vault.
pub(crate) struct VaultPki {
    pub(crate) mount: String,
}

impl VaultPki {
    /// Mounts it, with a root of its own.
    pub(crate) async fn mount(vault: &Vault, mount: String) -> Result<Self> {
        vault.write(&format!("sys/mounts/{mount}"), &json!({"type": "pki"})).await?;
        let root = json!({"common_name": format!("{mount} root"), "ttl": "24h"});
        vault.write(&format!("{mount}/root/generate/internal"), &root).await?;
        Ok(Self { mount })
    }

    /// A role that issues under any name, for no longer than `LIFE`.
    pub(crate) async fn role(&self, vault: &Vault, name: &str) -> Result<()> {
        let role = json!({"allow_any_name": true, "allow_ip_sans": true, "max_ttl": LIFE.as_secs()});
        vault.write(&format!("{}/roles/{name}", self.mount), &role).await.map(drop)
    }

    /// What the controller needs to have certificates of `role` issued.
    pub(crate) fn rule(&self, role: &str) -> String {
        format!("\npath \"{}/issue/{role}\" {{ capabilities = [\"update\"] }}\n", self.mount)
    }

    pub(crate) async fn ca(&self, vault: &Vault) -> Result<String> {
        let answer = vault.read(&format!("{}/cert/ca", self.mount)).await?;
        let pem = answer.pointer("/data/certificate").or_else(|| answer.get("certificate"));
        Ok(pem.and_then(|pem| pem.as_str()).context("the mount has no CA")?.to_owned())
    }

    pub(crate) async fn issue(&self, vault: &Vault, role: &str) -> Result<Pair> {
        let answer =
            vault.write(&format!("{}/issue/{role}", self.mount), &json!({"common_name": "prometheus"})).await?;
        let text = |key: &str| answer["data"][key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
        Ok(Pair { certificate: text("certificate")?, key: text("private_key")? })
    }
}

/// A folder on the node, whose files change as those of a mounted Secret do: all at once, by a link that is swapped.
pub(crate) struct Folder {
    at: PathBuf,
    version: std::cell::Cell<u32>,
}

impl Folder {
    pub(crate) fn new(cluster: &Cluster, path: &str) -> Result<Self> {
        let at = cluster.bed()?.nodes().first().context("no node")?.host_path(path)?;
        fs::create_dir_all(&at)?;
        Ok(Self { at, version: std::cell::Cell::default() })
    }

    /// From now on it holds `files`.
    pub(crate) fn swap(&self, files: &[(&str, &str)]) -> Result<()> {
        self.version.set(self.version.get() + 1);
        let version = format!("..v{}", self.version.get());
        fs::create_dir(self.at.join(&version))?;
        for (name, content) in files {
            fs::write(self.at.join(&version).join(name), content)?;
            let link = self.at.join(name);
            if !link.is_symlink() {
                std::os::unix::fs::symlink(format!("..data/{name}"), link)?;
            }
        }
        let new = self.at.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &new)?;
        fs::rename(new, self.at.join("..data"))?;
        Ok(())
    }
}

/// One scrape over a connection of its own, as whoever has `own`, of a server that `ca` has signed. The certificate that was
/// shown.
pub(crate) async fn scrape(ip: IpAddr, ca: &str, own: Option<&Pair>) -> Result<(String, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain: Vec<_> =
                CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?)?
        }
    };
    let exchange = async {
        let stream = TcpStream::connect((ip, PORT)).await.context("no connection")?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(NAME.try_into()?, stream).await.context("no handshake")?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).context("nothing shown")?;
        let shown = shown.to_vec();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: kubernetes-vault\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        // rustls tells a connection that is cut from one that is closed.
        stream.read_to_string(&mut page).await.context("no page")?;
        ensure!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        Ok((page, shown))
    };
    timeout(SCRAPE_LIMIT, exchange).await.context("no page in time")?
}
