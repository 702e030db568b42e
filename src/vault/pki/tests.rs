//! Certificates from Vault, in real time: sockets and a paused clock do not go together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::vault::fake::{Reply, Rig, Seen, errors};

const ISSUE: &str = "/v1/pki/issue/metrics";
/// The test's now; certificates expire relative to it.
const NOW: u64 = 1_800_000_000;

fn mk_request() -> CertificateRequest {
    CertificateRequest {
        mount: "pki".to_owned(),
        role: "metrics".to_owned(),
        common_name: "kubernetes-vault".to_owned(),
        ip_sans: "10.0.0.1".to_owned(),
        ..CertificateRequest::default()
    }
}

fn issued(ttl: u64) -> Reply {
    let data = serde_json::json!({"certificate": "the certificate", "ca_chain": ["the CA"], "private_key": "canary-key",
        "expiration": NOW + ttl});
    Reply::Says(200, serde_json::json!({ "data": data }).to_string())
}

async fn rig(script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Rig {
    Rig::start(script).await.usable().await
}

/// Keeps a certificate until `done` of what was taken.
async fn kept(rig: &Rig, done: usize, take: impl Fn(usize) -> Taken + Send + Sync) -> usize {
    let taken = AtomicUsize::new(0);
    let never = Notify::new();
    let keep = rig.handle.keep_certificate(
        mk_request(),
        Duration::ZERO,
        &never,
        || NOW,
        |issued| {
            assert_eq!((issued.certificate.as_str(), issued.ca_chain.len()), ("the certificate", 1));
            take(taken.fetch_add(1, Ordering::Relaxed))
        },
    );
    tokio::select! {
        () = keep => unreachable!("it goes on for ever"),
        () = rig.until(|_| taken.load(Ordering::Relaxed) >= done) => taken.load(Ordering::Relaxed),
    }
}

#[tokio::test]
async fn the_request_says_what_was_asked_and_nothing_that_is_empty() {
    let rig = rig(|seen| (seen.path == ISSUE).then(|| issued(3600))).await;
    kept(&rig, 1, |_| Ok(())).await;
    let seen = rig.fake.seen().into_iter().find(|seen| seen.path == ISSUE).unwrap();
    assert_eq!(seen.body, r#"{"common_name":"kubernetes-vault","ip_sans":"10.0.0.1"}"#);
    assert!(seen.token().is_some());
    rig.until(|rig| *rig.told.certificates.lock().unwrap() == [false]).await;
    assert_eq!(rig.fake.count(ISSUE), 1, "the next one is due in half an hour");
}

// Bad-input row: a certificate shorter than the renewal interval.
#[tokio::test]
async fn a_certificate_that_is_over_at_once_makes_no_busy_loop() {
    let rig = rig(|seen| (seen.path == ISSUE).then(|| issued(0))).await;
    let began = Instant::now();
    kept(&rig, 2, |_| Ok(())).await;
    assert!(began.elapsed() >= LEAST, "{:?}", began.elapsed());
    assert_eq!(rig.fake.count(ISSUE), 2);
}

#[tokio::test]
async fn a_series_of_tries_counts_once() {
    let tries = AtomicUsize::new(0);
    let rig = rig(move |seen| {
        (seen.path == ISSUE).then(|| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => errors(400, "common name kubernetes-vault not allowed by this role"),
            1 => Reply::says(502, ""),
            _ => issued(3600),
        })
    })
    .await;
    kept(&rig, 1, |_| Ok(())).await;
    rig.until(|rig| *rig.told.certificates.lock().unwrap() == [false]).await;
    assert_eq!(rig.fake.count(ISSUE), 3);
}

#[tokio::test]
async fn what_is_of_no_use_is_asked_for_anew() {
    let rig = rig(|seen| (seen.path == ISSUE).then(|| issued(3600))).await;
    let refused = |n: usize| if n == 0 { Err("it lacks the URI".to_owned()) } else { Ok(()) };
    kept(&rig, 2, refused).await;
    rig.until(|rig| *rig.told.certificates.lock().unwrap() == [false]).await;
}

// Bad-input row: Vault down at renewal time.
#[tokio::test]
async fn a_series_that_fails_is_counted_and_followed_by_another() {
    let rig = rig(|_| None).await;
    let never = Notify::new();
    let keep = rig.handle.keep_certificate(
        mk_request(),
        Duration::ZERO,
        &never,
        || NOW,
        |_| unreachable!("nothing is issued"),
    );
    tokio::select! {
        () = keep => unreachable!("it goes on for ever"),
        () = rig.until(|rig| *rig.told.certificates.lock().unwrap() == [true]) => {}
    }
    assert!((2..10).contains(&rig.fake.count(ISSUE)), "tried again, and not without a pause");
}

#[tokio::test]
async fn one_that_is_wanted_sooner_comes_before_it_is_due() {
    let rig = rig(|seen| (seen.path == ISSUE).then(|| issued(3600))).await;
    let sooner = Notify::new();
    sooner.notify_one();
    let taken = AtomicUsize::new(0);
    let hour = Duration::from_secs(3600);
    let keep = rig.handle.keep_certificate(
        mk_request(),
        hour,
        &sooner,
        || NOW,
        |_| {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(())
        },
    );
    tokio::select! {
        () = keep => unreachable!("it goes on for ever"),
        () = rig.until(|_| taken.load(Ordering::Relaxed) == 1) => {}
    }
}

// Bad-input row: PKI mount missing.
#[tokio::test]
async fn what_vault_says_of_a_mount_that_is_not_there_is_told() {
    let rig = rig(|_| None).await;
    let trouble = rig.handle.issue_certificate(&mk_request()).await.err().unwrap();
    assert!(trouble.to_string().contains("no handler for route"), "{trouble}");
    let cause = rig.handle.ca_certificates(&["pki".to_owned()]).await.unwrap_err();
    assert!(cause.contains("pki") && cause.contains("no handler for route"), "{cause}");
}

#[tokio::test]
async fn a_bundle_is_handed_over_when_it_is_new() {
    let pem = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    let body = pem.clone();
    let rig = rig(move |seen| seen.path.ends_with("/ca/pem").then(|| Reply::says(200, &body))).await;
    let bundles = Mutex::new(Vec::new());
    let mounts = ["one".to_owned(), "two".to_owned()];
    let follow = rig.handle.follow_cas(
        &mounts,
        |bundle| {
            bundles.lock().unwrap().push(bundle.to_owned());
            Ok(())
        },
        |_| unreachable!("nothing failed"),
    );
    tokio::select! {
        () = follow => unreachable!("it goes on for ever"),
        () = rig.until(|_| !bundles.lock().unwrap().is_empty()) => {}
    }
    assert_eq!(*bundles.lock().unwrap(), [format!("{pem}{pem}")]);
}

#[tokio::test]
async fn cas_that_vault_refuses_are_told_once_and_asked_for_again() {
    let rig = rig(|_| None).await;
    let told = Mutex::new(Vec::new());
    let mounts = ["gone".to_owned()];
    let failed = |failing| told.lock().unwrap().push(failing);
    let follow = rig.handle.follow_cas(&mounts, |_| unreachable!("there is none"), failed);
    tokio::select! {
        () = follow => unreachable!("it goes on for ever"),
        () = rig.until(|rig| rig.fake.count("/v1/gone/ca/pem") >= 2) => {}
    }
    assert_eq!(*told.lock().unwrap(), [true]);
}
