//! Simulated init containers: TLS servers of one process, each on the address of its pod.
//!
//! Each answers one push as ours does, tells when the POST had arrived, and is gone: its port refuses connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wire::limits;

/// Arrivals that wait to be counted: more than any section has pods.
const ARRIVALS: usize = 8_192;

/// What a receiver saw.
pub(crate) struct Arrival {
    pub(crate) ip: IpAddr,
    pub(crate) at: Instant,
}

pub(crate) struct Receivers {
    tls: TlsAcceptor,
    tell: mpsc::Sender<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Receivers {
    pub(crate) fn new() -> Result<Self> {
        let (tell, arrivals) = mpsc::channel(ARRIVALS);
        Ok(Self { tls: acceptor()?, tell, arrivals })
    }

    /// Listens on a pod's address until a push was accepted.
    pub(crate) async fn listen(&self, ip: IpAddr) -> Result<()> {
        let listener = TcpListener::bind((ip, limits::PORT)).await.with_context(|| format!("cannot listen on {ip}"))?;
        let (tls, tell) = (self.tls.clone(), self.tell.clone());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve(tls.clone(), stream))),
                    // A dial without a push, or a broken one, leaves it waiting: as ours.
                    Some(Ok(Ok(at))) = connections.join_next() => {
                        let _ = tell.send(Arrival { ip, at }).await;
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    /// Waits for so many pushes: when each arrived.
    pub(crate) async fn collect(&mut self, count: usize, limit: Duration) -> Result<HashMap<IpAddr, Instant>> {
        let mut seen = HashMap::new();
        let all = async {
            while seen.len() < count {
                let Some(arrival) = self.arrivals.recv().await else { break };
                seen.insert(arrival.ip, arrival.at);
            }
        };
        if timeout(limit, all).await.is_err() {
            bail!("{} of {count} pushes arrived within {limit:?}", seen.len());
        }
        Ok(seen)
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["simulated".to_owned()])?.self_signed(&key)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// One connection; when its POST was complete.
async fn serve(tls: TlsAcceptor, stream: TcpStream) -> Result<Instant> {
    let mut stream = tls.accept(stream).await?;
    let mut request = Vec::with_capacity(1_024);
    let body = loop {
        ensure!(stream.read_buf(&mut request).await? > 0, "the sender went");
        if let Some(body) = complete(&request)? {
            break body;
        }
    };
    let at = Instant::now();
    let push = wire::Push::decode(body)?;
    let answer = push.attempt.as_deref().map(wire::attempt_body).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    stream.write_all(format!("{head}{answer}").as_bytes()).await?;
    stream.shutdown().await?;
    Ok(at)
}

/// The body, once all of it is there.
fn complete(request: &[u8]) -> Result<Option<&[u8]>> {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&request[..end])?.to_ascii_lowercase();
    ensure!(head.starts_with("post / http/1.1"), "not a push: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("no length")?.trim().parse()?;
    let body = &request[end + 4..];
    Ok((body.len() >= length).then_some(body))
}
