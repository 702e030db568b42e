//! The start: which tokens are refused and why, and what is waited for.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::deliver::ports::SecretIssuer;
use crate::vault::ca;
use crate::vault::check::TokenFault;
use crate::vault::fake::{CANARY, Fake, Reply, Rig, Told, errors, granted, lookup, mk_options};
use crate::vault::options::{Ca, Login, Tls};
use crate::vault::session::State;

const LOOKUP: &str = "/v1/auth/token/lookup-self";
const ROLE: &str = "/v1/auth/token/roles/kubernetes-vault";
const LOGIN: &str = "/v1/auth/kubernetes/login";

fn mk_static(url: &str) -> Options {
    Options { login: Login::Token { token: format!(" {CANARY}\n").into(), skip_token_role: false }, ..mk_options(url) }
}

fn mk_kubernetes(token_path: PathBuf) -> impl FnOnce(&str) -> Options {
    move |url| Options {
        login: Login::Kubernetes { mount: "kubernetes".into(), role: "kv".into(), token_path },
        ..mk_options(url)
    }
}

fn mk_file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

fn about(change: impl FnOnce(&mut serde_json::Value)) -> Reply {
    let mut data = serde_json::json!({"policies": ["default"], "renewable": true, "creation_ttl": 60, "ttl": 30,
        "role": "kubernetes-vault"});
    change(&mut data);
    Reply::Says(200, serde_json::json!({ "data": data }).to_string())
}

async fn fatal_of(looked_up: Reply, role: Reply) -> Fatal {
    let rig = Rig::with(mk_static, move |seen| match seen.path.as_str() {
        LOOKUP => Some(looked_up.clone()),
        ROLE => Some(role.clone()),
        _ => None,
    })
    .await;
    let fatal = rig.fatal().await;
    assert!(!format!("{fatal} {fatal:?}").contains(CANARY), "{fatal}");
    fatal
}

fn faults(fatal: Fatal) -> Vec<TokenFault> {
    match fatal {
        Fatal::Token { faults, .. } => faults,
        other => panic!("{other}"),
    }
}

