//! Trust that changes while running. [`Connector::look`] is called as [`Connector::follow`] does, without its waits.

use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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

/// An address behind which servers change; whoever was connected before has to connect anew.
struct Relay {
    url: String,
    target: watch::Sender<String>,
}

impl Relay {
    async fn to(fake: &Fake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (target, chosen) = watch::channel(authority(&fake.url));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut chosen = chosen.clone();
                tokio::spawn(async move {
                    let to = chosen.borrow_and_update().clone();
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = chosen.changed() => {}
                    }
                });
            }
        });
        Self { url, target }
    }

    fn now(&self, fake: &Fake) {
        self.target.send_replace(authority(&fake.url));
    }
}

fn authority(url: &str) -> String {
    url.trim_start_matches("https://").to_owned()
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

    async fn connect(&self) {
        self.with(async |connector| connector.connect().await.map(drop).map_err(Stopped::into_trouble).unwrap()).await;
    }

    async fn look(&self) -> Outcome {
        self.with(async |connector| connector.look(false, true).await).await
    }

    /// While the old root was needed a moment ago. The first look may find its connection cut.
    async fn look_soon_after(&self) -> Outcome {
        self.with(async |connector| match connector.look(false, false).await {
            Outcome::Silent => connector.look(false, false).await,
            outcome => outcome,
        })
        .await
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
    let relay = Relay::to(&before).await;
    let rig = Rig::new(&relay.url, pki(Vec::new()));
    rig.connect().await;
    assert!(matches!(rig.look().await, Outcome::Same));
    *named.lock().unwrap() = new.pem();
    assert!(matches!(rig.look().await, Outcome::Both));
    assert_eq!((rig.believed(), *rig.told.ca_changes.lock().unwrap()), (2, 1));
    assert!(matches!(rig.look().await, Outcome::Both), "it is still needed");
    relay.now(&after);
    assert!(matches!(rig.look_soon_after().await, Outcome::Same), "another node may show the old one");
    assert_eq!(rig.believed(), 2);
    assert!(matches!(rig.look().await, Outcome::Adopted));
    assert_eq!((rig.believed(), *rig.told.ca_changes.lock().unwrap()), (1, 2));
    assert!(matches!(rig.look().await, Outcome::Same));
}

// Whoever stands in between for a moment, with a CA of their own, must not be believed from then on.
#[tokio::test]
async fn what_an_unverified_server_says_is_believed_at_the_start_alone() {
    let (ours, theirs) = (mk_ca(), mk_ca());
    let genuine = vault(&ours, &Arc::new(Mutex::new(ours.pem()))).await;
    let impostor = vault(&theirs, &Arc::new(Mutex::new(theirs.pem()))).await;
    let relay = Relay::to(&genuine).await;
    let rig = Rig::new(&relay.url, pki(Vec::new()));
    rig.connect().await;
    relay.now(&impostor);
    assert!(matches!(rig.look().await, Outcome::Silent));
    assert_eq!(rig.session.address().ca_bundle.as_deref(), Some(&*ours.pem()));
    assert_eq!(*rig.told.ca_changes.lock().unwrap(), 0);
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
    let relay = Relay::to(&before).await;
    let rig = Rig::new(&relay.url, super::Ca::File(file.path().to_owned()));
    rig.connect().await;
    for (content, says) in [(new.pem(), "vault.tls.caCert"), (String::new(), "no PEM certificate")] {
        std::fs::write(file.path(), content).unwrap();
        let Outcome::Kept(cause) = rig.look().await else { panic!("it was taken") };
        assert!(cause.contains(says), "{cause}");
        assert_eq!(rig.session.address().ca_bundle.as_deref(), Some(&*old.pem()));
    }
    std::fs::write(file.path(), new.pem()).unwrap();
    relay.now(&after);
    assert!(matches!(rig.look().await, Outcome::Adopted));
    assert_eq!(rig.session.address().ca_bundle.as_deref(), Some(&*new.pem()), "init containers are given it, too");
    assert!(matches!(rig.options.login, Login::Token { .. }), "no token was needed");
}
