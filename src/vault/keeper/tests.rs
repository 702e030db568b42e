//! A token's life, in real time with short TTLs: sockets and a paused clock do not go together.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::deliver::ports::SecretIssuer;
use crate::vault::fake::{CANARY, Reply, Rig, Seen, errors, granted, lookup, mk_options, mk_request};
use crate::vault::options::Options;
use crate::vault::session::State;

const LOOKUP: &str = "/v1/auth/token/lookup-self";
const RENEW: &str = "/v1/auth/token/renew-self";
const REVOKE: &str = "/v1/auth/token/revoke-self";
const LOGIN: &str = "/v1/auth/kubernetes/login";

fn renewals(rig: &Rig) -> Vec<bool> {
    rig.told.renewals.lock().unwrap().clone()
}

fn mk_kubernetes(token_path: &std::path::Path) -> impl FnOnce(&str) -> Options {
    let token_path = token_path.to_owned();
    move |url| Options {
        login: Login::Kubernetes { mount: "kubernetes".into(), role: "kv".into(), token_path },
        ..mk_options(url)
    }
}

/// Hands out `hvs.login-1`, `hvs.login-2`, ...
fn logins(then: impl Fn(&Seen) -> Option<Reply> + Send + Sync) -> impl Fn(&Seen) -> Option<Reply> + Send + Sync {
    let count = AtomicUsize::new(0);
    move |seen| match seen.path.as_str() {
        LOGIN => Some(granted(&format!("hvs.login-{}", count.fetch_add(1, Ordering::Relaxed) + 1), 3600)),
        _ => then(seen),
    }
}

#[tokio::test]
async fn a_token_with_a_short_period_lives_on() {
    let rig = Rig::start(|seen| match seen.path.as_str() {
        LOOKUP => Some(lookup(2, true)),
        RENEW => Some(granted(CANARY, 2)),
        _ => None,
    })
    .await
    .usable()
    .await;
    rig.until(|rig| renewals(rig).len() >= 3).await;
    assert!(renewals(&rig).iter().all(|failed| !failed));
    assert!(rig.told.ttls.lock().unwrap().iter().all(|ttl| *ttl == Some(2)));
}

#[tokio::test]
async fn a_renewal_is_one_however_often_it_is_tried() {
    let tries = AtomicUsize::new(0);
    let rig = Rig::start(move |seen| match seen.path.as_str() {
        LOOKUP => Some(lookup(8, true)),
        RENEW if tries.fetch_add(1, Ordering::Relaxed) < 2 => Some(Reply::says(502, "")),
        _ => None,
    })
    .await
    .usable()
    .await;
    rig.until(|rig| !renewals(rig).is_empty()).await;
    assert_eq!((renewals(&rig), rig.fake.count(RENEW)), (vec![false], 3));
    assert_eq!(*rig.handle.state().borrow(), State::Usable);
    let states = rig.told.states.lock().unwrap();
    assert!(states.iter().any(|state| matches!(state, State::Unavailable(_))), "the trouble shows meanwhile");
}

#[tokio::test]
async fn a_renewal_that_fails_is_counted_and_begun_again_while_the_token_lives() {
    let rig = Rig::start(|seen| match seen.path.as_str() {
        LOOKUP => Some(lookup(4, true)),
        RENEW => Some(errors(500, "internal error")),
        _ => None,
    })
    .await
    .usable()
    .await;
    let begun = Instant::now();
    rig.until(|rig| renewals(rig).len() >= 2).await;
    assert!(renewals(&rig).iter().all(|failed| *failed));
    assert!(begun.elapsed() < Duration::from_secs(20), "not only after the reference's minute");
}

#[tokio::test]
async fn what_cannot_be_renewed_is_replaced_and_the_old_one_revoked_after_its_requests() {
    let jwt = tempfile::NamedTempFile::new().unwrap();
    let script = logins(|seen| match (seen.path.as_str(), seen.token()) {
        (LOOKUP, Some("hvs.login-1")) => Some(lookup(3, false)),
        _ => None,
    });
    let rig = Rig::with(mk_kubernetes(jwt.path()), script).await.usable().await;
    rig.until(|rig| rig.fake.count(LOGIN) == 2 && rig.told.ttls.lock().unwrap().len() == 2).await;
    let replaced = Instant::now();
    assert_eq!(rig.fake.count(REVOKE), 0, "requests may still be under way with it");
    rig.until(|rig| rig.fake.count(REVOKE) == 1).await;
    assert!(replaced.elapsed() >= REQUEST_TIMEOUT);
    assert_eq!(rig.fake.seen().pop().unwrap().token(), Some("hvs.login-1"));
}

#[tokio::test]
async fn a_dead_token_means_one_new_login_however_many_find_out() {
    let jwt = tempfile::NamedTempFile::new().unwrap();
    let dead = std::sync::Arc::new(AtomicBool::new(false));
    let is_dead = std::sync::Arc::clone(&dead);
    let script = logins(move |seen| match seen.token() {
        Some("hvs.login-1") if is_dead.load(Ordering::Relaxed) => Some(errors(403, "permission denied")),
        _ => None,
    });
    let rig = Rig::with(mk_kubernetes(jwt.path()), script).await.usable().await;
    dead.store(true, Ordering::Relaxed);
    let all: Vec<_> = (0..20)
        .map(|_| {
            let handle = rig.handle.clone();
            tokio::spawn(async move { handle.wrap(&mk_request("web")).await.err() })
        })
        .collect();
    for one in all {
        assert!(matches!(one.await.unwrap(), Some(VaultTrouble::NotLoggedIn(_))));
    }
    let rig = rig.usable().await;
    rig.handle.wrap(&mk_request("web")).await.err().unwrap();
    assert_eq!(rig.fake.seen().pop().unwrap().token(), Some("hvs.login-2"));
    assert_eq!(rig.fake.count(LOGIN), 2);
}

#[tokio::test]
async fn another_token_in_the_file_is_verified_before_it_replaces_the_old_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hvs.one\n").unwrap();
    let path = file.path().to_owned();
    let good = std::sync::Arc::new(Mutex::new("hvs.one"));
    let known = std::sync::Arc::clone(&good);
    let options = |url: &str| Options { login: Login::File(path), ..mk_options(url) };
    let rig = Rig::with(options, move |seen| match seen.path.as_str() {
        LOOKUP if seen.token() != Some(*known.lock().unwrap()) => Some(errors(403, "bad token")),
        _ => None,
    })
    .await
    .usable()
    .await;
    let login = Login::File(file.path().to_owned());
    let session = std::sync::Arc::clone(&rig.handle.shared.session);
    let client = session.client().unwrap();
    let held = login::obtain(&client, &login).await.ok().unwrap();
    let mut keeper = Keeper::new(session, client, &login, held);
    let used = || rig.handle.shared.session.ready().ok().unwrap().1;
    for (content, now_good, expected) in [
        ("hvs.two\n", "hvs.one", "hvs.one"),
        ("", "hvs.two", "hvs.one"),
        ("hvs.t\nwo", "hvs.two", "hvs.one"),
        ("\thvs.two\n", "hvs.two", "hvs.two"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        *good.lock().unwrap() = now_good;
        keeper.look().await;
        assert!(used().is(&Token::parse(expected).unwrap()), "{content:?}");
    }
    assert!(keeper.retired.is_empty(), "others may use it, so it is not revoked");
}
