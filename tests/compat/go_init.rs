//! A server that behaves as the Go init container: it says 200 before it has done anything, blocks a second POST, and
//! is gone when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::pod::PORT;
use crate::process::LIMIT;
use crate::tls::{self, Versions};

/// As many pushes as a case may make; more of them wait.
const PUSHES: usize = 16;

/// A push, as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// The server.
pub(crate) struct GoInit {
    received: mpsc::Receiver<Received>,
    posts: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// What a connection shares with the others.
#[derive(Clone)]
struct Handler {
    status: &'static str,
    sender: mpsc::Sender<Received>,
    posts: Arc<AtomicUsize>,
}

impl GoInit {
    /// Listens on a simulated pod's address.
    pub(crate) async fn listen(ip: IpAddr, versions: Versions) -> Result<Self> {
        Self::answering(ip, versions, "200 OK").await
    }

    /// Listens, and answers this.
    pub(crate) async fn answering(ip: IpAddr, versions: Versions, status: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((ip, PORT)).await.with_context(|| format!("cannot listen on {ip}"))?;
        let acceptor = tls::self_signed(ip, versions)?;
        let (sender, received) = mpsc::channel(PUSHES);
        let posts = Arc::new(AtomicUsize::new(0));
        let handler = Handler { status, sender, posts: posts.clone() };
        let task = tokio::spawn(async move {
            // They end with this task, as connections end with a process.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler.clone().serve(acceptor.clone(), stream));
            }
        });
        Ok(Self { received, posts, task })
    }

    /// Waits for a push.
    pub(crate) async fn pushed(&mut self) -> Result<Received> {
        timeout(LIMIT, self.received.recv()).await.context("no push in time")?.context("the server has ended")
    }

    /// How many pushes came, those that were not answered included.
    pub(crate) fn posts(&self) -> usize {
        self.posts.load(Ordering::SeqCst)
    }
}

impl Drop for GoInit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handler {
    async fn serve(self, acceptor: TlsAcceptor, stream: TcpStream) {
        // Whoever only dials, or hangs up, has done no harm: what was pushed is what counts.
        let _ = self.answer(acceptor, stream).await;
    }

    async fn answer(&self, acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
        let mut stream = acceptor.accept(stream).await?;
        let (server_name, alpn) = {
            let (_, connection) = stream.get_ref();
            (connection.server_name().map(str::to_owned), connection.alpn_protocol().map(<[u8]>::to_vec))
        };
        let mut bytes = Vec::new();
        let (head, body) = loop {
            if let Some(message) = complete(&bytes)? {
                break message;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        if self.posts.fetch_add(1, Ordering::SeqCst) > 0 && self.status.starts_with("200") {
            // Go's handler waits for a reader that will not come again.
            let _ = self.sender.send(Received { head, body, server_name, alpn }).await;
            return std::future::pending().await;
        }
        let answer =
            format!("HTTP/1.1 {}\r\nDate: Mon, 23 Nov 2026 13:58:04 GMT\r\nContent-Length: 0\r\n\r\n", self.status);
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        let _ = self.sender.send(Received { head, body, server_name, alpn }).await;
        // Kept open, as Go keeps it for another request.
        let _ = stream.read_buf(&mut bytes).await;
        Ok(())
    }
}

fn complete(bytes: &[u8]) -> Result<Option<(String, String)>> {
    let text = std::str::from_utf8(bytes)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("a push without Content-Length")?;
    Ok((body.len() >= length).then(|| (head.to_owned(), body.to_owned())))
}
