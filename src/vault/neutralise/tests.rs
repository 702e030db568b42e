use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::deliver::ports::SecretIssuer;
use crate::vault::fake::{Reply, Rig, Seen, errors};

const DESTROY: &str = "auth/approle/role/web/secret-id-accessor/destroy";
const DESTROY_URL: &str = "/v1/auth/approle/role/web/secret-id-accessor/destroy";
const CAPABILITIES: &str = "/v1/sys/capabilities-self";
const UNWRAP: &str = "/v1/sys/wrapping/unwrap";
const WRAPPING: &str = "hvs.wrapping";

fn capabilities(granted: &str) -> Reply {
    Reply::Says(200, serde_json::json!({"data": {DESTROY: [granted], "capabilities": [granted]}}).to_string())
}

async fn rig(granted: &'static str, destroy: Reply, unwrap: Reply) -> Rig {
    let script = move |seen: &Seen| match seen.path.as_str() {
        CAPABILITIES => Some(capabilities(granted)),
        DESTROY_URL => Some(destroy.clone()),
        UNWRAP => Some(unwrap.clone()),
        _ => None,
    };
    Rig::start(script).await.usable().await
}

async fn neutralise(rig: &Rig, with_token: bool) -> Neutralised {
    let accessors = Accessors { wrapping: "acc-w".into(), secret_id: Some("acc-s".into()) };
    let token = with_token.then(|| SecretString::from(WRAPPING));
    rig.handle.neutralise(&RoleName::parse("web").unwrap(), &accessors, token).await
}

fn ok() -> Reply {
    Reply::says(204, "")
}

fn unwrapped() -> Reply {
    Reply::says(200, r#"{"data":{"secret_id":"x"}}"#)
}

#[tokio::test]
async fn where_the_policy_allows_it_is_destroyed_and_the_right_is_asked_for_once() {
    for granted in ["update", "root"] {
        let rig = rig(granted, ok(), unwrapped()).await;
        for _ in 0..3 {
            assert_eq!(neutralise(&rig, true).await, Neutralised::Destroyed);
        }
        assert_eq!(rig.fake.count(CAPABILITIES), 1);
        assert_eq!(rig.fake.count(UNWRAP), 0);
        let last = rig.fake.seen().pop().unwrap();
        assert_eq!(last.body, r#"{"secret_id_accessor":"acc-s"}"#);
    }
}

#[tokio::test]
async fn what_is_not_there_any_more_is_destroyed() {
    let gone = r#"1 error occurred:\n\t* failed to find accessor entry for secret_id_accessor: "acc-s""#;
    for reply in [
        errors(500, gone),
        errors(404, gone),
        Reply::says(404, r#"{"errors":[]}"#),
        errors(500, r#"1 error occurred:\n\t* role "web" does not exist"#),
    ] {
        let rig = rig("update", reply, unwrapped()).await;
        assert_eq!(neutralise(&rig, false).await, Neutralised::Destroyed);
        assert_eq!(rig.fake.count(DESTROY_URL), 1);
    }
}

// Under the reference's policy.
#[tokio::test]
async fn without_the_right_the_wrapping_token_is_used_up() {
    let rig = rig("deny", ok(), unwrapped()).await;
    assert_eq!(neutralise(&rig, true).await, Neutralised::Unwrapped);
    assert_eq!(neutralise(&rig, false).await, Neutralised::LeftToExpire);
    assert_eq!(rig.fake.count(DESTROY_URL), 0);
    assert_eq!(rig.fake.count(CAPABILITIES), 1);
    let unwrap: Vec<_> = rig.fake.seen().into_iter().filter(|seen| seen.path == UNWRAP).collect();
    assert_eq!(unwrap[0].token(), Some(WRAPPING), "with the wrapping token itself");
}

#[tokio::test]
async fn a_policy_that_may_not_even_ask_is_one_without_the_right() {
    let script = |seen: &Seen| match seen.path.as_str() {
        CAPABILITIES => Some(errors(403, "permission denied")),
        UNWRAP => Some(unwrapped()),
        _ => None,
    };
    let rig = Rig::start(script).await.usable().await;
    assert_eq!(neutralise(&rig, true).await, Neutralised::Unwrapped);
    assert_eq!(neutralise(&rig, true).await, Neutralised::Unwrapped);
    assert_eq!(rig.fake.count(CAPABILITIES), 1);
}

#[tokio::test]
async fn a_right_that_was_taken_away_is_noticed() {
    let rig = rig("update", errors(403, "permission denied"), unwrapped()).await;
    assert_eq!(neutralise(&rig, true).await, Neutralised::Unwrapped);
    assert_eq!(neutralise(&rig, true).await, Neutralised::Unwrapped);
    assert_eq!(rig.fake.count(CAPABILITIES), 2);
}

#[tokio::test]
async fn passing_trouble_is_tried_a_few_times_and_no_more() {
    let tries = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&tries);
    let script = move |seen: &Seen| match seen.path.as_str() {
        CAPABILITIES => Some(capabilities("update")),
        DESTROY_URL if counted.fetch_add(1, Ordering::Relaxed) == 1 => Some(ok()),
        DESTROY_URL => Some(Reply::says(502, "")),
        _ => None,
    };
    let rig = Rig::start(script).await.usable().await;
    assert_eq!(neutralise(&rig, false).await, Neutralised::Destroyed);
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert_eq!(neutralise(&rig, false).await, Neutralised::LeftToExpire);
    assert_eq!(tries.load(Ordering::Relaxed), 2 + TRIES as usize);
}

#[tokio::test]
async fn a_wrapping_token_that_is_gone_is_left() {
    let rig = rig("deny", ok(), errors(400, "wrapping token is not valid or does not exist")).await;
    assert_eq!(neutralise(&rig, true).await, Neutralised::LeftToExpire);
    assert_eq!(rig.fake.count(UNWRAP), 1);
}
