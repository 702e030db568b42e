//! Identities out of files, under a CA that signs for others as well.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::version::TLS13;
use tempfile::TempDir;

use super::*;
use crate::domain::ids::Timestamp;
use crate::tls::files;

/// 2027.
pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub(super) const OURS: &str = "kubernetes-vault.kube-system.svc";

pub(super) struct Pki {
    pub(super) folder: TempDir,
    issued: Cell<u32>,
    pub(super) ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the company's CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self { folder, issued: Cell::new(0), ca }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A certificate with these names, for both roles, unless `change` says otherwise.
    pub(super) fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> PeerFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, OURS);
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                let text = (*name).try_into().unwrap();
                if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
            })
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.issued.set(self.issued.get() + 1);
        let stem = self.issued.get();
        PeerFiles {
            cert: self.write(&format!("{stem}.pem"), &certificate.pem()),
            key: self.write(&format!("{stem}.key"), &key.serialize_pem()),
            ca: self.path("ca.pem"),
        }
    }
}

pub(super) fn load(paths: &PeerFiles) -> ClusterIdentity {
    ClusterIdentity::from_files(&scope(), paths, NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(paths: &PeerFiles) -> String {
    match ClusterIdentity::from_files(&scope(), paths, NOW) {
        Ok(_) => panic!("accepted {paths:?}"),
        Err(error) => crate::causes::with_causes(&error),
    }
}

#[tokio::test]
async fn each_of_our_names_is_a_peer() {
    let pki = Pki::new();
    let uri = load(&pki.issue(&["kubernetes-vault://kube-system/kubernetes-vault/peer"], |_| {}));
    for names in [
        &[OURS][..],
        &["kubernetes-vault.kube-system"],
        &["Kubernetes-Vault.Kube-System.SVC"],
        &["kubernetes-vault", OURS, "kubernetes-vault.kube-system.svc.cluster.local"],
    ] {
        assert_friends(&uri, &load(&pki.issue(names, |_| {}))).await;
    }
    // No usage at all is any usage.
    assert_friends(&uri, &load(&pki.issue(&[OURS], |params| params.extended_key_usages.clear()))).await;
}

#[tokio::test]
async fn a_certificate_of_another_service_is_refused_on_both_ends() {
    let pki = Pki::new();
    let ours = load(&pki.issue(&[OURS], |_| {}));
    for name in [
        "grafana.kube-system.svc",
        "kubernetes-vault.other.svc",
        // Any namespace may have a service of this name.
        "kubernetes-vault",
        "*.kube-system.svc",
        "kubernetes-vault.kube-system.svc.evil.example",
        "kubernetes-vault://kube-system/grafana/peer",
        "kubernetes-vault://kube-system/kubernetes-vault/peer/",
    ] {
        let paths = pki.issue(&[name], |_| {});
        // By the server: a client that believes anybody.
        let read = files::read(&paths).unwrap();
        let (called, served) = meet_careless(careless(Some((read.chain, read.key)), &[&TLS13]), &ours).await;
        assert_eq!(served, Err(PeerTlsFailure::AnotherName), "{name}");
        assert_eq!(called, Err(PeerTlsFailure::NotAccepted("it does not name the peer's service".to_owned())));
        // By the client.
        let (called, served) = meet_server(&ours, &paths).await;
        assert_eq!(called, Err(PeerTlsFailure::AnotherName), "{name}");
        assert_eq!(served, Err(PeerTlsFailure::NotAccepted("it does not name the peer's service".to_owned())));
        // And by ourselves, before anybody is called.
        let said = refusal(&paths);
        assert!(said.starts_with("raft.tls.certFile (") && said.contains("does not name this service"), "{said}");
        assert!(said.contains(OURS) && said.contains("kubernetes-vault://kube-system/kubernetes-vault/peer"), "{said}");
    }
}

/// A server that takes anybody, with the certificate in `paths`.
async fn meet_server(client: &ClusterIdentity, paths: &PeerFiles) -> (Outcome, Outcome) {
    let read = files::read(paths).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(read.chain, read.key)
        .unwrap();
    config.alpn_protocols = vec![Channel::Raft.alpn().to_vec()];
    let (near, far) = duplex(PIPE_BYTES);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (called, served) = tokio::join!(call(client.connect(Channel::Raft, near)), async {
        let mut got = vec![0; 4];
        acceptor.accept(far).await?.read_exact(&mut got).await?;
        io::Result::Ok(got)
    });
    (called.map_err(|error| explain(&error)), served.map_err(|error| explain(&error)))
}

#[tokio::test]
async fn another_ca_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (ours, theirs) = (load(&pki.issue(&[OURS], |_| {})), load(&other.issue(&[OURS], |_| {})));
    let (called, served) = meet(&ours, &theirs).await;
    assert_eq!(called, Err(PeerTlsFailure::AnotherCa));
    assert_eq!(served, Err(PeerTlsFailure::NotAccepted("it is of another CA".to_owned())));
    // Nor is a derived identity a peer of one from files.
    let (called, _) = meet(&derived(TOKEN, &scope()), &ours).await;
    assert_eq!(called, Err(PeerTlsFailure::AnotherCa));
    // While a CA is replaced, the file holds both.
    let both = pki.write("both.pem", &(pki.ca.pem() + &other.ca.pem()));
    let old = load(&PeerFiles { ca: both.clone(), ..pki.issue(&[OURS], |_| {}) });
    let new = load(&PeerFiles { ca: both, ..other.issue(&[OURS], |_| {}) });
    assert_friends(&old, &new).await;
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_path() {
    let pki = Pki::new();
    let good = || pki.issue(&[OURS], |_| {});
    let (cert, key, ca) = ("raft.tls.certFile", "raft.tls.certKey", "raft.tls.caCert");
    let empty = pki.write("empty.pem", "");
    let broken = pki.write("broken.pem", "-----BEGIN CERTIFICATE-----\ncanary!\n-----END CERTIFICATE-----\n");
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGkcanary\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\ncanary\n-----END RSA PRIVATE KEY-----\n";
    let (pkcs8, old) = (pki.write("pkcs8.key", pkcs8), pki.write("old.key", old));
    let another_key = pki.issue(&["another.example"], |_| {}).key;
    let folder = pki.folder.path().to_owned();
    let large = pki.write("large.pem", &"x".repeat(1024 * 1024 + 1));
    let other_ca = pki.write("other-ca.pem", &Pki::new().ca.pem());
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2030, 1, 1);
    let one_role = |params: &mut CertificateParams| params.extended_key_usages.truncate(1);
    for (paths, key, says) in [
        (PeerFiles { cert: pki.path("missing"), ..good() }, cert, "No such file"),
        (PeerFiles { cert: folder.clone(), ..good() }, cert, "not a regular file"),
        (PeerFiles { cert: empty.clone(), ..good() }, cert, "no PEM certificate"),
        (PeerFiles { cert: broken.clone(), ..good() }, cert, "not PEM"),
        (PeerFiles { cert: good().key, ..good() }, cert, "no PEM certificate"),
        (PeerFiles { cert: large, ..good() }, cert, "larger than"),
        (PeerFiles { key: folder.clone(), ..good() }, key, "not a regular file"),
        (PeerFiles { key: empty.clone(), ..good() }, key, "no PEM private key"),
        (PeerFiles { key: good().cert, ..good() }, key, "no PEM private key"),
        (PeerFiles { key: pkcs8, ..good() }, key, "encrypted"),
        (PeerFiles { key: old, ..good() }, key, "encrypted"),
        (PeerFiles { key: another_key, ..good() }, key, "not the key of the certificate"),
        (PeerFiles { ca: empty, ..good() }, ca, "no PEM certificate"),
        (PeerFiles { ca: broken, ..good() }, ca, "not PEM"),
        (PeerFiles { ca: folder, ..good() }, ca, "not a regular file"),
        (PeerFiles { ca: other_ca, ..good() }, cert, "does not lead to it"),
        (pki.issue(&[OURS], expired), cert, "expired"),
        (pki.issue(&[OURS], future), cert, "not valid yet"),
        (pki.issue(&[OURS], one_role), cert, "both, server and client"),
        (pki.issue(&[], |_| {}), cert, "does not name this service"),
    ] {
        let path = match key {
            "raft.tls.certFile" => &paths.cert,
            "raft.tls.certKey" => &paths.key,
            _ => &paths.ca,
        };
        let said = refusal(&paths);
        assert!(said.contains(key) && said.contains(&path.display().to_string()), "{said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
}
