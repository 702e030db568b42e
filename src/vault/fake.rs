//! A Vault that answers by script, breaks connections on demand, and remembers what it was asked. For tests.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::error::Fatal;
use super::handle::Handle;
use super::options::{Login, Options, Tls};
use super::proxies::Proxies;
use super::service::Service;
use super::session::{Meter, State};
use crate::deliver::ports::{SecretIdRequest, SecretIssuer};
use crate::domain::ids::{PodRef, RoleName};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.header("x-vault-token")
    }
}

/// What is done to a request.
#[derive(Clone)]
pub(super) enum Reply {
    Says(u16, String),
    Headed(u16, Vec<(&'static str, String)>, String),
    Hangs,
    Resets,
    /// Half of the body that it announces.
    Truncated,
    /// A body without an end.
    Endless,
    Garbage,
}

impl Reply {
    pub(super) fn says(status: u16, body: &str) -> Self {
        Self::Says(status, body.to_owned())
    }
}

pub(super) struct Fake {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub(super) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, script).await
    }

    pub(super) async fn serve(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let acceptor = tls.map(TlsAcceptor::from);
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen, acceptor) = (Arc::clone(&script), Arc::clone(&all), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(stream, &*script, &seen).await;
                            }
                        }
                        None => converse(stream, &*script, &seen).await,
                    }
                });
            }
        });
        Self { url, seen }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The paths that were asked for, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.paths().iter().filter(|seen| *seen == path).count()
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &(impl Fn(&Seen) -> Reply + Sync),
    seen: &Mutex<Vec<Seen>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().push(request.clone());
        let (status, headers, body) = match script(&request) {
            Reply::Says(status, body) => (status, Vec::new(), body),
            Reply::Headed(status, headers, body) => (status, headers, body),
            Reply::Hangs => return std::future::pending().await,
            Reply::Resets => return,
            Reply::Garbage => return drop(stream.write_all(b"220 mail.example.com ESMTP\r\n").await),
            Reply::Truncated => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"data\":{\"id\":\"";
                return drop(stream.write_all(head).await);
            }
            Reply::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
                let mut alive = stream.write_all(head).await.is_ok();
                while alive {
                    alive = stream.write_all(&[b' '; 65536]).await.is_ok();
                }
                return;
            }
        };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let answer = format!("{head}\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first()?.split(' ');
    let path = first.nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { path, headers, body: String::from_utf8(body).ok()? })
}

/// Remembers what it was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) renewals: Mutex<Vec<bool>>,
    pub(super) ttls: Mutex<Vec<Option<u64>>>,
    pub(super) states: Mutex<Vec<State>>,
    pub(super) certificates: Mutex<Vec<bool>>,
    pub(super) ca_changes: Mutex<usize>,
    pub(super) reloads: Mutex<Vec<bool>>,
}

impl Meter for Told {
    fn renewal(&self, failed: bool) {
        self.renewals.lock().unwrap().push(failed);
    }

    fn token_ttl(&self, seconds: Option<u64>) {
        self.ttls.lock().unwrap().push(seconds);
    }

    fn vault_state(&self, state: &State) {
        self.states.lock().unwrap().push(state.clone());
    }

    fn certificate(&self, failed: bool) {
        self.certificates.lock().unwrap().push(failed);
    }

    fn ca_changed(&self) {
        *self.ca_changes.lock().unwrap() += 1;
    }

    fn reloaded(&self, failed: bool) {
        self.reloads.lock().unwrap().push(failed);
    }

    fn trusts(&self, _: Option<&str>, _: Option<&str>) {}
}

pub(super) const CANARY: &str = "hvs.canary-of-the-tests";

pub(super) fn mk_options(address: &str) -> Options {
    Options {
        address: address.to_owned(),
        namespace: None,
        approle_mount: "approle".to_owned(),
        wrapping_ttl: "60".to_owned(),
        login: Login::Token { token: SecretString::from(CANARY), skip_token_role: true },
        tls: Tls::default(),
    }
}

/// A lookup of a good token.
pub(super) fn lookup(ttl: u64, renewable: bool) -> Reply {
    let body = serde_json::json!({"data": {
        "id": CANARY, "policies": ["default", "kubernetes-vault"], "renewable": renewable, "creation_ttl": 3600,
        "ttl": ttl, "explicit_max_ttl": 0, "role": "kubernetes-vault",
    }});
    Reply::Says(200, body.to_string())
}

/// A login's or a renewal's answer.
pub(super) fn granted(token: &str, ttl: u64) -> Reply {
    let auth = serde_json::json!({"client_token": token, "lease_duration": ttl, "renewable": true});
    Reply::Says(200, serde_json::json!({ "auth": auth }).to_string())
}

/// Vault's way to say no.
pub(super) fn errors(status: u16, text: &str) -> Reply {
    Reply::Says(status, serde_json::json!({ "errors": [text] }).to_string())
}

/// A running service against a fake, logged in.
pub(super) struct Rig {
    pub(super) fake: Fake,
    pub(super) handle: Handle,
    pub(super) told: Arc<Told>,
    pub(super) cancel: CancellationToken,
    pub(super) run: JoinHandle<Result<(), Fatal>>,
}

impl Rig {
    /// Starts a service; `script` is asked first, and a good static token is what is left.
    pub(super) async fn start(script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::with(mk_options, script).await
    }

    pub(super) async fn with(
        options: impl FnOnce(&str) -> Options,
        script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let fake = Fake::start(move |seen| {
            script(seen).unwrap_or_else(|| match seen.path.as_str() {
                "/v1/auth/token/lookup-self" => lookup(3600, true),
                "/v1/auth/token/renew-self" => granted(CANARY, 3600),
                "/v1/auth/token/revoke-self" => Reply::says(204, ""),
                path => errors(404, &format!("no handler for route {path:?}.")),
            })
        })
        .await;
        let told = Arc::new(Told::default());
        let meter: Arc<dyn Meter> = Arc::clone(&told) as _;
        let (service, handle) = Service::with_proxies(options(&fake.url), meter, Proxies::default()).unwrap();
        let cancel = CancellationToken::new();
        let run = tokio::spawn(service.run(cancel.clone()));
        Self { fake, handle, told, cancel, run }
    }

    /// Waits until the service may be used.
    pub(super) async fn usable(self) -> Self {
        tokio::time::timeout(PATIENCE, self.handle.usable()).await.unwrap();
        self
    }

    /// Waits until `condition` holds.
    pub(super) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the condition came never true");
    }

    /// What ended the service.
    pub(super) async fn fatal(self) -> Fatal {
        tokio::time::timeout(PATIENCE, self.run).await.unwrap().unwrap().unwrap_err()
    }
}

/// Longer than anything in these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn mk_request(role: &str) -> SecretIdRequest {
    SecretIdRequest {
        role: RoleName::parse(role).unwrap(),
        pod: PodRef { namespace: "shop".into(), name: "web-0".into(), uid: "uid-1".into() },
        service_account: "web".into(),
        node: "node-1".into(),
        attempt: "attempt-1".into(),
    }
}
