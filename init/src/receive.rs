//! The listener: takes pushes, answers them, and knows when the process may end.
//!
//! Owns: the socket, every limit on strangers, and the order of checks on a request. One request a connection: it
//! ends with its answer, and that makes "the answer is delivered" a thing that can be awaited.
//!
//! Must never: let one sender hold up another, or let the process end before the answer to its push is out.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use wire::answer::{self, attempt_body};
use wire::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, PATH, PORT};
use wire::{Push, duration};

use crate::body;
use crate::connections::Connections;
use crate::exit::{Cause, Failure};
use crate::gate::{Entry, Gate};
use crate::log;
use crate::work::{Outcome, Shared};

/// A TLS handshake is two round trips; a loaded node may take its time over them.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// From the handshake to the end of the request's head. Long, because the controller shakes hands first and then
/// asks Vault for the secret_id.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// From the head to the end of the body.
const BODY_MAX: Duration = Duration::from_secs(10);

/// How much of a body that is too long is read and dropped, so that its sender gets to read the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// How long a sender may take to read its answer and hang up.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How long the process outlives its work, whatever the sender does: the time to write the answer and to linger.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted. A flood is cut here, by the kernel.
const BACKLOG: i32 = 128;

/// After an accept that failed for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Events on their way to [`serve`]: two a push in work, of which there is one.
const EVENTS_MAX: usize = 4;

/// What [`serve`] has to know from the tasks.
enum Event {
    /// The work on a push is over, and this instance with it.
    Ended(Result<(), Failure>),
    /// The answer to that push is out, or nobody is left to read it.
    Flushed,
    /// The work on a push is over, and others may come.
    Idle,
}

/// What the tasks share.
struct State {
    worker: Shared,
    gate: Mutex<Gate>,
    connections: Mutex<Connections>,
    events: mpsc::Sender<Event>,
}

/// Listens on all addresses, IPv6 and IPv4.
pub(crate) fn listen() -> Result<TcpListener, Failure> {
    bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .or_else(|e| match e.kind() {
            // A second try on IPv4 would fail alike, or worse, succeed beside whoever holds the port.
            io::ErrorKind::AddrInUse => Err(e),
            _ => bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        })
        .map_err(|e| Failure::new(Cause::Listen, format!("Cannot listen on port {PORT}: {e}.")))
}

