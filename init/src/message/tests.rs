//! The message against the vectors, and against itself.

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = r#"{"token":"hvs.EXAMPLE","creationTime":"2026-11-23T13:57:34.233297Z","ttl":60,"vaultAddr":"http://vault:8200","vaultCAs":null}"#;

fn sample() -> Push {
    Push::decode(SAMPLE.as_bytes()).ok().unwrap()
}

fn error(body: &str) -> DecodeError {
    Push::decode(body.as_bytes()).err().unwrap()
}

#[test]
fn the_bytes_are_the_references() {
    assert_eq!(sample().encode().as_slice(), SAMPLE.as_bytes());
    let mut push = sample();
    push.creation_time = "2026-11-23T13:59:10.014191553Z".parse().unwrap();
    push.ttl_secs = 120;
    push.vault_cas = Some(b"-----BEGIN CERTIFICATE-----\n".to_vec());
    assert_eq!(
        std::str::from_utf8(&push.encode()).unwrap(),
        r#"{"token":"hvs.EXAMPLE","creationTime":"2026-11-23T13:59:10.014191553Z","ttl":120,"vaultAddr":"http://vault:8200","vaultCAs":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}"#
    );
}

#[test]
fn our_fields_come_last_and_only_where_set() {
    let mut push = sample();
    push.attempt = Some("a-1".into());
    push.pod_uid = Some("uid".into());
    let head = &SAMPLE[..SAMPLE.len() - 1];
    assert_eq!(std::str::from_utf8(&push.encode()).unwrap(), format!(r#"{head},"attempt":"a-1","podUID":"uid"}}"#));
}

#[test]
fn keys_match_without_regard_to_case_and_unknown_ones_are_ignored() {
    let body = r#"{"extra":{"a":[1,null]},"TOKEN":"t","CreationTime":"2026-11-23T13:57:34+01:00","Ttl":5,"vaultaddr":"v","VAULTCAS":"Zm9v","PodUid":"u"}"#;
    let push = Push::decode(body.as_bytes()).ok().unwrap();
    assert_eq!(push.token.as_str(), "t");
    assert_eq!(push.creation_time.to_string(), "2026-11-23T12:57:34Z");
    assert_eq!(push.ttl_secs, 5);
    assert_eq!(push.vault_cas.as_deref(), Some(b"foo".as_slice()));
    assert_eq!(push.pod_uid.as_deref(), Some("u"));
    assert_eq!(push.pod_name, None);
}

#[test]
fn what_is_not_a_push_is_named_without_its_values() {
    for body in ["", "notjson", "[]", "null", "{", "1", r#"{"token":5}"#, r#"{"ttl":"hvs.SECRET"}"#, r#"{"ttl":1.5}"#] {
        assert!(matches!(error(body), DecodeError::Json { .. }), "{body}");
        assert!(!error(body).to_string().contains("SECRET"));
    }
    assert!(matches!(error(&format!("{SAMPLE}{SAMPLE}")), DecodeError::Json { .. }));
    assert_eq!(error("{}"), DecodeError::Missing("token"));
    assert_eq!(error(r#"{"token":""}"#), DecodeError::Missing("token"));
    assert_eq!(error(r#"{"token":"t"}"#), DecodeError::Missing("creationTime"));
    assert_eq!(error(r#"{"token":"t","creationTime":"yesterday"}"#), DecodeError::Invalid("creationTime"));
    let with = |rest: &str| format!(r#"{{"token":"t","creationTime":"2026-11-23T13:57:34Z"{rest}}}"#);
    assert_eq!(error(&with("")), DecodeError::Missing("vaultAddr"));
    assert_eq!(error(&with(r#","vaultAddr":null"#)), DecodeError::Missing("vaultAddr"));
    assert_eq!(error(&with(r#","vaultAddr":"v","vaultCAs":"%""#)), DecodeError::Invalid("vaultCAs"));
    assert_eq!(error(&with(r#","vaultAddr":"v","attempt":"a b""#)), DecodeError::Invalid("attempt"));
}

#[test]
fn expiry_saturates() {
    let mut push = sample();
    assert_eq!(push.expires_at().to_string(), "2026-11-23T13:58:34.233297Z");
    push.ttl_secs = i64::MAX;
    assert_eq!(push.expires_at(), Timestamp::MAX);
    push.ttl_secs = i64::MIN;
    assert_eq!(push.expires_at(), Timestamp::MIN);
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(any::<String>().prop_filter("empty counts as absent", |s| !s.is_empty()))
}

proptest! {
    #[test]
    fn decode_undoes_encode(
        token in "[ -~]{1,40}",
        seconds in -1_000_000_000_i64..10_000_000_000,
        nanos in 0..1_000_000_000,
        ttl_secs in any::<i64>(),
        vault_addr in "\\PC{1,40}",
        vault_cas in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..60)),
        attempt in proptest::option::of("[!-~]{1,128}"),
        names in [text(), text(), text(), text()],
    ) {
        let [pod_name, pod_namespace, pod_uid, namespace] = names;
        let push = Push {
            token: Zeroizing::new(token),
            creation_time: Timestamp::new(seconds, nanos).unwrap(),
            ttl_secs, vault_addr, vault_cas, attempt, pod_name, pod_namespace, pod_uid, namespace,
        };
        prop_assert!(Push::decode(&push.encode()).ok() == Some(push));
    }

    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Push::decode(&body);
    }
}
