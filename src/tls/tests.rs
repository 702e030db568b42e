//! Who gets through, and who does not. Both ends in one process, with a pipe between them.

mod derived;
mod from_files;
mod from_vault;
mod go_version;
mod replaced;
mod scrapers;
mod strangers;

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use testbed::Anybody;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;

const TOKEN: &str = "hvs.canarycanarycanarycanary";

/// Enough for a handshake: nothing here waits for the other end to read.
const PIPE_BYTES: usize = 64 * 1024;

fn scope() -> Scope {
    Scope { namespace: "kube-system".to_owned(), service: "kubernetes-vault".to_owned(), cluster: String::new() }
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn derived(text: &str, scope: &Scope) -> ClusterIdentity {
    ClusterIdentity::derive(scope, &secret(text), None).unwrap()
}

/// The server's part: what it got, after it has answered.
async fn serve(identity: &ClusterIdentity, pipe: DuplexStream) -> io::Result<Vec<u8>> {
    let mut stream = identity.accept(Channel::Raft, pipe).await?;
    let mut got = vec![0; 4];
    stream.read_exact(&mut got).await?;
    stream.write_all(b"pong").await?;
    stream.flush().await?;
    Ok(got)
}

/// The client's part, the handshake included.
async fn call<S>(stream: impl Future<Output = io::Result<S>>) -> io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut stream = stream.await?;
    stream.write_all(b"ping").await?;
    stream.flush().await?;
    let mut got = vec![0; 4];
    stream.read_exact(&mut got).await?;
    Ok(got)
}

type Outcome = Result<Vec<u8>, PeerTlsFailure>;

/// What became of the client's call and of the server's answer.
async fn meet(client: &ClusterIdentity, server: &ClusterIdentity) -> (Outcome, Outcome) {
    let (near, far) = duplex(PIPE_BYTES);
    let (called, served) = tokio::join!(call(client.connect(Channel::Raft, near)), serve(server, far));
    (called.map_err(|error| explain(&error)), served.map_err(|error| explain(&error)))
}

async fn assert_friends(one: &ClusterIdentity, other: &ClusterIdentity) {
    for (client, server) in [(one, other), (other, one)] {
        assert_eq!(meet(client, server).await, (Ok(b"pong".to_vec()), Ok(b"ping".to_vec())));
    }
}

/// The same for a client that believes any server, so that the server alone has to refuse it.
async fn meet_careless(config: ClientConfig, server: &ClusterIdentity) -> (Outcome, Outcome) {
    let (near, far) = duplex(PIPE_BYTES);
    let connector = TlsConnector::from(Arc::new(config));
    let connect = connector.connect(ClusterIdentity::server_name(), near);
    let (called, served) = tokio::join!(call(connect), serve(server, far));
    (called.map_err(|error| explain(&error)), served.map_err(|error| explain(&error)))
}

/// Shows `own`, or nothing, and believes anybody.
fn careless(
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![Channel::Raft.alpn().to_vec()];
    config
}
