use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use url::Url;

use super::*;
use crate::domain::delivery::VaultTrouble;
use crate::vault::call::{ApiPath, Call};
use crate::vault::client::Client;
use crate::vault::fake::{Fake, Reply};
use crate::vault::proxies::Proxies;

struct Served {
    /// What to put into `vault.tls.caCert`.
    pem: String,
    config: Arc<ServerConfig>,
}

fn serve(chain: Vec<CertificateDer<'static>>, key: &KeyPair, pem: String) -> Served {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Served { pem, config: Arc::new(config) }
}

/// By a CA of its own.
fn mk_issued(name: &str) -> Served {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    serve(vec![leaf.der().clone()], &key, ca.pem())
}

/// As `openssl req -x509` makes it (marked as a CA) or not.
fn mk_self_signed(name: &str, is_ca: bool) -> Served {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    serve(vec![certificate.der().clone()], &key, certificate.pem())
}

async fn ask(served: &Served, trust: &Trust<'_>, server_name: Option<&str>) -> Result<(), VaultTrouble> {
    let fake = Fake::serve(Some(Arc::clone(&served.config)), |_| Reply::says(200, "{}")).await;
    let tls = Tls { server_name: server_name.map(ToOwned::to_owned), ..Tls::default() };
    let config = client_config(trust, &tls).unwrap();
    let client = Client::new(&Url::parse(&fake.url).unwrap(), None, Some(config), &Proxies::default()).unwrap();
    client.send(&Call::get(ApiPath::default().then("sys/health"))).await.map(drop)
}

fn bundle(pem: &str) -> Trust<'_> {
    Trust::Bundle { key: "vault.tls.caCert", pem }
}

#[tokio::test]
async fn the_configured_ca_alone_is_believed() {
    let served = mk_issued("127.0.0.1");
    ask(&served, &bundle(&served.pem), None).await.unwrap();
    ask(&served, &Trust::Anyone, None).await.unwrap();
    for trust in [Trust::Public, bundle(&mk_issued("127.0.0.1").pem)] {
        let trouble = ask(&served, &trust, None).await.err().unwrap().to_string();
        assert!(trouble.contains("vault.tls.caCert"), "{trouble}");
    }
}

#[tokio::test]
async fn other_public_roots_take_the_place_of_those_compiled_in() {
    let (served, other) = (mk_issued("127.0.0.1"), mk_issued("127.0.0.1"));
    ask(&served, &Trust::Roots(&served.pem), None).await.unwrap();
    ask(&served, &Trust::Roots(&other.pem), None).await.unwrap_err();
    ask(&served, &Trust::Roots(&(other.pem.clone() + &served.pem)), None).await.unwrap();
    let url = Url::parse("https://127.0.0.1").unwrap();
    let missing = Tls { public_roots: Some("/nowhere/roots.pem".into()), ..Tls::default() };
    let error = towards(&url, None, &missing).err().unwrap().to_string();
    assert!(error.contains("SSL_CERT_FILE") && error.contains("/nowhere/roots.pem"), "{error}");
    // A configured CA does not ask for them, nor does plain http.
    assert!(towards(&url, Some(&served.pem), &missing).unwrap().is_some());
    assert!(towards(&Url::parse("http://127.0.0.1").unwrap(), None, &missing).unwrap().is_none());
}

#[tokio::test]
async fn the_name_is_checked_or_the_one_that_is_configured_instead() {
    let served = mk_issued("vault.example.com");
    let trouble = ask(&served, &bundle(&served.pem), None).await.err().unwrap().to_string();
    assert!(trouble.contains("vault.tls.serverName"), "{trouble}");
    ask(&served, &bundle(&served.pem), Some("vault.example.com")).await.unwrap();
    ask(&served, &bundle(&served.pem), Some("other.example.com")).await.unwrap_err();
}

#[tokio::test]
async fn a_self_signed_certificate_may_be_configured_itself() {
    for is_ca in [true, false] {
        let served = mk_self_signed("127.0.0.1", is_ca);
        ask(&served, &bundle(&served.pem), None).await.unwrap();
        ask(&mk_self_signed("127.0.0.1", is_ca), &bundle(&served.pem), None).await.unwrap_err();
        let other = mk_self_signed("vault.example.com", is_ca);
        ask(&other, &bundle(&other.pem), None).await.unwrap_err();
        ask(&other, &bundle(&other.pem), Some("vault.example.com")).await.unwrap();
    }
}

#[test]
fn what_is_no_certificate_is_refused_with_its_key() {
    for bad in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        let error = client_config(&bundle(bad), &Tls::default()).err().unwrap();
        assert!(error.to_string().starts_with("vault.tls.caCert: "), "{error}");
    }
    let tls = Tls { server_name: Some("a b".into()), ..Tls::default() };
    assert!(client_config(&Trust::Public, &tls).is_err());
}
