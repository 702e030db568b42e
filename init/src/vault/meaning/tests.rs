//! What Vault's answers mean, without a network.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::*;

fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}

fn refused(status: u16, body: &str) -> bool {
    matches!(classify(&reply(status, &[], body), &[]).fault, Fault::Refused { .. })
}

#[test]
fn refusals_and_failures_are_told_apart() {
    assert!(refused(400, r#"{"errors":["wrapping token is not valid or does not exist"]}"#));
    assert!(refused(403, r#"{"errors":["permission denied"]}"#));
    assert!(refused(500, r#"{"errors":["invalid secret id"]}"#));
    assert!(!refused(500, r#"{"errors":["internal error"]}"#));
    assert!(!refused(503, r#"{"errors":["Vault is sealed"]}"#));
    assert!(!refused(404, "<html>nginx</html>"));
    let failed = classify(&reply(429, &[("retry-after", "7")], r#"{"errors":["slow down"]}"#), &[]);
    assert_eq!(failed.fault.retry_after(), Some(7));
    assert!(!failed.lost);
    assert!(classify(&reply(502, &[], ""), &[]).lost);
    let broken = classify(&reply(503, &[("retry-after", "99999999")], ""), &[]);
    assert_eq!(broken.fault.retry_after(), Some(RETRY_AFTER_SECS_MAX));
}

#[test]
fn what_the_other_side_repeats_of_our_secrets_is_taken_out() {
    let body = r#"{"errors":["bad token hvs.CANARY here\nand there"]}"#;
    let text = classify(&reply(400, &[], body), &["hvs.CANARY", ""]).fault.text();
    assert_eq!(text, "Vault answered 400: bad token (withheld) here and there");
    let long = format!(r#"{{"errors":["{}"]}}"#, "x".repeat(9999));
    assert!(classify(&reply(400, &[], &long), &[]).fault.text().len() < 400);
}

#[test]
fn a_redirect_is_followed_on_the_same_server_only() {
    let own = Endpoint::parse("https://vault:8200").unwrap();
    let to = |location: &str| same_server_path(&reply(307, &[("location", location)], ""), &own);
    assert_eq!(to("/v1/x?y").unwrap(), "/v1/x?y");
    assert_eq!(to("https://VAULT:8200/v1/x").unwrap(), "/v1/x");
    for elsewhere in [
        "https://evil:8200/v1/x",
        "http://vault:8200/v1/x",
        "https://vault/v1/x",
        "//evil/v1/x",
        "",
        "x",
        "https://vault:8200@evil/",
    ] {
        assert!(to(elsewhere).is_err(), "{elsewhere}");
    }
    let moved = reply(302, &[("location", "/v1/x")], "");
    assert!(same_server_path(&moved, &own).is_err(), "it would turn a PUT into a GET");
}

#[test]
fn only_what_may_pass_is_tried_again_and_only_in_time() {
    let left = Duration::from_secs(10);
    let down = Fault::Unreachable(String::new());
    let mut before = Duration::ZERO;
    for tries in 0..40 {
        let (least, most) = (
            wait_before_retry(&down, tries, 0, left).unwrap(),
            wait_before_retry(&down, tries, u64::MAX, left).unwrap(),
        );
        assert!(least <= most && most <= RETRY_WAIT_MAX && least >= before.min(RETRY_WAIT_MAX / 2));
        before = least;
    }
    assert_eq!(wait_before_retry(&down, 0, 0, Duration::from_millis(10)), None);
    assert_eq!(wait_before_retry(&Fault::Wrong(String::new()), 0, 0, left), None);
    assert_eq!(wait_before_retry(&Fault::Refused { status: 400, words: String::new() }, 0, 0, left), None);
    let asked = |secs| Fault::Unavailable { status: 429, retry_after: Some(secs), words: String::new() };
    assert_eq!(wait_before_retry(&asked(3), 0, 0, left), Some(Duration::from_secs(3)));
    assert_eq!(wait_before_retry(&asked(30), 0, 0, left), None);
}