fn bind(ip: IpAddr) -> io::Result<TcpListener> {
    let family = if ip.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if ip.is_ipv6() {
        // Both families by one socket, whatever the node's default is.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A container that is restarted in its pod finds its predecessor's connections in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(ip, PORT))?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// Serves until a push was accepted (`Ok`), no push can help any more, or `deadline`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    worker: Shared,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    let acceptor = TlsAcceptor::from(tls);
    let timed_out = Failure::new(
        Cause::Timeout,
        format!(
            "Failed to create vault auth token because we timed out after {} before receiving the secret_id. Exiting.",
            duration::format(worker.config.timeout)
        ),
    );
    let (events, mut inbox) = mpsc::channel(EVENTS_MAX);
    let state = Arc::new(State { worker, gate: Mutex::default(), connections: Mutex::default(), events });
    let mut wake = deadline;
    let mut ended = None;
    for id in 0.. {
        tokio::select! {
            // Events first: a flood of connections must not keep the process from its end.
            biased;
            Some(event) = inbox.recv() => match event {
                Event::Ended(result) => {
                    ended = Some(result);
                    wake = Some(Instant::now() + FLUSH_MAX);
                }
                Event::Flushed => if let Some(result) = ended { return result },
                Event::Idle => {}
            },
            () = at(wake) => {
                if let Some(result) = ended {
                    return result;
                }
                if state.gate().shut(&timed_out.what) {
                    return Err(timed_out);
                }
                // A push is in work. It ends within its own limit, and the door shuts behind it.
                wake = None;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&state, &acceptor, id, stream, peer.ip().to_canonical()),
                Err(e) => {
                    log::stranger(&format!("Cannot accept a connection: {e}."));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if late && ended.is_none() && state.gate().shut(&timed_out.what) {
            return Err(timed_out);
        }
    }
    Err(timed_out)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn admit(state: &Arc<State>, acceptor: &TlsAcceptor, id: u64, stream: TcpStream, peer: IpAddr) {
    let (task_state, acceptor) = (Arc::clone(state), acceptor.clone());
    let task = tokio::spawn(async move {
        converse(&task_state, &acceptor, id, stream, peer).await;
        task_state.connections().release(id);
    });
    state.connections().add(id, peer, task.abort_handle());
}

/// One connection: handshake, one request, its answer, and time to read it.
async fn converse(state: &Arc<State>, acceptor: &TlsAcceptor, id: u64, stream: TcpStream, peer: IpAddr) {
    // The answer is one small write; waiting to fill a packet would only cost time.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return log::stranger(&format!("No TLS with {peer}: {e}.")),
        Err(_) => return log::stranger(&format!("No TLS with {peer}: it took too long.")),
    };
    let last = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (state, last) = (Arc::clone(state), Arc::clone(&last));
        Box::pin(async move { Ok::<_, Infallible>(state.answer(request, id, peer, &last).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if let Err(e) = served {
        log::stranger(&format!("Broken request from {peer}: {e}."));
    }
    linger(connection.into_parts().io.into_inner()).await;
    if last.load(Ordering::Relaxed) {
        state.tell(Event::Flushed).await;
    }
}

/// Says goodbye and waits, not long, for the other side to have read it all.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut dropped = [0; 512];
    let goodbye = async {
        stream.shutdown().await?;
        while stream.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever goes wrong here, the answer is as far out as it can be.
    let _ = timeout(LINGER_MAX, goodbye).await;
}

impl State {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, event: Event) {
        // Fails only when `serve` has returned, and then nothing is left to tell.
        let _ = self.events.send(event).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        id: u64,
        peer: IpAddr,
        last: &AtomicBool,
    ) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return response(answer::NOT_FOUND, String::new());
        }
        if request.method() != Method::POST {
            return response(answer::METHOD_NOT_ALLOWED, answer::METHOD_TEXT.to_owned());
        }
        // Who asks first whether to send is told at once; who just sends has to be heard out.
        let discard = (!request.headers().contains_key(EXPECT)).then_some(DISCARD_BYTES_MAX);
        let read = timeout(BODY_MAX, body::read(request.into_body(), BODY_BYTES_MAX, discard)).await;
        let push = match read {
            Ok(Ok(body)) => Push::decode(&body),
            Ok(Err(body::Error::TooLarge)) => {
                log::stranger(&format!("Push from {peer} refused: longer than {BODY_BYTES_MAX} bytes."));
                return response(answer::TOO_LARGE, format!("At most {BODY_BYTES_MAX} bytes."));
            }
            Ok(Err(body::Error::Broken(e))) => {
                log::stranger(&format!("Push from {peer} broke off: {e}."));
                return response(answer::NOT_A_PUSH, answer::NOT_A_PUSH_TEXT.to_owned());
            }
            Err(_) => {
                log::stranger(&format!("Push from {peer} refused: it took longer than {BODY_MAX:?}."));
                return response(answer::TOO_SLOW, "The request took too long.".to_owned());
            }
        };
        match push {
            Ok(push) => self.consider(push, id, peer, last).await,
            Err(e) => {
                log::stranger(&format!("Error decoding wrapped secret from {peer}: {e}."));
                response(answer::NOT_A_PUSH, answer::NOT_A_PUSH_TEXT.to_owned())
            }
        }
    }

    async fn consider(self: Arc<Self>, push: Push, id: u64, peer: IpAddr, last: &AtomicBool) -> Response<Full<Bytes>> {
        // Before the gate: who looks for another pod must not learn what became of this one.
        if let Some(proof) = self.worker.config.identity.proof_against(&push) {
            log::stranger(&format!("Push from {peer} is meant for another pod: {proof}."));
            return response(answer::NOT_THIS_POD, format!("{proof}."));
        }
        let entry = self.gate().enter();
        match entry {
            Entry::Admitted => {}
            Entry::Busy => return response(answer::BUSY, "Another push is in work.".to_owned()),
            Entry::DoneEarlier { attempt } => {
                return response(answer::DONE_EARLIER, attempt.as_deref().map(attempt_body).unwrap_or_default());
            }
            Entry::Ending { why } => return response(answer::NO_PUSH_CAN_MEND, why),
        }
        self.connections().release(id);
        log::debug(&format!(
            "Received a push from {peer}, attempt {}.",
            push.attempt.as_deref().unwrap_or("without a name")
        ));
        // A task of its own: a sender that hangs up must not stop work that is half done.
        let (result, outcome) = oneshot::channel();
        tokio::spawn(Arc::clone(&self).work(push, result));
        match outcome.await {
            Ok(outcome) => {
                last.store(outcome.ends(), Ordering::Relaxed);
                let mut response = response(outcome.status, outcome.body);
                if let Some(secs) = outcome.retry_after {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
                }
                response
            }
            // The task has no way to end without a word; a 500 is honest all the same.
            Err(_) => response(500, String::new()),
        }
    }

    async fn work(self: Arc<Self>, push: Push, result: oneshot::Sender<Outcome>) {
        let outcome = self.worker.accept(&push).await;
        let end = outcome.ends().then(|| outcome.failure.clone().map_or(Ok(()), Err));
        self.gate().leave(outcome.verdict.clone());
        let Some(end) = end else {
            self.tell(Event::Idle).await;
            // Nobody is left to hear it: then it does not matter.
            let _ = result.send(outcome);
            return;
        };
        if end.is_ok() {
            if let Some(attempt) = &push.attempt {
                crate::exit::leave_message(&attempt_body(attempt));
            }
            log::debug("Successfully created the credentials. Exiting.");
        }
        self.tell(Event::Ended(end)).await;
        if result.send(outcome).is_err() {
            log::debug("The sender hung up before the push was done; it is done all the same.");
            self.tell(Event::Flushed).await;
        }
    }
}

fn response(status: u16, body: String) -> Response<Full<Bytes>> {
    let text = !body.is_empty();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if text {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
    }
    response
}
