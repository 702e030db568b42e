//! HTTP_PROXY, HTTPS_PROXY and NO_PROXY hold for calls to Vault.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::fake_vault::{FakeVault, good};
use crate::harness::{Init, OTHER_ADDRESS, post, promise, push_body};

promise!(plain_http_goes_to_the_proxy_with_the_whole_address, async {
    // The proxy is a Vault that looks at the path alone.
    let proxy = FakeVault::start(|path, _| good(path)).await;
    let url = format!("http://user:CANARY@{OTHER_ADDRESS}:{}", proxy.port);
    let init = Init::listening(&[("http_proxy", &url)]).await;
    let reply = post(push_body("http://vault.test:8200", "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(init.end().await.code, Some(0));
    let seen = proxy.seen();
    assert_eq!(seen[0].target, "http://vault.test:8200/v1/sys/wrapping/lookup");
    assert_eq!(seen[0].proxy_authorization, "Basic dXNlcjpDQU5BUlk=");
});

promise!(https_goes_through_a_tunnel, async {
    let vault = FakeVault::with_tls().await;
    let target = format!("127.0.0.1:{}", vault.port);
    let heads = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind((OTHER_ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            said.lock().unwrap().push(String::from_utf8(head).unwrap());
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut server = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let url = format!("http://{OTHER_ADDRESS}:{port}");
    let init = Init::listening(&[("HTTPS_PROXY", &url), ("HTTP_PROXY", "http://127.0.0.1:1")]).await;
    let bundle = wire::base64_encode(vault.ca.as_bytes());
    let body = push_body("https://vault.test:8200", "").replace("null", &format!("\"{bundle}\""));
    let reply = post(body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(init.end().await.code, Some(0));
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "one connection serves all requests");
    assert!(heads[0].starts_with("CONNECT vault.test:8200 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(!heads[0].contains("CANARY"));
});

promise!(a_proxy_that_refuses_is_a_503_that_names_it, async {
    let proxy = FakeVault::start(|_, _| crate::fake_vault::errors(407, "who are you")).await;
    let url = format!("http://{OTHER_ADDRESS}:{}", proxy.port);
    let init = Init::listening(&[("HTTPS_PROXY", &url)]).await;
    let reply = post(push_body("https://vault.test:8200", "")).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("407"), "{reply:?}");
    init.terminate();
    init.end().await;
});

promise!(no_proxy_names_what_is_reached_straight, async {
    let vault = FakeVault::good().await;
    let init = Init::listening(&[("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "10.0.0.0/8")]).await;
    let address = format!("http://{OTHER_ADDRESS}:{}", vault.port);
    assert_eq!(post(push_body(&address, "")).await.status, 200);
    assert_eq!(init.end().await.code, Some(0));
});
