//! What the sender is told, by cause.

use super::*;

fn push(ttl_secs: i64) -> Push {
    Push {
        token: Zeroizing::new("t".into()),
        creation_time: clock::now(),
        ttl_secs,
        vault_addr: "http://vault".into(),
        vault_cas: None,
        attempt: None,
        pod_name: None,
        pod_namespace: None,
        pod_uid: None,
        namespace: None,
    }
}

fn unknown(lost: bool) -> Failed {
    Failed { fault: Fault::Refused { status: 400, words: UNKNOWN_TOKEN[0].to_owned() }, lost }
}

fn told(failed: Failed, ttl_secs: i64) -> (u16, Option<TokenFault>) {
    let outcome = stop_at_token(failed, &push(ttl_secs)).into_outcome();
    (outcome.status, TokenFault::parse(&outcome.body))
}

#[test]
fn an_unknown_token_is_used_expired_or_lost() {
    assert_eq!(told(unknown(false), 60), (422, Some(TokenFault::Used)));
    assert_eq!(told(unknown(false), -1), (422, Some(TokenFault::Expired)));
    // We may have used it up ourselves: no alarm.
    assert_eq!(told(unknown(true), 60), (503, None));
}

#[test]
fn a_used_token_is_said_loudly() {
    let body = stop_at_token(unknown(false), &push(60)).into_outcome().body;
    assert!(body.contains("SOMEBODY ELSE MAY HAVE UNWRAPPED IT"), "{body}");
}

#[test]
fn refused_and_not_now_are_told_apart() {
    let failed = |fault| Failed { fault, lost: false };
    let refused = Fault::Refused { status: 403, words: "permission denied".into() };
    assert_eq!(told(failed(refused), 60), (422, Some(TokenFault::Refused)));
    assert_eq!(told(failed(Fault::Unreachable("x".into())), 60), (503, None));
    assert_eq!(told(failed(Fault::Wrong("x".into())), 60), (503, None));
}
