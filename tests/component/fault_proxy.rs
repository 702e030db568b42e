//! A proxy before Vault that breaks what it is told to break.
//!
//! Plain HTTP inwards (or TLS with a given certificate), Vault's own protocol outwards; one request a connection. It remembers
//! what it was asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use reqwest::{Certificate, Client, Method};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::world::World;

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Accepted, and never answered.
    Hang,
    /// The connection is reset before anything is asked of Vault.
    Reset,
    /// Vault's answer is cut in the middle of its body.
    Truncate,
    /// Vault executes the request, and its answer is lost.
    LoseAnswer,
    /// An answer of our own.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct Script {
    /// Part of the path, what happens, and how many times yet.
    faults: Vec<(&'static str, Fault, usize)>,
    seen: Vec<Seen>,
}

/// The proxy. It ends when dropped.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    scheme: &'static str,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

struct Request {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl FaultProxy {
    /// A proxy before the real Vault, at an address of its own.
    pub(crate) async fn start(world: &World) -> Result<Self> {
        Self::listen(world, world.address(), None).await
    }

    /// The same over TLS, at this address.
    pub(crate) async fn start_tls(world: &World, ip: IpAddr, tls: rustls::ServerConfig) -> Result<Self> {
        Self::listen(world, ip, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn listen(world: &World, ip: IpAddr, tls: Option<TlsAcceptor>) -> Result<Self> {
        let vault = world.vault()?;
        let ca = Certificate::from_pem(vault.ca().context("Vault serves no TLS")?.as_bytes())?;
        let http = Client::builder().no_proxy().tls_certs_only([ca]).build()?;
        let upstream = vault.address().to_owned();
        let listener = TcpListener::bind(SocketAddr::new(ip, 8200)).await?;
        let address = listener.local_addr()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = script.clone();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, http, upstream, tls) = (shared.clone(), http.clone(), upstream.clone(), tls.clone());
                // A connection that breaks is the other side's business.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await?, shared, http, upstream).await,
                        None => serve(stream, shared, http, upstream).await,
                    }
                });
            }
        });
        Ok(Self { address, scheme, script, task })
    }

    /// What `vault.addr` would be.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The next `times` requests whose path contains `part` meet `fault`.
    pub(crate) fn inject(&self, part: &'static str, fault: Fault, times: usize) {
        self.script().faults.push((part, fault, times));
    }

    /// No fault any more.
    pub(crate) fn heal(&self) {
        self.script().faults.clear();
    }

    /// Every request whose path contains `part`, in order.
    pub(crate) fn seen(&self, part: &str) -> Vec<Seen> {
        self.script().seen.iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    fn take(&mut self, path: &str) -> Option<Fault> {
        let (_, fault, left) = self.faults.iter_mut().find(|(part, _, left)| *left > 0 && path.contains(part))?;
        *left -= 1;
        Some(fault.clone())
    }
}

/// A connection that can be reset.
trait Connection: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Connection for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn serve(stream: impl Connection, script: Arc<Mutex<Script>>, http: Client, upstream: String) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let request = read(&mut stream).await?;
    let fault = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let body = String::from_utf8_lossy(&request.body).into_owned();
        script.seen.push(Seen { path: request.path.clone(), body });
        script.take(&request.path)
    };
    match &fault {
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Reset) => {
            stream.get_ref().tcp().set_zero_linger()?;
            return Ok(());
        }
        Some(Fault::Answer(status, headers, body)) => {
            let head: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            return write(&mut stream, *status, &head, body.as_bytes(), body.len()).await;
        }
        Some(Fault::Truncate | Fault::LoseAnswer) | None => {}
    }
    let mut forwarded = http.request(request.method, format!("{upstream}{}", request.path)).body(request.body);
    for (name, value) in &request.headers {
        if name.starts_with("x-vault") || name == "content-type" {
            forwarded = forwarded.header(name, value);
        }
    }
    let answer = forwarded.send().await?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    match fault {
        Some(Fault::LoseAnswer) => Ok(()),
        Some(Fault::Truncate) => write(&mut stream, status, "", &body[..body.len() / 2], body.len()).await,
        _ => write(&mut stream, status, "content-type: application/json\r\n", &body, body.len()).await,
    }
}

async fn read(stream: &mut BufReader<impl Connection>) -> Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let mut lines = lines.into_iter();
    let first = lines.next().context("no request")?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().context("no method")?.parse()?, words.next().context("no path")?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(Ok(0), |(_, value)| value.parse())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Request { method, path, headers, body })
}

async fn write(
    stream: &mut BufReader<impl Connection>,
    status: u16,
    head: &str,
    body: &[u8],
    length: usize,
) -> Result<()> {
    let head = format!("HTTP/1.1 {status} -\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await?;
    Ok(())
}
