//! Trust that changes while running. [`Connector::look`] is called as [`Connector::follow`] does, without its waits.

use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::deliver::ports::VaultAddress;
use crate::vault::fake::{Fake, Reply, Told, mk_options};
use crate::vault::options::{Login, Tls};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn mk_ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a server of `ca` shows.
fn served_by(ca: &Ca) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

/// A Vault whose mount `pki` names `named`.
async fn vault(shows: &Ca, named: &Arc<Mutex<String>>) -> Fake {
    let named = Arc::clone(named);
    Fake::serve(Some(served_by(shows)), move |seen| match seen.path.as_str() {
        "/v1/pki/ca/pem" => Reply::says(200, &named.lock().unwrap()),
        // A sealed Vault proves who it is as well as any other.
        _ => Reply::says(503, r#"{"errors":["Vault is sealed"]}"#),
    })
    .await
}

struct Rig {
    options: Options,
    url: Url,
    session: Arc<Session>,
    told: Arc<Told>,
}

impl Rig {
    fn new(address: &str, ca: super::Ca) -> Self {
        let options = Options { tls: Tls { ca, ..Tls::default() }, ..mk_options(address) };
        let url = options.url().unwrap();
        let told = Arc::new(Told::default());
        let address = VaultAddress { address: address.to_owned(), ca_bundle: None, namespace: None };
        let session = Arc::new(Session::new(address, Arc::clone(&told) as _));
        Self { options, url, session, told }
    }

    /// From now on Vault is elsewhere: its certificate was replaced.
    fn moved(&mut self, to: &Fake) {
        self.url = Url::parse(&to.url).unwrap();
    }

    async fn connect(&self) {
        self.with(async |connector| connector.connect().await.map(drop).map_err(Stopped::into_trouble).unwrap()).await;
    }

    async fn look(&self) -> Outcome {
        self.with(async |connector| connector.look(false).await).await
    }

    async fn with<T>(&self, act: impl AsyncFnOnce(&Connector<'_>) -> T) -> T {
        let proxies = Proxies::default();
        let connector = Connector { options: &self.options, url: &self.url, proxies: &proxies, session: &self.session };
        act(&connector).await
    }

    /// How many CAs init containers are given.
    fn believed(&self) -> usize {
        crate::pem::certificate_blocks(self.session.address().ca_bundle.as_deref().unwrap_or_default()).count()
    }
}

fn pki(fingerprints: Vec<ca::Fingerprint>) -> super::Ca {
    super::Ca::Pki { mounts: vec!["pki".to_owned()], fingerprints }
}

// A root rotation in flight: the mount names the new root before Vault shows a certificate of it.
#[tokio::test]
async fn both_roots_are_believed_until_vault_shows_a_certificate_of_the_new_one() {
    let (old, new) = (mk_ca(), mk_ca());
    let named = Arc::new(Mutex::new(old.pem()));
    let (before, after) = (vault(&old, &named).await, vault(&new, &named).await);
    let mut rig = Rig::new(&before.url, pki(Vec::new()));
    rig.connect().await;
    assert!(matches!(rig.look().await, Outcome::Same));
    *named.lock().unwrap() = new.pem();
    assert!(matches!(rig.look().await, Outcome::Both));
    assert_eq!((rig.believed(), *rig.told.ca_changes.lock().unwrap()), (2, 1));
    assert!(matches!(rig.look().await, Outcome::Same), "it waits");
    rig.moved(&after);
    assert!(matches!(rig.look().await, Outcome::Adopted));
    assert_eq!((rig.believed(), *rig.told.ca_changes.lock().unwrap()), (1, 2));
    assert!(matches!(rig.look().await, Outcome::Same));
}

#[tokio::test]
async fn a_pinned_ca_that_changes_is_refused() {
    let (old, new) = (mk_ca(), mk_ca());
    let named = Arc::new(Mutex::new(old.pem()));
    let fake = vault(&old, &named).await;
    let pin = ca::Fingerprint::parse(&ca::fingerprints(&old.pem())).unwrap();
    let rig = Rig::new(&fake.url, pki(vec![pin]));
    rig.connect().await;
    *named.lock().unwrap() = new.pem();
    let Outcome::Kept(cause) = rig.look().await else { panic!("it was taken") };
    assert!(cause.contains("vault.tls.caFingerprint"), "{cause}");
    assert_eq!((rig.believed(), *rig.told.ca_changes.lock().unwrap()), (1, 0));
}

#[tokio::test]
async fn a_file_is_followed_once_vault_proves_itself_by_it() {
    let (old, new) = (mk_ca(), mk_ca());
    let named = Arc::new(Mutex::new(String::new()));
    let (before, after) = (vault(&old, &named).await, vault(&new, &named).await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), old.pem()).unwrap();
    let mut rig = Rig::new(&before.url, super::Ca::File(file.path().to_owned()));
    rig.connect().await;
    for (content, says) in [(new.pem(), "vault.tls.caCert"), (String::new(), "no PEM certificate")] {
        std::fs::write(file.path(), content).unwrap();
        let Outcome::Kept(cause) = rig.look().await else { panic!("it was taken") };
        assert!(cause.contains(says), "{cause}");
        assert_eq!(rig.session.address().ca_bundle.as_deref(), Some(&*old.pem()));
    }
    std::fs::write(file.path(), new.pem()).unwrap();
    rig.moved(&after);
    assert!(matches!(rig.look().await, Outcome::Adopted));
    assert_eq!(rig.session.address().ca_bundle.as_deref(), Some(&*new.pem()), "init containers are given it, too");
    assert!(matches!(rig.options.login, Login::Token { .. }), "no token was needed");
}
