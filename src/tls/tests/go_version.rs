//! The Go version's gossip, as HashiCorp's serf 0.10.1 was recorded to answer.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;

const PING: &[u8] = b"\x00\x82\xa5SeqNo\x01\xa4Node\xa0";

/// With compression, its default.
const COMPRESSED: &[u8] = b"\x09\x82\xa4Algo\x00\xa3Buf\xb7\x00\x05\x08\x3a\x05\x25\x4c\x1e\x36\x6f\xc2\x90\x01\x56\x6a\x4a\x99\x38\x4e\xde\x04\x08\x08";

/// Without it.
const PLAIN: &[u8] = b"\x02\x82\xa7Payload\xc0\xa5SeqNo\x01";

/// Answers a ping, and closes on anything else without a word, as memberlist does.
async fn memberlist(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut got = vec![0; PING.len()];
            if stream.read_exact(&mut got).await.is_ok() && got == PING {
                // In two pieces.
                let (head, tail) = answer.split_at(answer.len() / 2);
                let _ = stream.write_all(head).await;
                let _ = stream.flush().await;
                tokio::task::yield_now().await;
                let _ = stream.write_all(tail).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn it_is_known_by_its_answer() {
    for answer in [COMPRESSED, PLAIN] {
        let address = memberlist(answer).await;
        // What leads here: it closes on our first message.
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let identity = derived(TOKEN, &scope());
        let failure = explain(&call(identity.connect(Channel::Gossip, stream)).await.unwrap_err());
        assert_eq!(failure, PeerTlsFailure::Closed);
        assert!(failure.may_be_go_version());
        assert!(speaks_go_version(address).await);
    }
}

#[tokio::test]
async fn nothing_else_is() {
    let others: [&[u8]; 7] = [
        b"",
        b"\x02",
        b"\x02\x82",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x0a",
        b"\x0d\x81\xa5Error\xa1x",
        PING,
    ];
    for answer in others {
        assert!(!speaks_go_version(memberlist(answer).await).await, "{answer:?}");
    }
    // Endless talk.
    assert!(!speaks_go_version(memberlist(&[0x02; 4096]).await).await);
    // Nobody there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(!speaks_go_version(address).await);
}

#[tokio::test]
async fn one_of_us_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = derived(TOKEN, &scope());
    let (is_go, accepted) = tokio::join!(speaks_go_version(address), async {
        let (stream, _) = listener.accept().await.unwrap();
        identity.accept(Channel::Gossip, stream).await
    });
    assert!(!is_go);
    assert_eq!(accepted.err().map(|error| explain(&error)), Some(PeerTlsFailure::NotTls));
}

/// Somebody accepts and says nothing.
#[tokio::test(start_paused = true)]
async fn silence_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = tokio::time::Instant::now();
    assert!(!speaks_go_version(listener.local_addr().unwrap()).await);
    assert!(asked.elapsed() < std::time::Duration::from_secs(2));
}
