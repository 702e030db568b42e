//! A server that answers as a Vault does, or as the test wants it to.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::harness::{CLIENT_TOKEN, SECRET_ID};

/// One request, as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query, or the whole address as a proxy gets it.
    pub(crate) target: String,
    pub(crate) token: String,
    pub(crate) namespace: String,
    pub(crate) proxy_authorization: String,
    pub(crate) body: String,
}

/// What the script says to a request.
pub(crate) enum Say {
    Json(u16, String),
    With(u16, &'static [(&'static str, &'static str)], String),
    /// To another place; the status and the Location.
    To(u16, String),
    /// Nothing, ever.
    Hang,
    /// The connection ends, after the request was read.
    HangUp,
    /// A good answer, once the test has said [`FakeVault::go_on`].
    Later,
}

/// What a good Vault says to a request for `path` (without `/v1/`).
pub(crate) fn good(path: &str) -> Say {
    let body = match path {
        "sys/wrapping/lookup" => {
            r#"{"data":{"creation_path":"auth/approle/role/app/secret-id","creation_ttl":60}}"#.to_owned()
        }
        "sys/wrapping/unwrap" => {
            format!(r#"{{"data":{{"secret_id":"{SECRET_ID}","secret_id_accessor":"accessor-1"}}}}"#)
        }
        "auth/approle/login" => format!(
            r#"{{"auth":{{"client_token":"{CLIENT_TOKEN}","accessor":"accessor-2","lease_duration":21600,"renewable":true}}}}"#
        ),
        "auth/token/revoke-self" => return Say::Json(204, String::new()),
        _ => return errors(404, ""),
    };
    Say::Json(200, body)
}

pub(crate) fn errors(status: u16, text: &str) -> Say {
    Say::Json(status, format!(r#"{{"errors":["{text}"]}}"#))
}

pub(crate) fn unknown_token() -> Say {
    errors(400, "wrapping token is not valid or does not exist")
}

/// The path without `/v1/`, and how many requests for it came before.
type Script = dyn Fn(&str, usize) -> Say + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    arrived: Notify,
    go_on: Notify,
}

pub(crate) struct FakeVault {
    shared: Arc<Shared>,
    pub(crate) port: u16,
    /// PEM of its certificate's issuer, when it speaks TLS.
    pub(crate) ca: String,
}

impl FakeVault {
    pub(crate) async fn start(script: impl Fn(&str, usize) -> Say + Send + Sync + 'static) -> Self {
        Self::serve(script, None).await
    }

    pub(crate) async fn good() -> Self {
        Self::start(|path, _| good(path)).await
    }

    /// With a certificate for 127.0.0.1 and vault.test, of a CA of its own.
    pub(crate) async fn with_tls() -> Self {
        Self::serve(|path, _| good(path), Some(tls())).await
    }

    async fn serve(
        script: impl Fn(&str, usize) -> Say + Send + Sync + 'static,
        tls: Option<(TlsAcceptor, String)>,
    ) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            arrived: Notify::new(),
            go_on: Notify::new(),
        });
        let (acceptor, ca) = tls.unzip();
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(accept(stream, acceptor.clone(), Arc::clone(&state)));
            }
        });
        Self { shared, port, ca: ca.unwrap_or_default() }
    }

    pub(crate) fn address(&self) -> String {
        let scheme = if self.ca.is_empty() { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The paths asked for, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.target.trim_start_matches("/v1/").to_owned()).collect()
    }

    /// Until a request for `path` is there.
    pub(crate) async fn asked(&self, path: &str) {
        while !self.paths().iter().any(|seen| seen == path) {
            self.shared.arrived.notified().await;
        }
    }

    pub(crate) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }
}

async fn accept(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    match acceptor {
        None => converse(stream, shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, shared).await;
            }
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An error ends the connection.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, &'static str> {
    let header =
        |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let mut seen = Seen {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        token: header("x-vault-token"),
        namespace: header("x-vault-namespace"),
        proxy_authorization: header("proxy-authorization"),
        body: String::new(),
    };
    let path = request.uri().path().trim_start_matches("/v1/").to_owned();
    seen.body = String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let before = {
        let mut all = shared.seen.lock().unwrap();
        let before = all.iter().filter(|other| other.target == seen.target).count();
        all.push(seen);
        before
    };
    shared.arrived.notify_one();
    let response = |status: u16, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    let put = |mut response: Response<_>, name: &'static str, value: &str| {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        response
    };
    let never = std::future::pending::<Infallible>();
    match (shared.script)(&path, before) {
        Say::Json(status, body) => Ok(response(status, body)),
        Say::With(status, headers, body) => {
            Ok(headers.iter().fold(response(status, body), |response, (name, value)| put(response, name, value)))
        }
        Say::To(status, location) => Ok(put(response(status, String::new()), "location", &location)),
        Say::Hang => match never.await {},
        Say::HangUp => Err("as the script says"),
        Say::Later => {
            shared.go_on.notified().await;
            let Say::Json(status, body) = good(&path) else { unreachable!() };
            Ok(response(status, body))
        }
    }
}

fn tls() -> (TlsAcceptor, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "vault.test".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca_certificate.pem())
}
