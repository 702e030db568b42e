//! What strangers get, and that none of them ends the waiting or keeps the controller out.

use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake_vault::FakeVault;
use crate::harness::{Init, connect, post, promise, push_body, request, send};

/// Still waiting: a good push is done.
async fn still_serves(init: Init) {
    let vault = FakeVault::good().await;
    let reply = post(push_body(&vault.address(), "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let end = init.end().await;
    assert_eq!(end.code, Some(0), "{}", end.log);
    assert_eq!(end.files(), ["vault-token"]);
}

promise!(methods_and_paths_are_answered_as_the_reference_does, async {
    let init = Init::listening(&[]).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let reply = request(method, "/", &[], "").await;
        assert_eq!((reply.status, reply.body.as_str()), (405, "The / endpoint only support POSTs"));
        assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(reply.headers["content-length"], "33");
    }
    let head = request(Method::HEAD, "/", &[], "").await;
    assert_eq!((head.status, head.headers["content-length"].to_str().unwrap()), (405, "33"));
    for path in ["/other", "//", "/?x/../y/", "/index.html"] {
        let reply = request(Method::POST, path, &[], "{}").await;
        let expected = if path.starts_with("/?") { 400 } else { 404 };
        assert_eq!(reply.status, expected, "{path}");
    }
    still_serves(init).await;
});

promise!(
    /// Bad-input table: wrong JSON. (The reference answers 200 to `{}` and dies.)
    what_is_not_a_push_is_refused_and_the_waiting_goes_on,
    async {
        let init = Init::listening(&[]).await;
        let vault = FakeVault::good().await;
        for body in ["", "notjson", "[]", "{}", "null", r#"{"token":"hvs.CANARY"}"#, r#"{"ttl":"hvs.CANARY"}"#] {
            let reply = post(body).await;
            assert_eq!((reply.status, reply.body.as_str()), (400, "Could not decode wrapped secret."), "{body}");
        }
        for without in ["token", "creationTime", "vaultAddr"] {
            let body = push_body(&vault.address(), "").replace(&format!("\"{without}\""), "\"x\"");
            assert_eq!(post(body).await.status, 400, "{without}");
        }
        assert!(vault.seen().is_empty());
        still_serves(init).await;
    }
);

promise!(
    /// Bad-input table: body of 10 MiB.
    a_body_of_ten_mebibytes_is_refused,
    async {
        let init = Init::listening(&[]).await;
        let body = "x".repeat(10 << 20);
        assert_eq!(post(body.clone()).await.status, 413);
        assert_eq!(request(Method::POST, "/", &[("expect", "100-continue")], body).await.status, 413);
        still_serves(init).await;
    }
);

promise!(a_head_without_end_is_refused, async {
    let init = Init::listening(&[]).await;
    let reply = request(Method::POST, "/", &[("x-long", &"x".repeat(20 << 10))], "{}").await;
    assert_eq!(reply.status, 431);
    still_serves(init).await;
});

promise!(
    /// Bad-input table: slow sender.
    a_slow_sender_is_cut_off_and_holds_up_nobody,
    async {
        let init = Init::listening(&[]).await;
        let mut slow = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
        slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
        assert_eq!(post("{}").await.status, 400, "another one is served meanwhile");
        let mut answer = Vec::new();
        slow.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
        still_serves(init).await;
    }
);

promise!(whoever_opens_connections_and_leaves_them_open_keeps_nobody_out, async {
    let init = Init::listening(&[]).await;
    let mut idle = Vec::new();
    for count in 0..100 {
        // Some without a handshake, some with one.
        if count % 2 == 0 {
            idle.push((Some(TcpStream::connect("127.0.0.1:50000").await.unwrap()), None));
        } else {
            idle.push((None, Some(connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await)));
        }
    }
    still_serves(init).await;
});

promise!(plain_http_is_no_push, async {
    let init = Init::listening(&[]).await;
    let mut plain = TcpStream::connect("127.0.0.1:50000").await.unwrap();
    plain.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    still_serves(init).await;
});

promise!(both_families_and_both_versions_of_tls_are_served, async {
    let init = Init::listening(&[]).await;
    for address in ["127.0.0.1:50000", "[::1]:50000"] {
        for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
            let stream = connect(address, versions).await;
            assert_eq!(send(stream, Method::POST, "/", &[], "{}").await.status, 400);
        }
    }
    still_serves(init).await;
});

promise!(a_handshake_long_before_the_request_is_fine, async {
    // The controller shakes hands first and asks Vault then.
    let init = Init::listening(&[]).await;
    let early = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let vault = FakeVault::good().await;
    let reply = send(early, Method::POST, "/", &[], push_body(&vault.address(), "")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(init.end().await.code, Some(0));
});
