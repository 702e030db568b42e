//! Identities that Vault has issued: under a CA that issues for others as well, so that the URI alone counts.

use super::from_files::{NOW, OURS, Pki};
use super::*;
use crate::domain::ids::Timestamp;

const URI: &str = "kubernetes-vault://kube-system/kubernetes-vault/peer";

fn mk_issued(pki: &Pki, names: &[&str]) -> IssuedPeer {
    let paths = pki.issue(names, |_| {});
    IssuedPeer {
        origin: "pki/issue/peer".to_owned(),
        certificate: std::fs::read_to_string(paths.cert).unwrap(),
        ca_chain: vec![pki.ca.pem()],
        key: SecretString::from(std::fs::read_to_string(paths.key).unwrap()),
        cas: pki.ca.pem(),
        former: Vec::new(),
    }
}

fn load(issued: &IssuedPeer) -> ClusterIdentity {
    ClusterIdentity::from_vault(&scope(), issued, NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(issued: &IssuedPeer) -> String {
    ClusterIdentity::from_vault(&scope(), issued, NOW).err().unwrap().to_string()
}

#[tokio::test]
async fn who_has_the_uri_is_a_peer() {
    let pki = Pki::new();
    assert_friends(&load(&mk_issued(&pki, &[URI])), &load(&mk_issued(&pki, &[URI, "anything.example"]))).await;
    // Kept on disk and read again, it is the same.
    let kept = IssuedPeer::from_bytes(&mk_issued(&pki, &[URI]).to_bytes()).unwrap();
    assert_friends(&load(&kept), &load(&mk_issued(&pki, &[URI]))).await;
}

// The role that issues the certificate of the metrics page gives this name to whoever may use it.
#[tokio::test]
async fn the_services_dns_name_makes_no_peer() {
    let pki = Pki::new();
    let ours = load(&mk_issued(&pki, &[URI]));
    let theirs = super::from_files::load(&pki.issue(&[OURS], |_| {}));
    let (called, served) = meet(&theirs, &ours).await;
    assert_eq!(served, Err(PeerTlsFailure::AnotherName));
    assert_eq!(called, Err(PeerTlsFailure::NotAccepted("it does not name the peer's service".to_owned())));
    let (called, _) = meet(&ours, &theirs).await;
    assert_eq!(called, Err(PeerTlsFailure::AnotherName));
    let said = refusal(&mk_issued(&pki, &[OURS]));
    assert!(said.contains(URI) && said.contains("allowed_uri_sans"), "{said}");
}

// In whatever order replicas learn of a new CA and renew: whoever was issued by the former one stays a peer.
#[tokio::test]
async fn peers_come_together_while_the_ca_is_replaced() {
    let (old, new) = (Pki::new(), Pki::new());
    let behind = load(&mk_issued(&old, &[URI]).with_cas(&new.ca.pem(), NOW));
    let ahead = {
        let renewed = mk_issued(&new, &[URI]);
        let former = mk_issued(&old, &[URI]).with_cas(&new.ca.pem(), NOW);
        load(&IssuedPeer { former: former.former, ..renewed })
    };
    assert_friends(&behind, &ahead).await;
    // Until the last certificate of the former one has run out.
    let later = Timestamp(NOW.0 + u64::try_from(PEER_TTL.as_millis()).unwrap());
    let renewed = mk_issued(&new, &[URI]);
    let former = mk_issued(&old, &[URI]).with_cas(&new.ca.pem(), NOW).former;
    let ahead = ClusterIdentity::from_vault(&scope(), &IssuedPeer { former, ..renewed }, later).ok().unwrap();
    let (called, served) = meet(&behind, &ahead).await;
    assert!(called.is_err() && served.is_err(), "a former CA is not believed for ever");
    let stranger = load(&mk_issued(&new, &[URI]));
    let (called, served) = meet(&behind, &stranger).await;
    assert!(called.is_err() && served.is_err(), "who never believed the former CA does not now");
}

#[test]
fn what_is_wrong_with_it_is_said_without_the_key() {
    let pki = Pki::new();
    let good = || mk_issued(&pki, &[URI]);
    let canary = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n";
    for (issued, says) in [
        (IssuedPeer { certificate: String::new(), ..good() }, "no PEM certificate"),
        (IssuedPeer { key: canary.into(), ..good() }, "failed to parse private key"),
        (IssuedPeer { key: "canary".into(), ..good() }, "no PEM private key"),
        (IssuedPeer { key: mk_issued(&pki, &[URI]).key, ..good() }, "keys may not be consistent"),
        (IssuedPeer { cas: Pki::new().ca.pem(), ca_chain: Vec::new(), ..good() }, "raft.tls.vaultCABackends"),
        (IssuedPeer { cas: String::new(), ..good() }, "CAs of peers"),
    ] {
        let said = refusal(&issued);
        assert!(said.contains(says), "{says}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
}
