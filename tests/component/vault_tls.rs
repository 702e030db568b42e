//! How Vault proves who it is: the right CA, another one, the public roots, and CAs from a PKI mount.

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::deliver::ports::SecretIssuer as _;
use kubernetes_vault::vault::{Ca, ClientCertificate, Fingerprint, Options, State, Tls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use testbed::ControllerPolicy;

use crate::fault_proxy::FaultProxy;
use crate::vault_adapter::{Adapter, options, plain, static_token};
use crate::world::{World, cases};

cases! { ALL:
    the_ca_of_another_vault_is_no_proof_and_the_remedy_is_named,
    the_public_roots_are_no_proof_for_a_private_ca,
    a_wrong_server_name_is_told,
    a_vault_that_wants_a_certificate_of_its_clients_is_shown_the_configured_one,
    the_ca_comes_from_a_pki_mount_and_goes_to_init_containers,
    a_pinned_ca_of_a_pki_mount_must_match,
    a_pki_mount_without_a_ca_is_named,
}

async fn unreachable(options: Options, words: &[&str]) -> Result<()> {
    let adapter = Adapter::start(options)?;
    let told = |state: &State| matches!(state, State::Starting(why) if words.iter().all(|word| why.contains(word)));
    adapter.until(&format!("said {words:?}"), told).await?;
    adapter.stop().await
}

pub(crate) fn other_ca(name: &str) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}

// Bad-input table: Vault with a wrong certificate.
async fn the_ca_of_another_vault_is_no_proof_and_the_remedy_is_named(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    // Of another name, and of the very same name with another key.
    for name in ["another-vault", "testbed-vault"] {
        let file = world.bed.directory().join(world.name("other-ca"));
        std::fs::write(&file, other_ca(name)?)?;
        let mut options = options(world, &token)?;
        options.tls.ca = Ca::File(file);
        unreachable(options, &["vault.tls.caCert", "vault.tls.vaultCABackends"]).await?;
    }
    Ok(())
}

async fn the_public_roots_are_no_proof_for_a_private_ca(world: &World) -> Result<()> {
    let mut options = options(world, &world.token(ControllerPolicy::Ours).await?)?;
    options.tls = Tls::default();
    unreachable(options, &["vault.tls.caCert"]).await
}

async fn a_wrong_server_name_is_told(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let mut wrong = options(world, &token)?;
    wrong.tls.server_name = Some("vault.example.com".to_owned());
    unreachable(wrong, &["vault.tls.serverName"]).await?;
    let mut right = options(world, &token)?;
    right.tls.server_name = Some("vault.default.svc".to_owned());
    Adapter::ready(right).await?.stop().await
}

// Bad-input table: Vault requires client certificates.
async fn a_vault_that_wants_a_certificate_of_its_clients_is_shown_the_configured_one(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let vault = world.vault()?;
    let strict = || Ok::<_, anyhow::Error>(Options { address: vault.strict_address(), ..options(world, &token)? });
    unreachable(strict()?, &["vault.tls.clientCert", "vault.tls.clientKey"]).await?;
    let write = |name: &str, text: &str| {
        let file = world.bed.directory().join(world.name(name));
        std::fs::write(&file, text).map(|()| file)
    };
    let shown = |certificate: &str, key: &str| -> Result<Options> {
        let mut options = strict()?;
        let (certificate, key) = (write("client.crt", certificate)?, write("client.key", key)?);
        options.tls.client = Some(ClientCertificate { certificate, key });
        Ok(options)
    };
    let (key, parameters) = (KeyPair::generate()?, CertificateParams::new(Vec::new())?);
    let unknown = shown(&parameters.self_signed(&key)?.pem(), &key.serialize_pem())?;
    unreachable(unknown, &["vault.tls.clientCert", "tls_client_ca_file"]).await?;
    let (certificate, key) = vault.client_certificate()?;
    let adapter = Adapter::ready(shown(&certificate, &key)?).await?;
    adapter.wrap(&world.approle("shown").await?).await??;
    adapter.stop().await
}

