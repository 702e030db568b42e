//! One HTTP/1.1 connection to Vault, with or without TLS, straight or through a proxy.
//!
//! Owns: how a connection comes about, and the knowledge whether a request may have
//! reached the other side when no answer came.
//!
//! Must never: send anything to another host than the one it was made for, or read more than a limit.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::body;
use crate::endpoint::Endpoint;
use crate::proxy::Proxy;

/// How long one address gets to answer a SYN. Less than a try, so that the next address has its turn.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The longest answer. Vault's own here are about a kilobyte.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Head and read buffer of a connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// No connection: nothing has been sent.
    Connect(String),
    /// The other side's certificate is not to be trusted: nothing has been sent, and trying again is no use.
    Certificate(String),
    /// The request may have arrived and been acted upon.
    Lost(String),
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query, from the root of the server.
    pub(crate) path: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Sender = SendRequest<Full<Bytes>>;

/// A server, and the connection to it while there is one.
pub(crate) struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<(Proxy, Option<Arc<ClientConfig>>)>,
    connection: Option<Sender>,
}

impl Client {
    /// A client of `endpoint`. `tls` must be there for https; the proxy brings its own for an https proxy.
    pub(crate) fn new(
        endpoint: Endpoint,
        tls: Option<Arc<ClientConfig>>,
        proxy: Option<(Proxy, Option<Arc<ClientConfig>>)>,
    ) -> Self {
        Self { endpoint, tls, proxy, connection: None }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One request and its answer, until `deadline`. Never repeats a request by itself.
    pub(crate) async fn send(&mut self, ask: Ask<'_>, deadline: Instant) -> Result<Reply, Error> {
        let connected = timeout_at(deadline, self.connected()).await;
        let mut sender = connected.unwrap_or_else(|_| Err(Error::Connect("no connection in time".to_owned())))?;
        let request = self.request(ask)?;
        let answered = timeout_at(deadline, async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = body::read(body, ANSWER_BYTES_MAX, None).await;
            Ok::<_, hyper::Error>((head, body))
        })
        .await;
        let (head, body) = match answered {
            Err(_) => return Err(Error::Lost("no answer in time".to_owned())),
            // hyper's word for: the connection was gone before the first byte went out.
            Ok(Err(e)) if e.is_canceled() => return Err(Error::Connect(plain(&e))),
            Ok(Err(e)) => return Err(Error::Lost(plain(&e))),
            Ok(Ok((head, Ok(body)))) => (head, body),
            Ok(Ok((_, Err(e)))) => return Err(Error::Lost(format!("the answer broke off: {e}"))),
        };
        self.connection = Some(sender);
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, Error> {
        // A proxy for plain http wants the whole address; a tunnel or a server its path alone.
        let through_proxy = self.proxy.as_ref().filter(|_| !self.endpoint.https);
        let uri = match through_proxy {
            Some(_) => format!("http://{}{}", self.endpoint.authority, ask.path),
            None => ask.path.to_owned(),
        };
        let unusable = |_| Error::Connect("the request's address cannot be sent".to_owned());
        let uri: Uri = uri.parse().map_err(unusable)?;
        // From its owner, so that the buffer is wiped when hyper is done with it.
        let mut request = Request::new(Full::new(Bytes::from_owner(ask.body)));
        *request.method_mut() = ask.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = ask.headers;
        let host = HeaderValue::from_str(&self.endpoint.authority)
            .map_err(|_| Error::Connect("the host's name cannot be sent".to_owned()))?;
        request.headers_mut().insert(HOST, host);
        if let Some(value) = through_proxy.and_then(|(proxy, _)| proxy_header(proxy)) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// The connection there is, or a new one.
    async fn connected(&mut self) -> Result<Sender, Error> {
        if let Some(mut sender) = self.connection.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream: Box<dyn Stream> = match &self.proxy {
            None => Box::new(dial(&self.endpoint).await?),
            Some((proxy, tls)) => {
                let tcp = Box::new(dial(&proxy.endpoint).await?);
                let stream = secured(tcp, &proxy.endpoint, tls.as_ref()).await?;
                if self.endpoint.https { tunnel(stream, proxy, &self.endpoint).await? } else { stream }
            }
        };
        let stream = secured(stream, &self.endpoint, self.tls.as_ref()).await?;
        handshake(stream, false).await
    }
}

async fn dial(endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let (host, port) = (endpoint.host.as_str(), endpoint.port);
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| Error::Connect(format!("cannot resolve {host}: {e}")))?;
    let mut last = format!("{host} has no address");
    for address in addresses {
        match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are single small writes; waiting to fill a packet would only cost time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = format!("cannot connect to {address}: {e}"),
            Err(_) => {
                last = format!("cannot connect to {address}: no answer within {CONNECT_MAX:?}");
            }
        }
    }
    Err(Error::Connect(last))
}

/// TLS over `stream` when `endpoint` asks for it.
async fn secured(
    stream: Box<dyn Stream>,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, Error> {
    if !endpoint.https {
        return Ok(stream);
    }
    let tls = tls.ok_or_else(|| Error::Connect("no TLS configuration".to_owned()))?;
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| Error::Certificate(format!("{} is no name a certificate can have", endpoint.host)))?;
    match TlsConnector::from(Arc::clone(tls)).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(e) => {
            let distrusted = e
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
            let text = format!("TLS with {}: {e}", endpoint.authority);
            Err(if distrusted { Error::Certificate(text) } else { Error::Connect(text) })
        }
    }
}

/// A tunnel through `proxy` to `target`.
async fn tunnel(stream: Box<dyn Stream>, proxy: &Proxy, target: &Endpoint) -> Result<Box<dyn Stream>, Error> {
    let failed = |why: String| Error::Connect(format!("proxy {}: {why}", proxy.endpoint.authority));
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    let authority = format!("{host}:{}", target.port);
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().map_err(|_| failed("cannot name the host".to_owned()))?;
    let header = HeaderValue::from_str(&authority).map_err(|_| failed("cannot name the host".to_owned()))?;
    request.headers_mut().insert(HOST, header);
    if let Some(value) = proxy_header(proxy) {
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    let mut sender = handshake(stream, true).await?;
    let response: Response<Incoming> = sender.send_request(request).await.map_err(|e| failed(plain(&e)))?;
    if !response.status().is_success() {
        return Err(failed(format!("it answered {} to CONNECT", response.status())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| failed(plain(&e)))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

async fn handshake(stream: Box<dyn Stream>, upgrades: bool) -> Result<Sender, Error> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Error::Connect(plain(&e)))?;
    // Ends when the sender is dropped or the other side closes; its error reaches the sender too.
    if upgrades {
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
    } else {
        tokio::spawn(async move { connection.await.ok() });
    }
    Ok(sender)
}

fn proxy_header(proxy: &Proxy) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(proxy.authorization.as_ref()?).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An error with its cause, which hyper keeps apart.
fn plain(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
