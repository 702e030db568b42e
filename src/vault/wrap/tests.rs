use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::ExposeSecret;

use super::*;
use crate::deliver::ports::SecretIssuer;
use crate::vault::fake::{CANARY, Fake, Reply, Rig, Seen, errors, mk_options, mk_request};
use crate::vault::options::Options;
use crate::vault::session::State;

const PATH: &str = "/v1/auth/approle/role/web/secret-id";

fn wrapped(path: &str) -> Reply {
    let info = serde_json::json!({
        "token": "hvs.wrapping-canary", "accessor": "acc-w", "ttl": 60, "creation_time": "2026-11-23T16:03:05.824878234Z",
        "creation_path": path, "wrapped_accessor": "acc-s",
    });
    Reply::Says(200, serde_json::json!({"data": null, "wrap_info": info}).to_string())
}

async fn rig(script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Rig {
    Rig::start(script).await.usable().await
}

fn on_wrap(reply: Reply) -> impl Fn(&Seen) -> Option<Reply> {
    move |seen| (seen.path == PATH).then(|| reply.clone())
}

async fn trouble_of(reply: Reply) -> VaultTrouble {
    let rig = rig(on_wrap(reply)).await;
    let trouble = rig.handle.wrap(&mk_request("web")).await.err().unwrap();
    assert!(!format!("{trouble} {trouble:?}").contains("canary"), "{trouble}");
    trouble
}

#[tokio::test]
async fn a_secret_id_is_asked_for_with_ttl_as_written_and_metadata() {
    let rig = rig(on_wrap(wrapped("auth/approle/role/web/secret-id"))).await;
    let got = rig.handle.wrap(&mk_request("web")).await.ok().unwrap();
    assert_eq!(got.token.expose_secret(), "hvs.wrapping-canary");
    assert_eq!((got.ttl_seconds, got.creation_time.to_string().as_str()), (60, "2026-11-23T16:03:05.824878234Z"));
    assert_eq!(got.accessors, Accessors { wrapping: "acc-w".into(), secret_id: Some("acc-s".into()) });
    let seen = rig.fake.seen().pop().unwrap();
    assert_eq!(seen.header("x-vault-wrap-ttl"), Some("60"));
    assert_eq!(seen.token(), Some(CANARY));
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(body["metadata"].as_str().unwrap()).unwrap();
    let expected = serde_json::json!({"pod": "web-0", "podNamespace": "shop", "podUID": "uid-1",
        "serviceAccount": "web", "node": "node-1", "attempt": "attempt-1"});
    assert_eq!(metadata, expected);
}

#[tokio::test]
async fn mount_namespace_and_role_are_put_where_they_belong() {
    let options = |url: &str| Options {
        namespace: Some("team/a/".into()),
        approle_mount: "/ci/approle/".into(),
        ..mk_options(url)
    };
    for prefix in ["", "team/a/"] {
        let answer = wrapped(&format!("{prefix}auth/ci/approle/role/My Role/secret-id"));
        let path = "/v1/auth/ci/approle/role/My%20Role/secret-id";
        let rig = Rig::with(options, move |seen| (seen.path == path).then(|| answer.clone())).await.usable().await;
        rig.handle.wrap(&mk_request("My Role")).await.ok().unwrap();
        assert_eq!(rig.fake.seen().pop().unwrap().header("x-vault-namespace"), Some("team/a/"));
    }
}

#[tokio::test]
async fn an_answer_that_wraps_something_else_is_not_used() {
    for path in ["auth/approle/role/other/secret-id", "sys/wrapping/wrap", "", "x/auth/approle/role/web/secret-id"] {
        assert!(matches!(trouble_of(wrapped(path)).await, VaultTrouble::WrongAnswer(_)), "{path}");
    }
    for body in ["", "[]", "{}", r#"{"wrap_info":{"token":5}}"#, r#"{"wrap_info":null,"data":null}"#] {
        assert!(matches!(trouble_of(Reply::says(200, body)).await, VaultTrouble::WrongAnswer(_)), "{body}");
    }
}

#[tokio::test]
async fn a_bare_secret_id_is_destroyed_and_not_handed_on() {
    let destroy = "auth/approle/role/web/secret-id-accessor/destroy";
    let rig = rig(move |seen| match seen.path.as_str() {
        PATH => {
            Some(Reply::says(200, r#"{"wrap_info":null,"data":{"secret_id":"canary","secret_id_accessor":"acc"}}"#))
        }
        "/v1/sys/capabilities-self" => Some(Reply::Says(200, format!(r#"{{"data":{{"{destroy}":["update"]}}}}"#))),
        path if path.ends_with("destroy") => Some(Reply::says(204, "")),
        _ => None,
    })
    .await;
    let trouble = rig.handle.wrap(&mk_request("web")).await.err().unwrap();
    assert!(matches!(trouble, VaultTrouble::WrongAnswer(_)));
    let last = rig.fake.seen().pop().unwrap();
    assert_eq!(
        (last.path.as_str(), last.body.as_str()),
        (&*format!("/v1/{destroy}"), r#"{"secret_id_accessor":"acc"}"#)
    );
}

// Bad-input row: unknown role.
#[tokio::test]
async fn an_unknown_role_is_told_from_an_unknown_mount() {
    assert_eq!(trouble_of(errors(404, "role \"web\" does not exist")).await, VaultTrouble::UnknownRole);
    assert_eq!(trouble_of(errors(400, "role \"web\" does not exist")).await, VaultTrouble::UnknownRole);
    assert_eq!(trouble_of(errors(404, "1 error occurred:\n\t* unsupported path\n\n")).await, VaultTrouble::UnknownRole);
    let mount = trouble_of(errors(404, "no handler for route \"auth/x\". route entry not found.")).await;
    assert!(mount.to_string().contains("vault.approleMount"), "{mount}");
}

#[tokio::test]
async fn metadata_that_is_refused_is_left_out_and_not_tried_again_for_that_role() {
    let rig = rig(|seen| match seen.path.as_str() {
        PATH if seen.body == "{}" => Some(wrapped("auth/approle/role/web/secret-id")),
        PATH => Some(errors(403, "permission denied")),
        _ => None,
    })
    .await;
    for requests in [2, 3, 4] {
        rig.handle.wrap(&mk_request("web")).await.ok().unwrap();
        assert_eq!(rig.fake.count(PATH), requests);
    }
}

#[tokio::test]
async fn a_forbidden_role_is_told_from_a_dead_token() {
    let rig = rig(on_wrap(errors(403, "permission denied"))).await;
    for _ in 0..3 {
        let trouble = rig.handle.wrap(&mk_request("web")).await.err().unwrap();
        assert_eq!(trouble, VaultTrouble::Forbidden("permission denied".into()));
    }
    // One at the start, and one for all three refusals.
    assert_eq!(rig.fake.count("/v1/auth/token/lookup-self"), 2);
    assert_eq!(*rig.handle.state().borrow(), State::Usable);
}

#[tokio::test]
async fn a_dead_token_is_taken_out_of_use_at_once() {
    let lookups = AtomicUsize::new(0);
    let rig = rig(move |seen| match seen.path.as_str() {
        PATH => Some(errors(403, "permission denied")),
        "/v1/auth/token/lookup-self" if lookups.fetch_add(1, Ordering::Relaxed) > 0 => Some(errors(403, "bad token")),
        _ => None,
    })
    .await;
    let trouble = rig.handle.wrap(&mk_request("web")).await.err().unwrap();
    assert!(matches!(trouble, VaultTrouble::NotLoggedIn(_)), "{trouble:?}");
    let asked = rig.fake.count(PATH);
    let trouble = rig.handle.wrap(&mk_request("web")).await.err().unwrap();
    assert!(trouble.to_string().contains("revoked or has run out"), "{trouble}");
    assert_eq!(rig.fake.count(PATH), asked, "nothing is asked with it any more");
    assert!(futures::FutureExt::now_or_never(rig.handle.usable()).is_none());
    assert_eq!(rig.told.ttls.lock().unwrap().last(), Some(&None));
}

#[tokio::test]
async fn trouble_with_vault_itself_shows_in_its_state_and_passes() {
    let failing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let sealed = std::sync::Arc::clone(&failing);
    let rig = rig(move |seen| match seen.path.as_str() {
        PATH if sealed.load(Ordering::Relaxed) => Some(errors(503, "Vault is sealed")),
        PATH => Some(wrapped("auth/approle/role/web/secret-id")),
        _ => None,
    })
    .await;
    assert_eq!(rig.handle.wrap(&mk_request("web")).await.err(), Some(VaultTrouble::Sealed));
    assert!(matches!(&*rig.handle.state().borrow(), State::Unavailable(cause) if cause.contains("unseal")));
    failing.store(false, Ordering::Relaxed);
    rig.handle.wrap(&mk_request("web")).await.ok().unwrap();
    assert_eq!(*rig.handle.state().borrow(), State::Usable);
}

#[tokio::test]
async fn before_the_login_nothing_is_asked() {
    let fake = Fake::start(|_| Reply::Hangs).await;
    let told = std::sync::Arc::new(crate::vault::fake::Told::default());
    let (_service, handle) = crate::vault::Service::new(mk_options(&fake.url), told).unwrap();
    let trouble = handle.wrap(&mk_request("web")).await.err().unwrap();
    assert!(matches!(trouble, VaultTrouble::NotLoggedIn(_)));
    assert!(fake.seen().is_empty());
}