/// A PKI mount whose CA signed the certificate of what stands before Vault.
async fn pki_mount(world: &World) -> Result<(String, FaultProxy)> {
    let (vault, mount, ip) = (world.vault()?, world.name("pki"), world.address());
    vault.write(&format!("sys/mounts/{mount}"), &json!({"type": "pki"})).await?;
    vault.write(&format!("{mount}/root/generate/internal"), &json!({"common_name": "pki-ca", "ttl": "1h"})).await?;
    let role = json!({"allow_any_name": true, "allow_ip_sans": true, "max_ttl": "1h"});
    vault.write(&format!("{mount}/roles/server"), &role).await?;
    let wanted = json!({"common_name": "vault", "ip_sans": ip.to_string(), "ttl": "30m"});
    let issued = vault.write(&format!("{mount}/issue/server"), &wanted).await?;
    let text = |key: &str| issued["data"][key].as_str().with_context(|| format!("no {key}")).map(str::as_bytes);
    let certificate = CertificateDer::from_pem_slice(text("certificate")?)?;
    let key = PrivateKeyDer::from_pem_slice(text("private_key")?)?;
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    Ok((mount, FaultProxy::start_tls(world, ip, tls).await?))
}

fn pki(mount: &str, fingerprints: Vec<Fingerprint>) -> Ca {
    Ca::Pki { mounts: vec![mount.to_owned()], fingerprints }
}

fn behind(proxy: &FaultProxy, token: &str, ca: Ca) -> Options {
    Options { tls: Tls { ca, ..Tls::default() }, ..plain(&proxy.url(), static_token(token)) }
}

async fn the_ca_comes_from_a_pki_mount_and_goes_to_init_containers(world: &World) -> Result<()> {
    let (mount, proxy) = pki_mount(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let adapter = Adapter::ready(behind(&proxy, &token, pki(&mount, Vec::new()))).await?;
    let bundle = adapter.handle.address().ca_bundle.clone().context("no bundle for init containers")?;
    let issuer = world.vault()?.read(&format!("{mount}/cert/ca")).await?;
    ensure!(issuer["data"]["certificate"] == bundle.trim(), "another bundle: {bundle}");
    adapter.wrap(&world.approle("pki").await?).await??;
    adapter.stop().await
}

async fn a_pinned_ca_of_a_pki_mount_must_match(world: &World) -> Result<()> {
    let (mount, proxy) = pki_mount(world).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let text = Adapter::fatal(behind(&proxy, &token, pki(&mount, vec![Fingerprint::from([7; 32])]))).await?;
    ensure!(text.contains(&mount) && text.contains("vault.tls.caFingerprint"), "{text}");
    ensure!(proxy.seen("lookup-self").is_empty(), "the token was sent to a host that is not the pinned one");
    // The message says which one it is: an operator who trusts it can copy it.
    let found = text.split("SHA-256 ").nth(1).and_then(|rest| rest.split(',').next()).context("no fingerprint")?;
    let right = pki(&mount, vec![Fingerprint::parse(found)?]);
    Adapter::ready(behind(&proxy, &token, right)).await?.stop().await
}

async fn a_pki_mount_without_a_ca_is_named(world: &World) -> Result<()> {
    let (vault, empty, keyless) = (world.vault()?, world.name("empty-pki"), world.name("keyless-pki"));
    for mount in [&empty, &keyless] {
        vault.write(&format!("sys/mounts/{mount}"), &json!({"type": "pki"})).await?;
    }
    let bundle = json!({"pem_bundle": other_ca("keyless")?});
    let imported = vault.write(&format!("{keyless}/issuers/import/cert"), &bundle).await?;
    let issuer = json!({"default": imported["data"]["imported_issuers"][0]});
    vault.write(&format!("{keyless}/config/issuers"), &issuer).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    for (mount, words) in
        [(empty, "no CA certificate"), (keyless, "without its key"), (world.name("none"), "permission denied")]
    {
        let mut options = options(world, &token)?;
        options.tls.ca = pki(&mount, Vec::new());
        let text = Adapter::fatal(options).await?;
        ensure!(text.contains("vault.tls.vaultCABackends") && text.contains(&mount) && text.contains(words), "{text}");
    }
    Ok(())
}
