//! Against a Vault by script: what is asked, and what never is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::domain::findings::worst;
use crate::vault::fake::{CANARY, Fake, Reply, Seen, errors, granted, lookup, mk_options};

/// What a healthy Vault says to a good token whose policy grants `granted`.
fn healthy(seen: &Seen, granted: &[&str]) -> Reply {
    match seen.path.as_str() {
        "/v1/sys/health" => Reply::says(200, "{}"),
        "/v1/auth/token/lookup-self" => lookup(3600, true),
        "/v1/sys/capabilities-self" => capabilities(seen, granted),
        "/v1/auth/token/revoke-self" => Reply::says(204, ""),
        path if path.ends_with("/known/secret-id-accessor/destroy") => {
            errors(404, "failed to find accessor entry for secret_id_accessor: \"x\"")
        }
        path if path.ends_with("/destroy") => errors(500, "role \"unknown\" does not exist"),
        path => errors(403, &format!("{path} was not to be asked for")),
    }
}

fn capabilities(seen: &Seen, granted: &[&str]) -> Reply {
    let asked: Value = serde_json::from_str(&seen.body).unwrap();
    let paths = asked["paths"].as_array().unwrap().iter().filter_map(Value::as_str);
    let of =
        |path: &str| if granted.iter().any(|end| path.ends_with(end)) { json!(["update"]) } else { json!(["deny"]) };
    let data: BTreeMap<&str, Value> = paths.map(|path| (path, of(path))).collect();
    Reply::Says(200, json!({ "data": data }).to_string())
}

const ALL: &[&str] = &["renew-self", "secret-id", "destroy", "issue/server"];

fn wishes(roles: &[&str]) -> Wishes {
    let roles = roles.iter().map(|role| (RoleName::parse(role).unwrap(), vec![format!("team-a/{role}")]));
    Wishes { roles: roles.collect(), refused: Vec::new() }
}

async fn look(fake: &Fake, roles: &[&str]) -> Vec<Finding> {
    let certificates =
        [CertificateRole { section: "prometheus.tls", mount: "pki".to_owned(), role: "server".to_owned() }];
    inspect(&mk_options(&fake.url), &wishes(roles), &certificates).await
}

fn bad(found: &[Finding]) -> Vec<(Level, String)> {
    let bad = found.iter().filter(|one| one.level > Level::Ok);
    bad.map(|one| (one.level, format!("{} -> {}", one.cause, one.remedy.clone().unwrap_or_default()))).collect()
}

#[tokio::test]
async fn a_vault_that_is_well_has_nothing_bad_to_tell_and_nothing_is_made() {
    let fake = Fake::start(|seen| healthy(seen, ALL)).await;
    let found = look(&fake, &["known"]).await;
    assert_eq!(bad(&found), []);
    for words in ["unsealed and active", "passes the checks", "renew itself", "prometheus.tls", "AppRole \"known\""] {
        assert!(found.iter().any(|one| one.cause.contains(words)), "{words}: {found:?}");
    }
    let made = |path: &str| path.ends_with("/secret-id") || path.ends_with("renew-self") || path.contains("/issue/");
    assert!(!fake.paths().iter().any(|path| made(path)), "{:?}", fake.paths());
    assert_eq!(fake.count("/v1/auth/token/revoke-self"), 0, "a token that was not made for us is not revoked");
    assert!(!format!("{found:?}").contains(CANARY));
}

#[tokio::test]
async fn roles_that_are_missing_or_forbidden_are_told_by_name() {
    let fake = Fake::start(|seen| healthy(seen, &["renew-self", "known/secret-id", "destroy", "issue/server"])).await;
    let found = bad(&look(&fake, &["known", "unknown"]).await);
    assert!(
        matches!(&found[..], [(Level::Error, text)] if text.contains("\"unknown\" (team-a/unknown) does not exist")),
        "{found:?}"
    );
    let fake = Fake::start(|seen| healthy(seen, &["renew-self", "destroy", "issue/server"])).await;
    let found = bad(&look(&fake, &["known"]).await);
    let rule = "path \"auth/approle/role/known/secret-id\"";
    assert!(
        matches!(&found[..], [(Level::Error, text)] if text.contains("may not be asked for") && text.contains(rule)),
        "{found:?}"
    );
}

