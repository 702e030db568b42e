//! One POST over an established connection, and its answer read within limits.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use wire::answer::{TOKEN_REFUSED, TokenFault};
use wire::limits;
use zeroize::Zeroizing;

use crate::causes::with_causes;
use crate::deliver::ports::{Line, PushRequest};
use crate::domain::delivery::Answer;
use crate::domain::ids::AttemptId;

/// As much of an answer's first line as is shown to people.
const TEXT_CHARS: usize = 200;

pub(super) struct PodLine {
    peer: SocketAddr,
    stream: TlsStream<TcpStream>,
    limit: Duration,
}

impl PodLine {
    pub(super) fn new(peer: SocketAddr, stream: TlsStream<TcpStream>, limit: Duration) -> Self {
        Self { peer, stream, limit }
    }

    async fn exchange(self, body: Bytes, token: &SecretString) -> Result<Answer, Cut> {
        let request = Request::post(limits::PATH)
            .header(header::HOST, self.peer.to_string())
            .header(header::CONTENT_TYPE, limits::CONTENT_TYPE)
            .body(Full::new(body))?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(limits::HEAD_BYTES_MAX).handshake(TokioIo::new(self.stream)).await?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limits::ANSWER_BYTES_MAX).collect().await.map_err(Cut::Body)?.to_bytes();
            Ok(answer(head.status.as_u16(), &head.headers, &body, token.expose_secret()))
        };
        tokio::pin!(answer, connection);
        // The connection ends by itself only when it is broken; then the answer's future says so, or has it all.
        tokio::select! {
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }
}

#[async_trait]
impl Line for PodLine {
    fn peer(&self) -> IpAddr {
        self.peer.ip()
    }

    async fn push(self: Box<Self>, request: &PushRequest) -> Answer {
        let body = encode(request);
        let limit = self.limit;
        match timeout(limit, self.exchange(body, &request.secret.token)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(cut)) => Answer::Incomplete(with_causes(&cut).into()),
            Err(_) => Answer::Incomplete(format!("none within {limit:?}").into()),
        }
    }
}

/// The message's bytes. They are wiped once the last reference to them is gone.
fn encode(request: &PushRequest) -> Bytes {
    let secret = &request.secret;
    let message = wire::Push {
        token: Zeroizing::new(secret.token.expose_secret().to_owned()),
        creation_time: secret.creation_time,
        ttl_secs: secret.ttl_seconds.into(),
        vault_addr: request.vault.address.clone(),
        vault_cas: request.vault.ca_bundle.as_ref().map(|pem| pem.clone().into_bytes()),
        attempt: Some(request.attempt.as_str().to_owned()),
        pod_name: Some(request.pod.name.to_string()),
        pod_namespace: Some(request.pod.namespace.to_string()),
        pod_uid: Some(request.pod.uid.to_string()),
        namespace: request.vault.namespace.clone(),
    };
    Bytes::from_owner(message.encode())
}

/// `token` is what must not be shown, should the answer repeat it.
fn answer(status: u16, headers: &HeaderMap, body: &[u8], token: &str) -> Answer {
    let body = String::from_utf8_lossy(body);
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let line: String = body.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    // Before it is cut: a part of a token is too much, too.
    let line = if token.is_empty() { line } else { line.replace(token, "[token]") };
    Answer::Complete {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        named: wire::parse_attempt(&body).map(AttemptId::from),
        token_used: status == TOKEN_REFUSED && TokenFault::parse(&body) == Some(TokenFault::Used),
        text: line.chars().take(TEXT_CHARS).collect::<String>().into(),
    }
}

/// Why no complete answer came. None of its causes holds a byte of the push.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the request could not be made")]
    Request(#[from] http::Error),
    #[error("the connection broke")]
    Connection(#[from] hyper::Error),
    #[error("the answer's body was not read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}
