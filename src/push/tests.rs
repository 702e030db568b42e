//! The courier against receivers that behave well and badly, over real sockets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::deliver::ports::{PushRequest, VaultAddress, WrappedSecretId};
use crate::domain::delivery::{Answer, Meaning};
use crate::domain::ids::{AttemptId, PodRef, PodUid};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn request() -> PushRequest {
    PushRequest {
        attempt: AttemptId::from("a1"),
        pod: PodRef { namespace: "apps".into(), name: "web-0".into(), uid: PodUid::from("uid-1") },
        secret: WrappedSecretId {
            token: "hvs.EXAMPLE".to_owned().into(),
            creation_time: "2026-11-23T13:57:34.233297Z".parse().unwrap(),
            ttl_seconds: 60,
            accessors: crate::domain::ledger::Accessors::default(),
        },
        vault: Arc::new(VaultAddress { address: "http://vault:8200".into(), ca_bundle: None, namespace: None }),
    }
}

fn acceptor() -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Reads a request up to the end of its body.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !seen.ends_with(b"}") {
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0, "the sender went before its body was complete");
        seen.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(seen).unwrap()
}

/// Pushes once to a receiver that says `answer` (after the request) and then closes or, if `hang`, stays.
async fn exchange(answer: impl Into<Vec<u8>>, hang: bool) -> (Answer, String) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer.into();
    let receiver = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor().accept(stream).await.unwrap();
        let request = read_request(&mut stream).await;
        let _ = stream.write_all(&answer).await;
        let _ = stream.flush().await;
        if hang {
            let mut rest = [0; 1];
            let _ = stream.read(&mut rest).await;
        }
        request
    });
    let mut courier = PodCourier::with_port(port).unwrap();
    courier.limits.answer = Duration::from_millis(400);
    let line = courier.dial(&[LOCAL]).await.unwrap();
    let answer = line.push(&request()).await;
    (answer, receiver.await.unwrap())
}

// Found by the canary: what a receiver says goes into the log and into an Event.
#[tokio::test]
async fn an_answer_that_repeats_the_token_is_told_without_it() {
    for echo in ["bad token hvs.EXAMPLE", "bad token hvs.\u{1}EXA\u{2}MPLE", &format!("{:190}hvs.EXAMPLE", "x")] {
        let said = format!("HTTP/1.1 400 -\r\nContent-Length: {}\r\n\r\n{echo}", echo.len());
        let (answer, _) = exchange(said, false).await;
        let told = answer.describe();
        assert!(told.contains("[token]") && !told.contains("hvs."), "{told}");
    }
}

#[tokio::test]
async fn the_push_is_the_references_with_ours_appended() {
    let (answer, request) = exchange("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nattempt=a1", false).await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("\r\ncontent-type: application/json"), "{head}");
    assert!(lower.contains("\r\nhost: 127.0.0.1:"), "{head}");
    let reference = r#"{"token":"hvs.EXAMPLE","creationTime":"2026-11-23T13:57:34.233297Z","ttl":60,"vaultAddr":"http://vault:8200","vaultCAs":null"#;
    let ours = r#","attempt":"a1","podName":"web-0","podNamespace":"apps","podUID":"uid-1"}"#;
    assert_eq!(body, format!("{reference}{ours}"));
    let Answer::Complete { named, .. } = &answer else { panic!("{answer:?}") };
    assert_eq!(named.as_ref(), Some(&AttemptId::from("a1")));
    assert_eq!(answer.meaning(), Meaning::Accepted);
}

// Bad-input table: an init container that answers any status, closes, accepts and hangs, answers 1 GiB.
#[tokio::test]
async fn every_answer_is_read_for_what_it_is() {
    let of = |text: &str| text.as_bytes().to_vec();
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let used = of("HTTP/1.1 422 X\r\nContent-Length: 13\r\n\r\nused: already");
    let cases: Vec<(Vec<u8>, bool, Meaning)> = vec![
        (empty("200 OK"), false, Meaning::Accepted),
        (empty("409 Conflict"), true, Meaning::Busy),
        (of("HTTP/1.1 410 Gone\r\nContent-Length: 9\r\n\r\nattempt=x"), false, Meaning::DoneEarlier),
        (used, false, Meaning::TokenRefused { used: true }),
        (empty("307 Temporary Redirect\r\nLocation: https://elsewhere/"), false, Meaning::Final),
        (
            of("HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
            false,
            Meaning::Unable { retry_after: Some(Duration::from_secs(7)) },
        ),
        (of(""), false, Meaning::Unknown),
        (of(""), true, Meaning::Unknown),
        (of("HTTP/1.1 200 OK\r\nContent-Le"), false, Meaning::Unknown),
        (of("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), false, Meaning::Unknown),
        (of("SSH-2.0-OpenSSH_9.2\r\n"), true, Meaning::Unknown),
        (
            [of("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"), vec![b'x'; 1 << 20]].concat(),
            true,
            Meaning::Unknown,
        ),
        ([of("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 1 << 20]].concat(), true, Meaning::Unknown),
    ];
    for (answer, hang, meaning) in cases {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        assert_eq!(exchange(answer, hang).await.0.meaning(), meaning, "{shown:?}");
    }
}

// Bad-input table: refuses, speaks plain HTTP.
#[tokio::test]
async fn what_completes_no_handshake_is_sent_nothing() {
    let refused = PodCourier::with_port(1).unwrap();
    assert!(refused.dial(&[LOCAL]).await.is_err());
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        let _ = stream.read_to_end(&mut seen).await;
        seen
    });
    let error = PodCourier::with_port(port).unwrap().dial(&[LOCAL]).await.err().unwrap();
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    let seen = plain.await.unwrap();
    assert!(!String::from_utf8_lossy(&seen).contains("POST"));
}

#[tokio::test]
async fn a_silent_address_costs_its_second_and_the_next_one_is_tried() {
    let silent = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let good = TcpListener::bind((LOCAL, port)).await.unwrap();
    tokio::spawn(async move {
        let (stream, _) = good.accept().await.unwrap();
        let _stream = acceptor().accept(stream).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut courier = PodCourier::with_port(port).unwrap();
    courier.limits.dial = Duration::from_millis(300);
    let before = Instant::now();
    courier.dial(&["127.0.0.2".parse().unwrap(), LOCAL]).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
}
