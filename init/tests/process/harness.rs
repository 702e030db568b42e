//! Starts the init container, pushes to it, and sees how it ends.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const ROLE_ID: &str = "CANARY-role-id";
pub(crate) const WRAPPING_TOKEN: &str = "hvs.CANARY-wrapping-token";
pub(crate) const SECRET_ID: &str = "CANARY-secret-id";
pub(crate) const CLIENT_TOKEN: &str = "hvs.CANARY-client-token";

/// An address besides the loopback ones, for what treats those specially. Only this namespace has it.
pub(crate) const OTHER_ADDRESS: &str = "10.9.9.9";

/// Longer than anything here may take: one push's 20 s, and a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Set inside the namespaces.
const INSIDE: &str = "KUBERNETES_VAULT_TEST_INSIDE";

/// `/dev` is replaced, because the termination log cannot be made in the real one without root.
const SCRIPT: &str = r#"set -e
mount -t tmpfs tmpfs /mnt
touch /mnt/null /mnt/termination-log
mount --bind /dev/null /mnt/null
mount --rbind /mnt /dev
ip link set lo up
ip addr add 10.9.9.9/32 dev lo
exec "$0" --exact "$1" --nocapture
"#;

/// A test that runs in namespaces of its own: `promise!(name, async { ... });`
macro_rules! promise {
    ($(#[$meta:meta])* $name:ident, $body:expr) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::harness::sandbox(concat!(module_path!(), "::", stringify!($name)), $body);
        }
    };
}
pub(crate) use promise;

/// Runs `body` in namespaces: by way of this very test binary, started again inside them.
pub(crate) fn sandbox(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async { timeout(PATIENCE, body).await.expect("the case hangs") });
    }
    let (_, name) = test.split_once("::").unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["bash", "-c", SCRIPT])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is needed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// A running init container.
pub(crate) struct Init {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    seen: String,
    directory: TempDir,
}

/// How it ended.
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
    pub(crate) out: String,
    pub(crate) message: String,
    pub(crate) directory: TempDir,
}

impl Init {
    /// Starts it with these variables and no others, beside VAULT_ROLE_ID and CREDENTIALS_PATH. An empty value
    /// unsets one of those.
    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), env, &[])
    }

    pub(crate) fn start_in(directory: TempDir, env: &[(&str, &str)], args: &[&str]) -> Self {
        let _ = std::fs::write("/dev/termination-log", "");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubernetes-vault-init"))
            .args(args)
            .env_clear()
            .env("VAULT_ROLE_ID", ROLE_ID)
            .env("CREDENTIALS_PATH", directory.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, seen: String::new(), directory }
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn listening(env: &[(&str, &str)]) -> Self {
        let mut init = Self::start(env);
        init.until("Listening on port").await;
        init
    }

    /// Waits for a log line.
    pub(crate) async fn until(&mut self, text: &str) {
        loop {
            let line = self.log.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("no {text:?} in the log:\n{}", self.seen));
            self.seen.push_str(&line);
            self.seen.push('\n');
            if line.contains(text) {
                return;
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    }

    /// Waits for its end, and searches all that it said for secrets.
    pub(crate) async fn end(mut self) -> End {
        while let Some(line) = self.log.next_line().await.unwrap() {
            self.seen.push_str(&line);
            self.seen.push('\n');
        }
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        let code = self.child.wait().await.unwrap().code();
        let message = std::fs::read_to_string("/dev/termination-log").unwrap();
        for said in [&self.seen, &out, &message] {
            assert!(!said.contains("CANARY"), "a secret got out:\n{said}");
        }
        End { code, log: self.seen, out, message, directory: self.directory }
    }
}

impl End {
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name))
            .unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.log))
    }

    pub(crate) fn files(&self) -> Vec<String> {
        names(self.directory.path())
    }

    /// The last line of the log, which there must be one of when it is the only one.
    pub(crate) fn last_line(&self) -> &str {
        self.log.lines().last().unwrap_or_default()
    }
}

pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A push as the controller sends it; `more` is appended: `,"attempt":"a"`.
pub(crate) fn push_body(vault_addr: &str, more: &str) -> String {
    let now = jiff::Timestamp::now();
    format!(
        r#"{{"token":"{WRAPPING_TOKEN}","creationTime":"{now}","ttl":60,"vaultAddr":"{vault_addr}","vaultCAs":null{more}}}"#
    )
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) async fn post(body: impl Into<Bytes>) -> Reply {
    request(Method::POST, "/", &[], body).await
}

pub(crate) async fn request(
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let stream = connect("127.0.0.1:50000", rustls::DEFAULT_VERSIONS).await;
    send(stream, method, path, headers, body).await
}

pub(crate) async fn send(
    stream: TlsStream<TcpStream>,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("host", HeaderValue::from_static("pod:50000"));
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Reply { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8(body).unwrap() }
}

/// A TLS connection to the init container, which nobody verifies.
pub(crate) async fn connect(address: &str, versions: &[&'static SupportedProtocolVersion]) -> TlsStream<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await.unwrap()
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
