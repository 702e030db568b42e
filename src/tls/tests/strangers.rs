//! Whoever has no identity: none of them gets an application's byte through, in either direction.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use super::*;

fn ours() -> ClusterIdentity {
    derived(TOKEN, &scope())
}

#[tokio::test]
async fn a_client_without_a_certificate() {
    let (called, served) = meet_careless(careless(None, &[&TLS13]), &ours()).await;
    assert_eq!(served, Err(PeerTlsFailure::NoCertificate));
    assert_eq!(called, Err(PeerTlsFailure::NotAccepted("it got none".to_owned())));
}

#[tokio::test]
async fn a_client_that_speaks_tls_1_2() {
    let (called, served) = meet_careless(careless(None, &[&TLS12]), &ours()).await;
    assert_eq!(served, Err(PeerTlsFailure::OldTls));
    assert_eq!(called, Err(PeerTlsFailure::OldTls));
}

/// A peer, but at the wrong port, or of a version that speaks otherwise.
#[tokio::test]
async fn another_protocol() {
    let (near, far) = duplex(PIPE_BYTES);
    let (client, server) = (ours(), ours());
    let (called, served) = tokio::join!(call(client.connect(Channel::Gossip, near)), serve(&server, far));
    assert_eq!(explain(&served.unwrap_err()), PeerTlsFailure::AnotherProtocol);
    assert_eq!(explain(&called.unwrap_err()), PeerTlsFailure::AnotherProtocol);
}

/// TLS itself lets this pass: neither end refuses who names no protocol.
#[tokio::test]
async fn no_protocol_named() {
    let leaf = crate::tls::derive::DerivedCa::new(&secret(TOKEN), &scope()).unwrap().issue(&scope()).unwrap();
    let mut client = careless(Some((vec![leaf.certificate], leaf.key)), &[&TLS13]);
    client.alpn_protocols.clear();
    let (_, served) = meet_careless(client, &ours()).await;
    assert_eq!(served, Err(PeerTlsFailure::AnotherProtocol));
    // The same certificate, served by another program.
    let mut server = (*ours().server(Channel::Raft)).clone();
    server.alpn_protocols.clear();
    let (near, far) = duplex(PIPE_BYTES);
    let client = ours();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let (called, served) = tokio::join!(call(client.connect(Channel::Raft, near)), async {
        let mut got = Vec::new();
        // The connection is cut without a goodbye.
        let _ = acceptor.accept(far).await?.read_to_end(&mut got).await;
        io::Result::Ok(got)
    });
    assert_eq!(explain(&called.unwrap_err()), PeerTlsFailure::AnotherProtocol);
    assert_eq!(served.unwrap(), b"");
}

#[tokio::test]
async fn what_is_no_tls() {
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x82\xa5SeqNo\x01\xa4Node\xa0",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        // An application's record, before any handshake.
        b"\x17\x03\x03\x00\x04ping",
    ];
    for bytes in garbage {
        let (mut near, far) = duplex(PIPE_BYTES);
        near.write_all(bytes).await.unwrap();
        let server = ours();
        let failure = explain(&serve(&server, far).await.unwrap_err());
        assert_eq!(failure, PeerTlsFailure::NotTls, "{bytes:?}");
        assert!(failure.may_be_go_version() && !failure.concerns_identity());
        // As seen by a client whose server answers so.
        let (near, mut far) = duplex(PIPE_BYTES);
        far.write_all(bytes).await.unwrap();
        let client = ours();
        let failure = explain(&call(client.connect(Channel::Raft, near)).await.unwrap_err());
        assert_eq!(failure, PeerTlsFailure::NotTls, "{bytes:?}");
    }
}

/// So it looks when the peer is the Go version: its memberlist closes on what it does not understand.
#[tokio::test]
async fn a_connection_that_is_closed() {
    let (near, far) = duplex(PIPE_BYTES);
    drop(far);
    let client = ours();
    let failure = explain(&call(client.connect(Channel::Raft, near)).await.unwrap_err());
    assert_eq!(failure, PeerTlsFailure::Closed);
    assert!(failure.may_be_go_version() && !failure.concerns_identity());
    let (near, far) = duplex(PIPE_BYTES);
    drop(near);
    assert_eq!(explain(&serve(&ours(), far).await.unwrap_err()), PeerTlsFailure::Closed);
    let late = io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed");
    assert_eq!(explain(&late), PeerTlsFailure::Silent);
}

/// Somebody has recorded all that a peer sent, its application's bytes included, and sends it again.
#[tokio::test]
async fn a_recorded_connection_is_good_for_nothing() {
    let (client, server) = (ours(), ours());
    let (near, mut left) = duplex(PIPE_BYTES);
    let (mut right, far) = duplex(PIPE_BYTES);
    let mut recorded = Vec::new();
    let (called, served, _) = tokio::join!(call(client.connect(Channel::Raft, near)), serve(&server, far), async {
        let (mut from_client, mut from_server) = (vec![0; PIPE_BYTES], vec![0; PIPE_BYTES]);
        loop {
            tokio::select! {
                n = left.read(&mut from_client) => {
                    let n = n.unwrap();
                    if n == 0 {
                        break;
                    }
                    recorded.extend_from_slice(&from_client[..n]);
                    right.write_all(&from_client[..n]).await.unwrap();
                }
                n = right.read(&mut from_server) => {
                    let n = n.unwrap();
                    if left.write_all(&from_server[..n]).await.is_err() || n == 0 {
                        break;
                    }
                }
            }
        }
    });
    assert_eq!((called.unwrap(), served.unwrap()), (b"pong".to_vec(), b"ping".to_vec()));
    let (mut replayer, far) = duplex(PIPE_BYTES);
    replayer.write_all(&recorded).await.unwrap();
    let replayed = serve(&server, far).await.unwrap_err();
    assert!(matches!(explain(&replayed), PeerTlsFailure::Other(_)), "{replayed:?}");
}

/// No ticket is kept, so that each connection shows its certificate.
#[tokio::test]
async fn nothing_is_resumed() {
    let (client, server) = (ours(), ours());
    for _ in 0..3 {
        let (near, far) = duplex(PIPE_BYTES);
        let (called, served) = tokio::join!(client.connect(Channel::Raft, near), server.accept(Channel::Raft, far));
        let (called, served) = (called.unwrap(), served.unwrap());
        assert_eq!(called.session().handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(served.session().handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(called.session().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        // Nothing in clear about whom we call.
        assert_eq!(served.session().server_name(), None);
    }
    let (client, server) = (client.client(Channel::Raft), server.server(Channel::Raft));
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size, client.enable_early_data), (0, 0, false));
}
