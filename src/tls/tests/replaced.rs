//! An identity that is replaced while it is in use.

use tokio_rustls::{client, server};

use super::from_files::{OURS, Pki, load};
use super::*;

/// A connection between both, over which something was said.
async fn connected(
    client: &ClusterIdentity,
    server: &ClusterIdentity,
) -> (Guarded<client::TlsStream<DuplexStream>>, Guarded<server::TlsStream<DuplexStream>>) {
    let (near, far) = duplex(PIPE_BYTES);
    let (near, far) =
        tokio::join!(client.connect(Channel::Raft, near), async { server.accept(Channel::Raft, far).await });
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut got = [0; 4];
    far.read_exact(&mut got).await.unwrap();
    (near, far)
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_peer_and_disturbs_none_that_is_connected() {
    let pki = Pki::new();
    let (ours, theirs) = (load(&pki.issue(&[OURS], |_| {})), load(&pki.issue(&[OURS], |_| {})));
    let (mut near, mut far) = connected(&theirs, &ours).await;
    let clone = ours.clone();
    assert_eq!(ours.replace(&load(&pki.issue(&[OURS], |_| {}))), 0);
    far.write_all(b"pong").await.unwrap();
    far.flush().await.unwrap();
    let mut got = [0; 4];
    near.read_exact(&mut got).await.unwrap();
    // Who holds a clone has the new one, too.
    assert_friends(&clone, &theirs).await;
}

#[tokio::test]
async fn a_peer_of_a_ca_that_was_removed_is_disconnected_at_once_and_does_not_come_back() {
    let (staying, leaving) = (Pki::new(), Pki::new());
    let both = staying.write("both.pem", &(staying.ca.pem() + &leaving.ca.pem()));
    let paths = staying.issue(&[OURS], |_| {});
    let ours = load(&PeerFiles { ca: both.clone(), ..paths.clone() });
    let friend = load(&staying.issue(&[OURS], |_| {}));
    let stranger = load(&PeerFiles { ca: both, ..leaving.issue(&[OURS], |_| {}) });
    let (mut near, mut far) = connected(&friend, &ours).await;
    let (_out, mut out_far) = connected(&stranger, &ours).await;
    // It waits for whatever comes next, as a server does.
    let waiting = tokio::spawn(async move { out_far.read_u8().await });
    tokio::task::yield_now().await;
    assert_eq!(ours.replace(&load(&paths)), 1);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
    far.write_all(b"pong").await.unwrap();
    far.flush().await.unwrap();
    let mut got = [0; 4];
    near.read_exact(&mut got).await.unwrap();
    let (_, served) = meet(&stranger, &ours).await;
    assert_eq!(served, Err(PeerTlsFailure::AnotherCa));
}

// Whoever of a removed CA begins its handshake before, and ends it after.
#[tokio::test]
async fn a_handshake_that_is_under_way_meanwhile_does_not_slip_through() {
    let (staying, leaving) = (Pki::new(), Pki::new());
    let both = staying.write("both.pem", &(staying.ca.pem() + &leaving.ca.pem()));
    let paths = staying.issue(&[OURS], |_| {});
    let ours = load(&PeerFiles { ca: both.clone(), ..paths.clone() });
    let stranger = load(&PeerFiles { ca: both, ..leaving.issue(&[OURS], |_| {}) });
    // Too small for a flight of the handshake: the ends take turns.
    let (near, far) = duplex(64);
    let accepting = tokio::spawn({
        let ours = ours.clone();
        async move { ours.accept(Channel::Raft, far).await.map(drop) }
    });
    // The server has begun; the client has said nothing yet.
    tokio::task::yield_now().await;
    ours.replace(&load(&paths));
    let connecting = tokio::spawn(async move { stranger.connect(Channel::Raft, near).await.map(drop) });
    let error = accepting.await.unwrap().unwrap_err();
    assert_eq!(explain(&error), PeerTlsFailure::AnotherCa);
    let _ = connecting.await.unwrap();
}