#[tokio::test]
async fn each_capability_that_is_missing_is_told_with_what_happens_without() {
    let fake = Fake::start(|seen| healthy(seen, &["secret-id"])).await;
    let found = bad(&look(&fake, &["known"]).await);
    let has = |level, words: &str| found.iter().any(|(of, text)| *of == level && text.contains(words));
    assert!(has(Level::Error, "\"update\" on auth/token/renew-self"), "{found:?}");
    assert!(has(Level::Error, "\"update\" on pki/issue/server"), "{found:?}");
    assert!(has(Level::Warning, "may not be destroyed"), "{found:?}");
    // Nothing tells whether the role is there, and nothing was tried.
    assert!(!fake.paths().iter().any(|path| path.contains("/role/")), "{:?}", fake.paths());
}

#[tokio::test]
async fn a_policy_that_hides_what_it_grants_is_told() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/sys/capabilities-self" => errors(403, "permission denied"),
        _ => healthy(seen, ALL),
    })
    .await;
    let found = bad(&look(&fake, &["known"]).await);
    assert!(matches!(&found[..], [(Level::Warning, text)] if text.contains("policy \"default\"")), "{found:?}");
}

#[tokio::test]
async fn a_sealed_a_fresh_and_a_standby_vault_are_told_apart() {
    for (status, words) in [(503, "unseal"), (501, "initialise"), (472, "primary")] {
        let fake = Fake::start(move |_| Reply::says(status, "{}")).await;
        let found = bad(&look(&fake, &["known"]).await);
        assert!(matches!(&found[..], [(Level::Error, text)] if text.contains(words)), "{status}: {found:?}");
        assert_eq!(fake.paths(), ["/v1/sys/health"], "no token is sent to a Vault that does not serve");
    }
    let standby = Fake::start(|seen| match seen.path.as_str() {
        "/v1/sys/health" => Reply::says(429, r#"{"standby":true}"#),
        _ => healthy(seen, ALL),
    })
    .await;
    assert_eq!(worst(&look(&standby, &[]).await), Level::Ok, "one that passes requests on is well");
}

#[tokio::test]
async fn a_bad_token_is_told_with_every_fault() {
    let stiff = Fake::start(|seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => lookup(0, false),
        _ => healthy(seen, ALL),
    })
    .await;
    let found = bad(&look(&stiff, &[]).await);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].1.contains("not renewable -> create it from a token role"), "{found:?}");
    let unknown = Fake::start(|seen| match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => errors(403, "bad token"),
        _ => healthy(seen, ALL),
    })
    .await;
    let found = bad(&look(&unknown, &["known"]).await);
    assert!(matches!(&found[..], [(Level::Error, text)] if text.contains("Vault refuses vault.token")), "{found:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_told_with_what_to_look_at() {
    let found = inspect(&mk_options("http://127.0.0.1:1"), &wishes(&[]), &[]).await;
    assert!(matches!(&bad(&found)[..], [(Level::Error, text)] if text.contains("does Vault listen")), "{found:?}");
    let found = inspect(&mk_options("ftp://x"), &wishes(&[]), &[]).await;
    assert!(matches!(&bad(&found)[..], [(Level::Error, text)] if text.contains("vault.addr")), "{found:?}");
}

#[tokio::test]
async fn a_token_that_a_login_made_is_revoked_whatever_was_found() {
    let jwt = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(jwt.path(), "a.b.c").unwrap();
    let options = |url: &str| Options {
        login: Login::Kubernetes { mount: "kubernetes".into(), role: "kv".into(), token_path: jwt.path().to_owned() },
        ..mk_options(url)
    };
    for lookup_says in [200, 403] {
        let fake = Fake::start(move |seen| match seen.path.as_str() {
            "/v1/auth/kubernetes/login" => granted("hvs.made-for-us", 60),
            "/v1/auth/token/lookup-self" if lookup_says == 403 => errors(403, "bad token"),
            _ => healthy(seen, ALL),
        })
        .await;
        inspect(&options(&fake.url), &wishes(&[]), &[]).await;
        let last = fake.seen().pop().unwrap();
        assert_eq!((last.path.as_str(), last.token()), ("/v1/auth/token/revoke-self", Some("hvs.made-for-us")));
    }
}

#[tokio::test]
async fn health_is_asked_without_the_vault_namespace_and_without_a_token() {
    let fake = Fake::start(|seen| healthy(seen, ALL)).await;
    let options = Options { namespace: Some("team".to_owned()), ..mk_options(&fake.url) };
    inspect(&options, &wishes(&[]), &[]).await;
    let seen = fake.seen();
    assert_eq!((seen[0].path.as_str(), seen[0].token()), ("/v1/sys/health", None));
    assert!(seen[0].header("x-vault-namespace").is_none());
    assert!(seen[1..].iter().all(|seen| seen.header("x-vault-namespace") == Some("team")));
}
