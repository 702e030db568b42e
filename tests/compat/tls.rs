//! TLS as the Go programs use it: nobody is verified, no server name, no ALPN.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use testbed::Anybody;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Versions of TLS.
pub(crate) type Versions = &'static [&'static SupportedProtocolVersion];
/// What Go's client and server agree on with ours.
pub(crate) const BOTH: Versions = rustls::DEFAULT_VERSIONS;
/// The older one.
pub(crate) const TLS12: Versions = &[&rustls::version::TLS12];

/// Connects as the Go controller does.
pub(crate) async fn connect(to: SocketAddr, versions: Versions) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    let stream = TcpStream::connect(to).await?;
    // The server name of an address is not sent.
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::from(to.ip()), stream).await?)
}

/// A server with a certificate of its own making, which offers what Go's server offers.
pub(crate) fn self_signed(ip: IpAddr, versions: Versions) -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed([ip.to_string()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let mut config = server(made.cert.der().clone(), key, versions)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves TLS in front of a Vault that does not.
pub(crate) struct Front {
    /// `https://…`.
    pub(crate) address: String,
    /// What verifies it.
    pub(crate) ca: String,
}

impl Front {
    /// Listens on an address, until the runtime ends. `pem` is certificate, key and what verifies them.
    pub(crate) async fn start(ip: IpAddr, pem: (&str, &str, &str), vault: SocketAddr) -> Result<Self> {
        let (certificate, key, ca) = pem;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let acceptor = TlsAcceptor::from(Arc::new(server(certificate, key, BOTH)?));
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = format!("https://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Whoever gives up in the middle is no business of this server.
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let Ok(mut far) = TcpStream::connect(vault).await else { return };
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Ok(Self { address, ca: ca.to_owned() })
    }
}

fn server(cert: CertificateDer<'static>, key: PrivateKeyDer<'static>, versions: Versions) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    Ok(config.with_no_client_auth().with_single_cert(vec![cert], key)?)
}
