//! Who speaks the peers' protocol, and has no right to.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::tls::{Channel, ClusterIdentity, Scope};
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use secrecy::SecretString;
use testbed::Anybody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, duplex, split};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::controller::NAME;
use super::strangers::HUNG_UP;

/// More than a handshake.
const PIPE: usize = 64 << 10;

/// Whoever comes to the ports of the cluster of `token` in `namespace`, and why it has to be refused.
pub(crate) struct Impostors {
    ours: ClusterIdentity,
    others: Vec<(&'static str, ClientConfig)>,
}

impl Impostors {
    pub(crate) fn of(namespace: &str, token: &str, channel: Channel) -> Result<Self> {
        let identity = |namespace: &str, token: &str| {
            let (namespace, service) = (namespace.to_owned(), NAME.to_owned());
            let scope = Scope { namespace, service, cluster: String::new() };
            ClusterIdentity::derive(&scope, &SecretString::from(token), None)
        };
        let ours = identity(namespace, token)?;
        let certified = |identity: &ClusterIdentity| believing(ClientConfig::clone(&identity.client(channel)));
        let others = vec![
            ("no certificate", believing(without_certificate(&ours.client(channel))?)),
            ("the certificate of another token", certified(&identity(namespace, "hvs.another-token-of-that-length")?)),
            ("the certificate of the same token in another namespace", certified(&identity("elsewhere", token)?)),
        ];
        Ok(Self { ours, others })
    }

    /// Each is hung up on, without a byte that it could read.
    pub(crate) async fn are_refused(&self, address: Ipv4Addr, port: u16) -> Result<()> {
        for (shows, config) in &self.others {
            let stream = TcpStream::connect((address, port)).await?;
            let connector = TlsConnector::from(Arc::new(config.clone()));
            // It believes us, and does not know yet that it is not believed.
            let connected = timeout(HUNG_UP, connector.connect(ClusterIdentity::server_name(), stream)).await?;
            let mut stream = connected.with_context(|| format!("port {port}, {shows}"))?;
            let mut answer = Vec::new();
            let ended = timeout(HUNG_UP, stream.read_to_end(&mut answer)).await;
            let ended = ended.with_context(|| format!("port {port} keeps a stranger that shows {shows}"))?;
            ensure!(ended.is_err() && answer.is_empty(), "port {port} told a stranger that shows {shows} {answer:?}");
        }
        Ok(())
    }

    /// What one of us has said is of no use to anybody else.
    pub(crate) async fn cannot_replay(&self, channel: Channel, address: Ipv4Addr, port: u16) -> Result<()> {
        let stream = TcpStream::connect((address, port)).await?;
        let (near, far) = duplex(PIPE);
        let ((mut said, mut hears), (mut from, mut to)) = (split(far), stream.into_split());
        let forwards = tokio::spawn(async move {
            let (mut recorded, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = said.read(&mut piece).await {
                recorded.extend_from_slice(&piece[..read]);
                if to.write_all(&piece[..read]).await.is_err() {
                    break;
                }
            }
            recorded
        });
        let answers = tokio::spawn(async move { copy(&mut from, &mut hears).await });
        let ours = timeout(HUNG_UP, self.ours.connect(channel, near)).await?;
        drop(ours.with_context(|| format!("port {port} does not take one of its own"))?);
        let recorded = forwards.await?;
        answers.abort();
        let mut thief = TcpStream::connect((address, port)).await?;
        thief.write_all(&recorded).await?;
        let ended = timeout(HUNG_UP, thief.read_to_end(&mut Vec::new())).await;
        ended.with_context(|| format!("port {port} keeps whoever replays a handshake"))?.ok();
        Ok(())
    }
}

/// The same, whoever answers.
fn believing(mut config: ClientConfig) -> ClientConfig {
    config.dangerous().set_certificate_verifier(Arc::new(Anybody));
    config
}

fn without_certificate(like: &ClientConfig) -> Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    config.alpn_protocols.clone_from(&like.alpn_protocols);
    Ok(config)
}
