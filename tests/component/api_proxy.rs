//! A proxy before the API server that ends watches, or spoils a word in what passes.
//!
//! Plain TCP inwards, TLS outwards; bytes pass as they are. Whoever uses it has to bring a token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::world::World;

/// The proxy. It ends when dropped.
pub(crate) struct ApiProxy {
    kubeconfig: PathBuf,
    storm: watch::Sender<bool>,
    watches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A word, and what takes its place: of the same length, so that no length before it becomes wrong.
pub(crate) type Spoil = (&'static str, &'static str);

#[derive(Clone)]
struct Path {
    server: SocketAddr,
    tls: TlsConnector,
    spoil: Option<Spoil>,
    storm: watch::Receiver<bool>,
    watches: Arc<AtomicUsize>,
}

impl ApiProxy {
    /// A proxy before the real API server.
    pub(crate) async fn start(world: &World, spoil: Option<Spoil>) -> Result<Self> {
        let plane = world.bed.control_plane();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(plane.ca().as_bytes())?)?;
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let port = plane.url().rsplit(':').next().context("no port")?.parse()?;
        let listener = TcpListener::bind(SocketAddr::new(world.address(), 6443)).await?;
        let address = listener.local_addr()?;
        let (storm, is_storm) = watch::channel(false);
        let watches = Arc::new(AtomicUsize::new(0));
        let path = Path {
            server: SocketAddr::new(plane.ip().into(), port),
            tls: TlsConnector::from(Arc::new(tls)),
            spoil,
            storm: is_storm,
            watches: watches.clone(),
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is what this proxy is for.
                tokio::spawn(path.clone().pass(stream));
            }
        });
        let kubeconfig = kubeconfig(world, address).await?;
        Ok(Self { kubeconfig, storm, watches, task })
    }

    /// A kubeconfig of an administrator that leads here.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// From now on (or not any more) each watch ends as soon as it has begun; those that are open end now.
    pub(crate) fn storm(&self, on: bool) {
        self.storm.send_replace(on);
    }

    /// How many watches were begun.
    pub(crate) fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn kubeconfig(world: &World, address: SocketAddr) -> Result<PathBuf> {
    let name = world.name("proxied");
    let bed = &world.bed;
    bed.kubectl(&["create", "serviceaccount", &name, "-n", "default"]).await?;
    let (role, account) = ("--clusterrole=cluster-admin", format!("--serviceaccount=default:{name}"));
    bed.kubectl(&["create", "clusterrolebinding", &name, role, &account]).await?;
    let token = bed.kubectl(&["create", "token", &name, "-n", "default"]).await?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "it", "user": {"token": token.trim()}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    let path = bed.directory().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

impl Path {
    async fn pass(mut self, inner: TcpStream) -> Result<()> {
        let outer = TcpStream::connect(self.server).await?;
        let outer = self.tls.connect(ServerName::IpAddress(self.server.ip().into()), outer).await?;
        let (from_client, to_client) = split(inner);
        let (from_server, to_server) = split(outer);
        let (asked, is_watch) = watch::channel(false);
        let mut storm = self.storm.clone();
        let broken = storm.wait_for(|on| *on);
        // The part that ends first ends both.
        let watched = is_watch.clone();
        let end_of_watch = async move {
            // A storm ends what is open already only where it is a watch.
            if broken.await.is_ok() && *watched.borrow() {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = self.clone().requests(from_client, to_server, asked) => done,
            done = self.answers(from_server, to_client, is_watch) => done,
            () = end_of_watch => Ok(()),
        }
    }

    async fn requests(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        asked: watch::Sender<bool>,
    ) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            // A request's first line comes in one piece.
            if String::from_utf8_lossy(&buffer[..read]).contains("watch=") {
                self.watches.fetch_add(1, Ordering::Relaxed);
                asked.send_replace(true);
            }
            to.write_all(&buffer[..read]).await?;
            to.flush().await?;
        }
    }

    async fn answers(
        &mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        is_watch: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if let Some((word, other)) = self.spoil {
                replace(&mut buffer[..read], word.as_bytes(), other.as_bytes());
            }
            to.write_all(&buffer[..read]).await?;
            if *is_watch.borrow() && *self.storm.borrow() {
                return Ok(());
            }
        }
    }
}

fn replace(bytes: &mut [u8], word: &[u8], other: &[u8]) {
    let at: Vec<usize> =
        bytes.windows(word.len()).enumerate().filter(|(_, part)| *part == word).map(|(at, _)| at).collect();
    for start in at {
        bytes[start..start + word.len()].copy_from_slice(other);
    }
}