// Bad-input row: root token, non-renewable token, token without role, token role with explicit max TTL.
#[tokio::test]
async fn tokens_that_the_reference_refuses_are_refused_by_name() {
    let good = || Reply::says(200, r#"{"data":{"renewable":true,"period":60,"explicit_max_ttl":0}}"#);
    let root = about(|data| data["policies"] = serde_json::json!(["root"]));
    assert_eq!(faults(fatal_of(root, good()).await), [TokenFault::Root]);
    let no_role = about(|data| data["role"] = serde_json::json!(null));
    assert_eq!(faults(fatal_of(no_role, good()).await), [TokenFault::NoTokenRole]);
    let stiff = about(|data| data["renewable"] = serde_json::json!(false));
    assert_eq!(faults(fatal_of(stiff, good()).await), [TokenFault::NotRenewable]);
    let role = Reply::says(200, r#"{"data":{"renewable":true,"period":0,"explicit_max_ttl":60}}"#);
    let name = || "kubernetes-vault".to_owned();
    let both = [TokenFault::RoleExplicitMaxTtl(name()), TokenFault::RoleNotPeriodic(name())];
    assert_eq!(faults(fatal_of(about(|_| ()), role).await), both);
    let denied = faults(fatal_of(about(|_| ()), errors(403, "permission denied")).await);
    assert!(matches!(&denied[..], [TokenFault::RoleUnreadable { .. }]), "{denied:?}");
    let unknown = fatal_of(errors(403, "bad token"), good()).await;
    assert!(matches!(unknown, Fatal::TokenRefused { .. }), "{unknown}");
}

#[tokio::test]
async fn a_good_token_is_used_trimmed() {
    let rig = Rig::with(mk_static, |seen| match seen.path.as_str() {
        ROLE => Some(Reply::says(200, r#"{"data":{"renewable":true,"token_period":60}}"#)),
        _ => None,
    })
    .await
    .usable()
    .await;
    assert!(rig.fake.seen().iter().all(|seen| seen.token() == Some(CANARY)));
    assert_eq!(*rig.handle.state().borrow(), State::Usable);
    assert_eq!(*rig.told.ttls.lock().unwrap(), [Some(3600)]);
    rig.cancel.cancel();
    rig.run.await.unwrap().unwrap();
    assert_eq!(rig.fake.count("/v1/auth/token/revoke-self"), 0, "it is not ours to revoke");
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_for_and_nothing_is_usable_before() {
    let asked = AtomicUsize::new(0);
    let rig = Rig::start(move |seen| match (seen.path.as_str(), asked.fetch_add(1, Ordering::Relaxed)) {
        (LOOKUP, 0) => Some(errors(503, "Vault is sealed")),
        (LOOKUP, 1) => Some(Reply::Resets),
        (LOOKUP, 2) => Some(Reply::says(472, "")),
        (LOOKUP, 3) => Some(errors(429, "rate limit quota exceeded")),
        (LOOKUP, 4) => Some(errors(500, "internal error")),
        _ => None,
    })
    .await
    .usable()
    .await;
    assert_eq!(rig.fake.count(LOOKUP), 6);
    let states = rig.told.states.lock().unwrap().clone();
    assert!(states[1..6].iter().all(|state| matches!(state, State::Starting(_))), "{states:?}");
    assert_eq!(states.last(), Some(&State::Usable));
}

#[tokio::test]
async fn what_is_wrong_without_asking_vault_is_said_at_once() {
    let refused = |change: fn(&mut Options)| {
        let mut options = mk_options("https://vault:8200");
        change(&mut options);
        Service::with_proxies(options, Arc::new(Told::default()), Proxies::default()).err().map(|e| e.to_string())
    };
    assert_eq!(refused(|_| ()), None);
    for (start, change) in [
        ("vault.addr", (|o| o.address = "vault:8200".into()) as fn(&mut Options)),
        ("vault.addr", |o| o.address = "ftp://vault".into()),
        ("vault.addr", |o| o.address = "http://".into()),
        ("vault.addr", |o| o.address = "http://u:p@vault".into()),
        ("vault.approleMount", |o| o.approle_mount = "a/../sys".into()),
        ("vault.approleMount", |o| o.approle_mount = String::new()),
        ("vault.wrappingTTL", |o| o.wrapping_ttl = "6\n0".into()),
        ("vault.token", |o| o.login = Login::Token { token: "hvs.a\nb".into(), skip_token_role: true }),
        ("vault.token", |o| o.login = Login::Token { token: " ".into(), skip_token_role: true }),
    ] {
        let text = refused(change).unwrap();
        assert!(text.starts_with(start) && !text.contains("hvs."), "{text}");
    }
}

#[tokio::test]
async fn a_token_file_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let file = path.clone();
    let rig = Rig::with(|url| Options { login: Login::File(file), ..mk_options(url) }, |_| None).await;
    rig.until(|rig| rig.told.states.lock().unwrap().len() > 1).await;
    let cause = rig.handle.wrap(&crate::vault::fake::mk_request("web")).await.err().unwrap().to_string();
    assert!(cause.contains("vault.tokenFile"), "{cause}");
    std::fs::write(&path, "hvs.a\nb\n").unwrap();
    rig.until(|rig| format!("{:?}", rig.told.states.lock().unwrap().last()).contains("line break inside")).await;
    std::fs::write(&path, format!("{CANARY}\n")).unwrap();
    let rig = rig.usable().await;
    assert!(rig.fake.seen().iter().all(|seen| seen.token() == Some(CANARY)));
}

#[tokio::test]
async fn kubernetes_auth_logs_in_with_role_and_jwt_and_revokes_at_the_end() {
    let jwt = mk_file("eyJ.jwt\n");
    let rig = Rig::with(mk_kubernetes(jwt.path().into()), |seen| match seen.path.as_str() {
        LOGIN => Some(granted("hvs.from-login", 3600)),
        _ => None,
    })
    .await
    .usable()
    .await;
    let seen = rig.fake.seen();
    assert_eq!((seen[0].path.as_str(), seen[0].token()), (LOGIN, None));
    assert_eq!(seen[0].body, r#"{"role":"kv","jwt":"eyJ.jwt"}"#);
    assert_eq!(seen[1].token(), Some("hvs.from-login"));
    rig.cancel.cancel();
    rig.run.await.unwrap().unwrap();
    let last = rig.fake.seen().pop().unwrap();
    assert_eq!((last.path.as_str(), last.token()), ("/v1/auth/token/revoke-self", Some("hvs.from-login")));
    assert!(futures::FutureExt::now_or_never(rig.handle.usable()).is_none());
}

#[tokio::test]
async fn a_refused_login_is_fatal_and_a_token_that_fails_its_checks_is_revoked() {
    let jwt = mk_file("eyJ.jwt");
    let refused = |seen: &crate::vault::fake::Seen| (seen.path == LOGIN).then(|| errors(400, "invalid role name"));
    let fatal = Rig::with(mk_kubernetes(jwt.path().into()), refused).await.fatal().await;
    assert!(matches!(&fatal, Fatal::Login { cause, .. } if cause == "400: invalid role name"), "{fatal}");
    let rig = Rig::with(mk_kubernetes(jwt.path().into()), |seen| match seen.path.as_str() {
        LOGIN => Some(granted("hvs.root", 3600)),
        LOOKUP => Some(about(|data| data["policies"] = serde_json::json!(["root"]))),
        _ => None,
    })
    .await;
    rig.until(|rig| rig.fake.count("/v1/auth/token/revoke-self") == 1).await;
    assert_eq!(faults(rig.fatal().await), [TokenFault::Root]);
}

#[tokio::test]
async fn the_ca_of_a_pki_mount_is_fetched_pinned_and_handed_on() {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = vec![certificate.der().clone()];
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    // As Vault sends it: without a line break at the end.
    let pem = certificate.pem().trim_end().to_owned();
    let body = pem.clone();
    let fake = Fake::serve(Some(Arc::new(config)), move |seen| match seen.path.as_str() {
        "/v1/root-ca/ca/pem" => Reply::says(200, &body),
        "/v1/empty/ca/pem" => Reply::says(204, ""),
        LOOKUP => lookup(3600, true),
        _ => errors(403, "permission denied"),
    })
    .await;
    let start = async |mounts: &[&str], fingerprints: Vec<ca::Fingerprint>| {
        let mounts = mounts.iter().map(ToString::to_string).collect();
        let tls = Tls { ca: Ca::Pki { mounts, fingerprints }, ..Tls::default() };
        let options = Options { tls, ..mk_options(&fake.url) };
        let (service, handle) = Service::with_proxies(options, Arc::new(Told::default()), Proxies::default()).unwrap();
        let cancel = CancellationToken::new();
        let run = tokio::spawn(service.run(cancel.clone()));
        tokio::select! {
            () = handle.usable() => { cancel.cancel(); Ok(handle.address()) }
            ended = run => Err(ended.unwrap().unwrap_err().to_string()),
        }
    };
    let address = start(&["root-ca", "root-ca"], Vec::new()).await.unwrap();
    assert_eq!(address.ca_bundle.as_deref(), Some(&*format!("{pem}\n{pem}")));
    assert_eq!(address.address, fake.url);
    let other = ca::Fingerprint::parse(&"00".repeat(32)).unwrap();
    let refused = start(&["root-ca"], vec![other]).await.err().unwrap();
    let found = refused.split("SHA-256 ").nth(1).unwrap().split(',').next().unwrap();
    start(&["root-ca"], vec![ca::Fingerprint::parse(found).unwrap()]).await.unwrap();
    assert!(
        start(&["empty"], Vec::new()).await.err().unwrap().contains("no CA certificate, or only one without its key")
    );
    assert!(start(&["nosuch"], Vec::new()).await.err().unwrap().contains("permission denied"));
    let fetches: Vec<_> = fake.seen().into_iter().filter(|seen| seen.path.ends_with("/ca/pem")).collect();
    assert!(fetches.iter().all(|seen| seen.token().is_none()), "an unverified connection gets no token");
}
