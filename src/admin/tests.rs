//! The listener, over real sockets: who is served, and who is refused at what cost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig};
use testbed::Anybody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Said;

impl Pages for Said {
    fn metrics(&self) -> Vec<u8> {
        b"a_metric 1\n".to_vec()
    }

    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Err("not yet".to_owned())
    }

    fn started(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Default)]
struct Refused(Mutex<Vec<&'static str>>);

impl Door for Refused {
    fn cause(&self, _: &std::io::Error) -> &'static str {
        "other"
    }

    fn refused(&self, cause: &'static str) {
        self.0.lock().unwrap().push(cause);
    }
}

async fn start(routes: Router, options: Options) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, routes, options, CancellationToken::new()));
    address
}

/// What comes back for `request`, until the other end closes.
async fn ask(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, request: &[u8]) -> String {
    let mut answer = Vec::new();
    let exchange = async {
        // It may be refused while it is still being written.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, exchange).await.expect("no answer");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ask(TcpStream::connect(address).await.unwrap(), request.as_bytes()).await
}

#[tokio::test]
async fn each_page_says_how_it_is() {
    let address = start(health_routes(Arc::new(Said)), Options::default()).await;
    for (path, status) in [("/livez", "200"), ("/startupz", "200"), ("/readyz", "503"), ("/metrics", "404")] {
        let answer = get(address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    assert!(get(address, "/readyz").await.ends_with("not yet\n"));
}

// Bad-input row: requests of 1 MiB headers, HTTP/0.9, path traversal.
#[tokio::test]
async fn odd_requests_are_refused_and_the_next_one_is_served() {
    let address = start(metrics_routes(Arc::new(Said)), Options::default()).await;
    let huge = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for (request, status) in [
        (huge.as_bytes(), "431"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""),
        (b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "405"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let answer = ask(stream, b"").await;
        // A refused head that is still being sent may reset the connection before the answer is read.
        let is_reset = answer.is_empty() && status == "431";
        assert!(is_reset || answer.contains(status), "{status}: {answer}");
    }
    assert!(get(address, "/metrics").await.ends_with("a_metric 1\n"));
}

fn mk_config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

async fn shake_hands(address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let shaken = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
    timeout(PATIENCE, shaken).await.expect("no handshake").unwrap()
}

fn shown(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_configuration_is_for_the_next_connection_and_ends_none() {
    let (tell, config) = watch::channel(Some(mk_config()));
    let address = start(metrics_routes(Arc::new(Said)), Options { tls: Some(config), door: None }).await;
    let old = shake_hands(address).await;
    let first = shown(&old);
    tell.send_replace(Some(mk_config()));
    let new = shake_hands(address).await;
    assert_ne!(first, shown(&new));
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for stream in [old, new] {
        assert!(ask(stream, request).await.ends_with("a_metric 1\n"));
    }
}

// Bad-input row: 10,000 half-open handshakes. Here a few hundred, which is more than all places; `make bench` has the rest.
#[tokio::test]
async fn those_who_never_finish_their_handshake_keep_nobody_out() {
    let (_tell, config) = watch::channel(Some(mk_config()));
    let door = Arc::new(Refused::default());
    let options = Options { tls: Some(config), door: Some(door.clone()) };
    let address = start(metrics_routes(Arc::new(Said)), options).await;
    let mut half_open = Vec::new();
    for _ in 0..400 {
        half_open.push(TcpStream::connect(address).await.unwrap());
    }
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for _ in 0..3 {
        assert!(ask(shake_hands(address).await, request).await.ends_with("a_metric 1\n"));
    }
    let refused = door.0.lock().unwrap();
    assert!(refused.iter().filter(|cause| **cause == "too_many").count() >= 200, "{refused:?}");
}

// Who opens connections and says nothing, on a port in clear: a kubelet that is kept out would have the process ended.
#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let address = start(health_routes(Arc::new(Said)), Options::default()).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"), "not even from the same address");
    // From another address of this machine, as the kubelet has one.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(address).await.unwrap();
    for _ in 0..400 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(stream, request).await.starts_with("HTTP/1.1 200"), "it has kept its place");
}

/// A page that fits into no socket's buffer.
struct Large;

impl Pages for Large {
    fn metrics(&self) -> Vec<u8> {
        vec![b'x'; 16 << 20]
    }

    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn started(&self) -> Result<(), String> {
        Ok(())
    }
}

// Bad-input row: slow readers.
#[tokio::test]
async fn who_asks_and_does_not_read_keeps_nobody_out() {
    let address = start(metrics_routes(Arc::new(Large)), Options::default()).await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        slow.push(stream);
    }
    let page = ask(TcpStream::connect(address).await.unwrap(), request).await;
    assert!(page.len() > 16 << 20, "{}", page.len());
}
