//! The certificate of the metrics page, and who may scrape.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::version::{TLS12, TLS13};

use super::from_files::{NOW, Pki};
use super::*;

const NAME: &str = "kubernetes-vault";

fn named(paths: &PeerFiles) -> (Named, Named) {
    (Named::new("prometheus.tls.certFile", &paths.cert), Named::new("prometheus.tls.certKey", &paths.key))
}

fn shown(pki: &Pki) -> Shown {
    let (cert, key) = named(&pki.issue(&[NAME], |_| {}));
    Shown::from_files(&cert, &key, NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn cas(pki: &Pki) -> ScraperCas {
    ScraperCas::from_file(&Named::new("prometheus.tls.caCert", &pki.path("ca.pem"))).unwrap_or_else(|e| panic!("{e}"))
}

/// How the server's handshake with `client` ends, as a label.
async fn scrape(server: &Arc<rustls::ServerConfig>, client: ClientConfig) -> &'static str {
    let (near, far) = duplex(PIPE_BYTES);
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(server));
    let client = async {
        let mut stream = connector.connect(NAME.try_into().unwrap(), near).await?;
        stream.read_u8().await
    };
    let (_, served) = tokio::join!(client, async {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await
    });
    served.map_or_else(|error| scraper_refusal(&error), |()| "served")
}

/// A scraper's own certificate.
fn scraper(pki: &Pki, change: impl FnOnce(&mut CertificateParams)) -> ClientConfig {
    let read = crate::tls::files::read(&pki.issue(&["prometheus"], change)).unwrap();
    let mut config = careless(Some((read.chain, read.key)), &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn anonymous(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let mut config = careless(None, &[version]);
    config.alpn_protocols.clear();
    config
}

#[tokio::test]
async fn without_cas_anybody_scrapes_over_tls_1_2_and_1_3() {
    let config = scraper_config(&shown(&Pki::new()), None).unwrap();
    assert_eq!(scrape(&config, anonymous(&TLS13)).await, "served");
    assert_eq!(scrape(&config, anonymous(&TLS12)).await, "served");
}

// Bad-input row: a scraper without a certificate, with one of another CA, expired, revoked by CA removal.
#[tokio::test]
async fn with_cas_only_their_certificates_scrape() {
    let (ours, other) = (Pki::new(), Pki::new());
    let config = scraper_config(&shown(&ours), Some(&cas(&ours))).unwrap();
    assert_eq!(scrape(&config, scraper(&ours, |_| {})).await, "served");
    assert_eq!(scrape(&config, anonymous(&TLS13)).await, "no_certificate");
    assert_eq!(scrape(&config, anonymous(&TLS12)).await, "no_certificate");
    assert_eq!(scrape(&config, scraper(&other, |_| {})).await, "bad_certificate");
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    assert_eq!(scrape(&config, scraper(&ours, expired)).await, "bad_certificate");
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert_eq!(scrape(&config, scraper(&ours, server_only)).await, "bad_certificate");
    let without = scraper_config(&shown(&ours), Some(&cas(&other))).unwrap();
    assert_eq!(scrape(&without, scraper(&ours, |_| {})).await, "bad_certificate");
}

// Bad-input row: certificate and key that do not match, expired, not yet valid, wrong usage, encrypted key, empty bundle, a
// directory, a half-written file, a file that vanishes.
#[test]
fn what_cannot_be_shown_is_refused_by_file_and_reason() {
    let pki = Pki::new();
    let good = || pki.issue(&[NAME], |_| {});
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2030, 1, 1);
    let client_only =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGkcanary\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let half = std::fs::read_to_string(good().cert).unwrap();
    let (cert, key) = ("prometheus.tls.certFile", "prometheus.tls.certKey");
    for (paths, named_key, says) in [
        (PeerFiles { cert: pki.path("missing"), ..good() }, cert, "cannot read"),
        (PeerFiles { cert: pki.folder.path().to_owned(), ..good() }, cert, "cannot read"),
        (PeerFiles { cert: pki.write("half.pem", &half[..half.len() / 2]), ..good() }, cert, "not PEM"),
        (PeerFiles { cert: pki.write("empty.pem", ""), ..good() }, cert, "no PEM certificate"),
        (PeerFiles { key: pki.write("encrypted.key", encrypted), ..good() }, key, "encrypted"),
        (PeerFiles { key: good().key, ..good() }, key, "not the key of the certificate in prometheus.tls.certFile"),
        (pki.issue(&[NAME], expired), cert, "expired"),
        (pki.issue(&[NAME], future), cert, "not valid for another"),
        (pki.issue(&[NAME], client_only), cert, "not for servers"),
    ] {
        let (one, other) = named(&paths);
        let said = crate::causes::with_causes(&Shown::from_files(&one, &other, NOW).err().unwrap());
        assert!(said.contains(named_key) && said.contains(says), "{says}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
    let bundle = Named::new("prometheus.tls.caCert", &pki.write("empty-bundle.pem", "\n"));
    assert!(ScraperCas::from_file(&bundle).err().unwrap().to_string().contains("no PEM certificate"));
}

#[test]
fn a_certificate_without_usages_is_any_servers_and_its_expiry_is_known() {
    let pki = Pki::new();
    let until = date_time_ymd(2028, 1, 1);
    let paths = pki.issue(&[NAME], |params| {
        params.extended_key_usages.clear();
        params.not_after = until;
    });
    let (cert, key) = named(&paths);
    let validity = Shown::from_files(&cert, &key, NOW).unwrap_or_else(|error| panic!("{error}")).validity;
    assert_eq!(validity.not_after, until.unix_timestamp());
    let pem = std::fs::read_to_string(&paths.cert).unwrap();
    assert_eq!(expiry(&pem), Some(until.unix_timestamp()));
    assert_eq!(expiry("nothing"), None);
}

#[test]
fn what_vault_issues_is_shown_with_its_chain() {
    let pki = Pki::new();
    let paths = pki.issue(&[NAME], |_| {});
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let key = SecretString::from(read(&paths.key));
    assert!(Shown::from_vault(&read(&paths.cert), &[pki.ca.pem()], &key, NOW).is_ok());
    let other = SecretString::from(KeyPair::generate().unwrap().serialize_pem());
    for (certificate, chain, key) in [
        (read(&paths.cert), String::new(), &key),
        (String::new(), pki.ca.pem(), &key),
        (read(&paths.cert), pki.ca.pem(), &other),
    ] {
        let said = Shown::from_vault(&certificate, &[chain], key, NOW).err().unwrap().to_string();
        assert!(said.starts_with("what Vault's PKI gave cannot be used"), "{said}");
    }
}
