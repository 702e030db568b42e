//! Simulated init containers: TLS servers on addresses of their own that answer a push as their script says.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use testbed::poll_until;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::world::LIMIT;

/// Where init containers listen.
const PORT: u16 = 50000;
/// One block of an answer without an end.
const BLOCK: usize = 1 << 20;

/// What a push gets.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    /// A complete answer: status, further header lines, body.
    Says(u16, &'static str, &'static str),
    /// 200 and `attempt=<id>`, as our init container says it.
    Takes,
    /// The same after this long.
    TakesAfter(Duration),
    /// This status, and for a body the token and then all of the push: the worst that a receiver can do with it.
    Echoes(u16),
    /// Reads the push and closes the connection.
    Closes,
    /// Reads the push and never answers.
    Hangs,
    /// Half of the answer that it announces.
    Cuts,
    /// A body of 1 GiB.
    Floods,
    /// Speaks HTTP where TLS is due.
    PlainHttp,
    /// Accepts the connection and never shakes hands.
    NoHandshake,
}

/// A push as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) message: Value,
    pub(crate) at: Instant,
}

impl Push {
    /// The attempt that it names.
    pub(crate) fn attempt(&self) -> &str {
        self.message["attempt"].as_str().unwrap_or_default()
    }
}

/// A simulated init container. It ends when dropped.
pub(crate) struct Receiver {
    pub(crate) ip: IpAddr,
    pushes: Arc<Mutex<Vec<Push>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens. The n-th push (or connection, where there is no handshake) gets the n-th reaction, all further ones
    /// the last.
    pub(crate) async fn start(ip: IpAddr, script: &[Reaction]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["init".to_owned()])?.self_signed(&key)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(SocketAddr::new(ip, PORT)).await?;
        let pushes = Arc::new(Mutex::new(Vec::new()));
        let (script, shared) = (script.to_vec(), pushes.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is the sender's business.
                tokio::spawn(serve(stream, tls.clone(), script.clone(), shared.clone()));
            }
        });
        Ok(Self { ip, pushes, task })
    }

    /// What came so far.
    pub(crate) fn pushes(&self) -> Vec<Push> {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many pushes.
    pub(crate) async fn wait_for(&self, count: usize) -> Result<Vec<Push>> {
        let what = format!("{count} pushes at {}", self.ip);
        poll_until(&what, LIMIT, || async { Ok(Some(self.pushes()).filter(|pushes| pushes.len() >= count)) }).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    tls: TlsAcceptor,
    script: Vec<Reaction>,
    pushes: Arc<Mutex<Vec<Push>>>,
) -> Result<()> {
    match script.first() {
        Some(Reaction::PlainHttp) => {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await?;
            return Ok(());
        }
        Some(Reaction::NoHandshake) => return std::future::pending().await,
        _ => {}
    }
    let mut stream = BufReader::new(tls.accept(stream).await?);
    let message = read(&mut stream).await?;
    let echo = format!("{} is no token: {message}", message["token"].as_str().unwrap_or_default());
    let attempt = message["attempt"].as_str().unwrap_or_default().to_owned();
    let index = {
        let mut pushes = pushes.lock().unwrap_or_else(PoisonError::into_inner);
        pushes.push(Push { message, at: Instant::now() });
        pushes.len() - 1
    };
    let reaction = script.get(index).or(script.last()).cloned().context("no script")?;
    match reaction {
        Reaction::Says(status, head, body) => answer(&mut stream, status, head, body, body.len()).await,
        Reaction::Echoes(status) => answer(&mut stream, status, "", &echo, echo.len()).await,
        Reaction::Takes | Reaction::TakesAfter(_) => {
            if let Reaction::TakesAfter(while_it_works) = reaction {
                tokio::time::sleep(while_it_works).await;
            }
            let body = format!("attempt={attempt}");
            answer(&mut stream, 200, "", &body, body.len()).await
        }
        Reaction::Cuts => answer(&mut stream, 200, "", "half", 100).await,
        Reaction::Floods => {
            answer(&mut stream, 200, "", "", 1 << 30).await.ok();
            let block = vec![b'x'; BLOCK];
            for _ in 0..1024 {
                stream.write_all(&block).await?;
            }
            Ok(())
        }
        Reaction::Hangs => std::future::pending().await,
        Reaction::Closes | Reaction::PlainHttp | Reaction::NoHandshake => Ok(()),
    }
}

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> Result<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "only a handshake");
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn answer(
    stream: &mut BufReader<TlsStream<TcpStream>>,
    status: u16,
    head: &str,
    body: &str,
    length: usize,
) -> Result<()> {
    let head = format!("HTTP/1.1 {status} -\r\n{head}content-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    // The sender ends the connection once it has the whole answer; a cut one is ended by us.
    if body.len() == length {
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    }
    Ok(())
}
