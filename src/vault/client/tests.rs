use super::*;
use crate::vault::fake::{CANARY, Fake, Reply, errors};
use crate::vault::token::Token;

fn mk_client(url: &str) -> Client {
    Client::new(&Url::parse(url).unwrap(), Some("team/a"), None, &Proxies::default()).unwrap()
}

fn mk_call() -> Call {
    Call::get(ApiPath::default().then("auth/token/lookup-self")).with_token(&Token::parse(CANARY).unwrap())
}

async fn trouble_of(reply: Reply) -> VaultTrouble {
    let fake = Fake::start(move |_| reply.clone()).await;
    let trouble = mk_client(&fake.url).send(&mk_call()).await.err().unwrap();
    assert!(!trouble.to_string().contains(CANARY), "{trouble}");
    trouble
}

#[tokio::test]
async fn a_request_carries_what_vault_wants_to_see() {
    let fake = Fake::start(|_| Reply::says(200, "{}")).await;
    mk_client(&format!("{}/behind/", fake.url)).send(&mk_call()).await.unwrap();
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/behind/v1/auth/token/lookup-self");
    assert_eq!(seen.token(), Some(CANARY));
    assert_eq!(seen.header("x-vault-request"), Some("true"));
    assert_eq!(seen.header("x-vault-namespace"), Some("team/a"));
}

// Bad-input row: Vault down, sealed, standby, 429, 5xx, slow, wrong certificate (tls/tests.rs), redirect.
#[tokio::test]
async fn every_kind_of_refusal_is_told_apart() {
    use VaultTrouble as T;
    let after = Some(Duration::from_secs(7));
    let limited = Reply::Headed(429, vec![("retry-after", "7".into())], r#"{"errors":["quota exceeded"]}"#.into());
    let busy = Reply::Headed(502, vec![("Retry-After", "7".into())], "<html>".into());
    let cases = [
        (errors(403, "1 error occurred:\n\t* permission denied\n\n"), T::Forbidden("permission denied".into())),
        (Reply::says(403, "<html>"), T::Forbidden(String::new())),
        (errors(503, "Vault is sealed"), T::Sealed),
        (limited, T::RateLimited { retry_after: after }),
        (busy, T::Unavailable { status: 502, retry_after: after }),
        (Reply::says(429, r#"{"standby":true}"#), T::Standby),
        (Reply::says(472, ""), T::Standby),
        (Reply::says(473, ""), T::Standby),
        (errors(500, "internal error"), T::Unavailable { status: 500, retry_after: None }),
        (errors(503, "too busy"), T::Unavailable { status: 503, retry_after: None }),
        (Reply::says(412, "{}"), T::Unavailable { status: 412, retry_after: None }),
        (Reply::says(404, "<html>nginx"), T::Unavailable { status: 404, retry_after: None }),
        (errors(400, "bad"), T::Rejected { status: 400, cause: "bad".into() }),
    ];
    for (reply, expected) in cases {
        assert_eq!(trouble_of(reply).await, expected);
    }
}

#[tokio::test]
async fn broken_connections_are_unreachable_with_their_cause() {
    for reply in [Reply::Resets, Reply::Truncated, Reply::Garbage] {
        let trouble = trouble_of(reply).await;
        assert!(matches!(&trouble, VaultTrouble::Unreachable(cause) if cause.len() > 10), "{trouble:?}");
        assert!(trouble.may_have_issued());
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = mk_client(&format!("http://{nobody}")).send(&mk_call()).await.err().unwrap();
    assert!(matches!(&trouble, VaultTrouble::Unreachable(cause) if cause.contains("refused")), "{trouble:?}");
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_its_end() {
    let trouble = trouble_of(Reply::Endless).await;
    assert!(matches!(trouble, VaultTrouble::WrongAnswer(_)), "{trouble:?}");
}

#[tokio::test]
async fn one_that_hangs_is_given_up_in_time() {
    let begun = std::time::Instant::now();
    assert_eq!(trouble_of(Reply::Hangs).await, VaultTrouble::TimedOut);
    assert!(begun.elapsed() < REQUEST_TIMEOUT * 2);
}

#[tokio::test]
async fn a_redirect_to_another_host_never_gets_the_token() {
    let other = Fake::start(|_| Reply::says(200, "{}")).await;
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/v1/auth/token/lookup-self", other.url);
        let reply = move |seen: &crate::vault::fake::Seen| match seen.path.as_str() {
            "/v1/sys/health" => Reply::says(200, r#"{"standby":false}"#),
            _ => Reply::Headed(status, vec![("location", to.clone())], String::new()),
        };
        let fake = Fake::start(reply).await;
        let trouble = mk_client(&fake.url).send(&mk_call()).await.err().unwrap();
        assert_eq!(trouble, VaultTrouble::Redirected(other.url.clone()));
        let health: Vec<_> = fake.seen().into_iter().filter(|seen| seen.path == "/v1/sys/health").collect();
        assert!(health.iter().all(|seen| seen.token().is_none()), "health needs no token");
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_redirecting_standby_is_named_as_one() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/sys/health" => Reply::says(429, r#"{"standby":true,"sealed":false}"#),
        path => Reply::Headed(307, vec![("location", format!("http://192.0.2.1:8200{path}"))], String::new()),
    })
    .await;
    assert_eq!(mk_client(&fake.url).send(&mk_call()).await.err(), Some(VaultTrouble::Standby));
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_once() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v1/end" => Reply::says(200, "{}"),
        "/v1/loop" => Reply::Headed(307, vec![("location", "/v1/loop".into())], String::new()),
        _ => Reply::Headed(307, vec![("location", "/v1/end".into())], String::new()),
    })
    .await;
    let client = mk_client(&fake.url);
    let post = Call::post(ApiPath::default().then("begin"), &crate::vault::call::Empty {});
    client.send(&post).await.unwrap();
    assert_eq!(fake.paths(), ["/v1/begin", "/v1/end"]);
    assert_eq!(fake.seen()[1].body, "{}");
    let trouble = client.send(&Call::get(ApiPath::default().then("loop"))).await.err().unwrap();
    assert!(matches!(trouble, VaultTrouble::Redirected(_)));
    assert_eq!(fake.count("/v1/loop"), 2);
}

#[tokio::test]
async fn a_proxy_is_used_unless_it_is_told_not_to() {
    let proxy = Fake::start(|_| Reply::says(200, "{}")).await;
    let proxies = Proxies { http: Some(proxy.url.clone()), https: None, none_for: Some("inside.test".into()) };
    let ask = async |address: &str| {
        let client = Client::new(&Url::parse(address).unwrap(), None, None, &proxies).unwrap();
        client.send(&mk_call()).await
    };
    ask("http://vault.test:8200").await.unwrap();
    assert_eq!(proxy.paths(), ["http://vault.test:8200/v1/auth/token/lookup-self"]);
    assert!(ask("http://inside.test:8200").await.is_err());
    assert!(ask("http://127.0.0.1:9").await.is_err(), "Go never proxies loopback");
    assert_eq!(proxy.seen().len(), 1);
}
