//! Identities out of a secret.

use std::fmt::Write as _;

use ring::digest;
use rustls::version::TLS13;

use super::*;
use crate::tls::derive::DerivedCa;

#[tokio::test]
async fn replicas_with_the_same_secret_are_friends() {
    let (one, other) = (derived(TOKEN, &scope()), derived(TOKEN, &scope()));
    assert_friends(&one, &other).await;
}

/// What differs, each alone. The client says no first; that the server would too is seen below.
#[tokio::test]
async fn whatever_differs_parts_them() {
    let ours = derived(TOKEN, &scope());
    let others = [
        derived("hvs.anotheranotheranotheranother", &scope()),
        derived(TOKEN, &Scope { namespace: "vault".to_owned(), ..scope() }),
        derived(TOKEN, &Scope { service: "kubernetes-vault2".to_owned(), ..scope() }),
        derived(TOKEN, &Scope { cluster: "blue".to_owned(), ..scope() }),
        // The same letters, cut elsewhere.
        derived(
            TOKEN,
            &Scope { namespace: "kube-systemk".to_owned(), service: "ubernetes-vault".to_owned(), ..scope() },
        ),
        derived(TOKEN, &Scope { service: "kubernetes-vaul".to_owned(), cluster: "t".to_owned(), ..scope() }),
    ];
    for (index, other) in others.iter().enumerate() {
        for (client, server) in [(&ours, other), (other, &ours)] {
            let (called, served) = meet(client, server).await;
            assert_eq!(called, Err(PeerTlsFailure::AnotherCa), "{index}");
            let refused = served.unwrap_err();
            assert_eq!(refused, PeerTlsFailure::NotAccepted("it is of another CA".to_owned()), "{index}");
            assert!(refused.concerns_identity());
        }
    }
}

/// The server does not rely on the client's own check.
#[tokio::test]
async fn a_server_refuses_a_certificate_of_another_secret_by_itself() {
    let leaf = DerivedCa::new(&secret("another"), &scope()).unwrap().issue(&scope()).unwrap();
    let client = careless(Some((vec![leaf.certificate], leaf.key)), &[&TLS13]);
    let (called, served) = meet_careless(client, &derived(TOKEN, &scope())).await;
    assert_eq!(served, Err(PeerTlsFailure::AnotherCa));
    assert_eq!(called, Err(PeerTlsFailure::NotAccepted("it is of another CA".to_owned())));
}

/// Each step of a rotation, between a replica that has taken it and one that has not.
#[tokio::test]
async fn a_secret_is_replaced_without_a_gap() {
    let identity = |first: &str, second: Option<&str>| {
        ClusterIdentity::derive(&scope(), &secret(first), second.map(secret).as_ref()).unwrap()
    };
    let steps =
        [identity("old", None), identity("old", Some("new")), identity("new", Some("old")), identity("new", None)];
    for (before, after) in steps.iter().zip(&steps[1..]) {
        assert_friends(before, after).await;
        assert_friends(after, after).await;
    }
    // And the old secret is good for nothing in the end.
    let (called, _) = meet(&steps[0], &steps[3]).await;
    assert_eq!(called, Err(PeerTlsFailure::AnotherCa));
}

/// Made by another implementation (Python's hmac, openssl). Should this fail, the version at hand cannot join a cluster
/// of the last one.
#[test]
fn the_derivation_does_not_change() {
    let ca = DerivedCa::new(&secret("golden secret of 32 bytes or more"), &scope()).unwrap();
    // What DER puts before an Ed25519 key in a SubjectPublicKeyInfo.
    let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    spki.extend_from_slice(ca.public_key());
    let fingerprint = digest::digest(&digest::SHA256, &spki);
    let hex = fingerprint.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(hex, "fe09a620031610c75ad62b0ae1289ed182d937a02a512ead1fcddb86f31fe1e8");
    // And it is the key that verifies.
    let certificate = ca.certificate().unwrap();
    assert!(certificate.windows(spki.len()).any(|window| window == spki));
}

#[test]
fn each_replica_has_a_key_of_its_own() {
    let ca = DerivedCa::new(&secret(TOKEN), &scope()).unwrap();
    let (one, other) = (ca.issue(&scope()).unwrap(), ca.issue(&scope()).unwrap());
    assert_ne!(one.key.secret_der(), other.key.secret_der());
}

/// A node whose clock stands at the epoch, or far ahead, is a peer all the same.
#[test]
fn clocks_do_not_matter() {
    use rustls::RootCertStore;
    use rustls::pki_types::UnixTime;
    use std::time::Duration;

    let ca = DerivedCa::new(&secret(TOKEN), &scope()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().unwrap()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier =
        crate::tls::verify::PeerVerifier::new(scope(), crate::tls::verify::Naming::UriOrService, roots, &provider)
            .unwrap();
    let chain = [ca.issue(&scope()).unwrap().certificate];
    // The last one is in the year 9990.
    for seconds in [0, 1_800_000_000, 253_000_000_000] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(verifier.check_own(&chain, now), Ok(()), "{seconds}");
    }
}

#[test]
fn no_secret_is_in_what_can_be_printed() {
    let identity = derived(TOKEN, &scope());
    let text = format!(
        "{:?} {:?} {:?}",
        identity.server(Channel::Raft),
        identity.client(Channel::Raft),
        ClusterIdentity::server_name()
    );
    assert!(!text.contains("canary"), "{text}");
    for failure in [PeerTlsFailure::AnotherCa, PeerTlsFailure::Closed, PeerTlsFailure::NotTls] {
        assert!(!format!("{failure} {failure:?}").contains("canary"));
    }
}
