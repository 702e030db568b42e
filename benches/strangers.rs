//! Strangers who shake hands at a replica's metrics port and at its Raft port, one after another at a fixed rate.
//!
//! Each speaks the protocol of its port to the end and shows a certificate of another CA, so that the replica does all
//! of its work before it refuses. They come from several addresses: a replica drops whoever has too many connections
//! before it has done any work, and those would cost it nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kubernetes_vault::tls::{Channel, ClusterIdentity, Scope};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use testbed::Anybody;
use testbed::fake_pods::simulated_ip;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;

/// Handshakes a second, on both ports together: a scanner that means it.
pub(crate) const RATE: u32 = 200;
/// First of the strangers' own addresses, and how many there are.
const ADDRESSES: u16 = 51_401;
const COUNT: u16 = 16;
/// Between two who say nothing: ten thousand take long enough to be there while pods are served.
const HALF_OPEN_EVERY: Duration = Duration::from_millis(2);
/// One handshake. With [`RATE`] it bounds how many are under way.
const LIMIT: Duration = Duration::from_secs(5);

/// Connects `count` times to `to` and says nothing: handshakes that never begin, as long as the connections are kept.
pub(crate) async fn half_open(to: SocketAddr, count: u16) -> Result<Vec<TcpStream>> {
    let (mut open, mut turns) = (Vec::new(), interval(HALF_OPEN_EVERY));
    for number in 0..count {
        turns.tick().await;
        open.push(dial(simulated_ip(ADDRESSES + number % COUNT), to).await?);
    }
    Ok(open)
}

async fn dial(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let dialled = timeout(LIMIT, socket.connect(to)).await;
    dialled.with_context(|| format!("{to} does not answer"))?.with_context(|| format!("{to} is not to be reached"))
}

/// How to knock at one port.
#[derive(Clone)]
struct Disguise {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Those who knock at both ports.
#[derive(Clone)]
pub(crate) struct Strangers {
    disguises: [Disguise; 2],
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Knocks {
    /// Whole handshakes that were refused, at each of the two ports.
    pub(crate) refused: [u32; 2],
    /// Of both ports, a second.
    pub(crate) rate: f64,
    /// The first that went another way.
    pub(crate) odd: Option<anyhow::Error>,
}

impl Strangers {
    pub(crate) fn new() -> Result<Self> {
        // Of another secret: everything is right but the CA.
        let scope = Scope { namespace: "default".to_owned(), service: "kubernetes".to_owned(), cluster: String::new() };
        let secret = SecretString::from("hvs.a-token-of-another-installation");
        let peer = ClusterIdentity::derive(&scope, &secret, None)?.client(Channel::Raft);
        let scraper = Certificates::new("another CA")?.scraper_config()?;
        Ok(Self {
            disguises: [
                Disguise::new(scraper, ServerName::try_from("kubernetes-vault")?),
                Disguise::new(ClientConfig::clone(&peer), ClusterIdentity::server_name()),
            ],
        })
    }

    /// Knocks at `ports` in turn (metrics, Raft) until `stop`.
    pub(crate) async fn knock(self, ports: [SocketAddr; 2], stop: CancellationToken) -> Knocks {
        let (mut knocks, mut under_way, since) = (Knocks::default(), JoinSet::new(), Instant::now());
        // What a busy machine misses is made up for.
        let mut turns = interval(Duration::from_secs(1) / RATE);
        let mut number = 0_usize;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Ok(ended)) = under_way.join_next() => knocks.count(ended),
                _ = turns.tick() => {
                    let (port, from) = (number % 2, ADDRESSES + u16::try_from(number / 2).unwrap_or_default() % COUNT);
                    let (disguise, to) = (self.disguises[port].clone(), ports[port]);
                    under_way.spawn(async move { (port, disguise.knock(simulated_ip(from), to).await) });
                    number = (number + 1) % (2 * usize::from(COUNT));
                }
            }
        }
        let lasted = since.elapsed().as_secs_f64();
        while let Some(Ok(ended)) = under_way.join_next().await {
            knocks.count(ended);
        }
        knocks.rate = f64::from(knocks.refused.iter().sum::<u32>()) / lasted;
        knocks
    }
}

impl Knocks {
    fn count(&mut self, (port, ended): (usize, Result<()>)) {
        match ended {
            Ok(()) => self.refused[port] += 1,
            Err(error) if self.odd.is_none() => self.odd = Some(error),
            Err(_) => {}
        }
    }
}

impl Disguise {
    fn new(mut config: ClientConfig, name: ServerName<'static>) -> Self {
        config.dangerous().set_certificate_verifier(Arc::new(Anybody));
        Self { connector: TlsConnector::from(Arc::new(config)), name }
    }

    /// A whole handshake, and the refusal that follows it.
    async fn knock(self, from: IpAddr, to: SocketAddr) -> Result<()> {
        let exchange = async {
            let stream = dial(from, to).await?;
            let shaken = self.connector.connect(self.name, stream).await;
            // It does not know yet that it is not believed: with TLS 1.3 that shows once something is read.
            let mut stream = shaken.with_context(|| format!("{to} hung up before the handshake was over"))?;
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer).await;
            ensure!(ended.is_err() && answer.is_empty(), "{to} let a stranger in");
            Ok(())
        };
        timeout(LIMIT, exchange).await.with_context(|| format!("{to} kept a stranger"))?
    }
}
