//! What a replica shows to its peers, and what it believes.
//!
//! Owns the TLS configurations of both ends. A replica that has one of these can be a member; whoever has none can
//! neither speak nor listen. No `Debug`: it holds a key.
//!
//! **Replacing `raft.secrets` without a gap.** A replica believes certificates under each of its secrets, and shows one
//! under the first. So, each time on all replicas before the next step: add the new secret as the second; swap the two;
//! remove the old one. At each moment both of any two replicas believe what the other one shows.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::Error;
use super::derive::DerivedCa;
use super::facts::{self, Validity};
use super::files::{self, PeerFiles};
use super::guard::{Connected, Guarded};
use super::issued::{self, IssuedPeer};
use super::verify::{Naming, PeerVerifier, Scope};
use crate::crypto::provider;
use crate::domain::ids::Timestamp;

/// The DNS name in derived certificates, and the name to give to a connector. Nobody resolves it, nothing depends on
/// it, and it is not sent: a peer is known by its URI, see `verify`.
pub(super) const SERVER_NAME: &str = "peer.kubernetes-vault.internal";

/// What a connection between replicas is for. Each has a protocol name of its own (ALPN), so that a connection to the
/// one port cannot be turned to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Raft, by default on port 45679.
    Raft,
    /// Gossip, by default on port 45678.
    Gossip,
}

impl Channel {
    /// The protocol's name with its version.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Raft => b"kv-raft/1",
            Self::Gossip => b"kv-gossip/1",
        }
    }
}

/// The two ends of one channel.
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What is shown, and whom we believe, at one time.
struct Version {
    raft: Ends,
    gossip: Ends,
    verifier: Arc<PeerVerifier>,
    validity: Option<Validity>,
}

/// A replica's identity in its cluster. Cheap to clone: clones share what [`Self::replace`] replaces. No `Debug`: it
/// holds a key.
#[derive(Clone)]
pub struct ClusterIdentity {
    current: Arc<RwLock<Arc<Version>>>,
    connected: Arc<Connected>,
}

impl Version {
    fn ends(&self, channel: Channel) -> &Ends {
        match channel {
            Channel::Raft => &self.raft,
            Channel::Gossip => &self.gossip,
        }
    }
}

impl ClusterIdentity {
    /// The identity under a shared secret: `raft.secrets`, or `vault.token`. The first secret issues what this replica
    /// shows; certificates under the second are believed as well.
    ///
    /// # Errors
    /// If the system has no random numbers, or the TLS library refuses.
    pub fn derive(scope: &Scope, first: &SecretString, second: Option<&SecretString>) -> Result<Self, Error> {
        let ca = DerivedCa::new(first, scope)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate()?).map_err(Error::Setup)?;
        if let Some(second) = second {
            roots.add(DerivedCa::new(second, scope)?.certificate()?).map_err(Error::Setup)?;
        }
        let leaf = ca.issue(scope)?;
        let verifier = verifier(scope, roots, Naming::UriOrService)?;
        Self::build(verifier, vec![leaf.certificate], leaf.key, None).map_err(Error::Setup)
    }

    /// The identity in files. To follow a renewal, read them again and [`Self::replace`] the whole.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why. A certificate that peers would refuse at `now` counts as one.
    pub fn from_files(scope: &Scope, paths: &PeerFiles, now: Timestamp) -> Result<Self, Error> {
        let read = files::read(paths)?;
        let verifier = verifier(scope, read.roots, Naming::UriOrService)?;
        files::check(paths, scope, &verifier, &read.chain, now)?;
        let validity = facts::validity(&read.chain).ok();
        Self::build(verifier, read.chain, read.key, validity).map_err(|cause| files::unusable_key(paths, &cause))
    }

    /// The identity that Vault's PKI has issued. Peers are known by the URI alone: a CA in Vault issues for others, too,
    /// and a role for the service's DNS name is easily had, that of the metrics page for one.
    ///
    /// # Errors
    /// What peers would refuse at `now`, and why.
    pub fn from_vault(scope: &Scope, issued: &IssuedPeer, now: Timestamp) -> Result<Self, Error> {
        let read = issued.read(now)?;
        let verifier = verifier(scope, read.roots, Naming::Uri)?;
        issued::check(scope, &verifier, &read.chain, now)?;
        let validity = facts::validity(&read.chain).ok();
        Self::build(verifier, read.chain, read.key, validity).map_err(|cause| Error::Issued { why: cause.to_string() })
    }

    /// From now on, shows and believes what `other` does. Connections to whoever is not believed any more are ended; how
    /// many there were.
    pub fn replace(&self, other: &Self) -> usize {
        let new = other.version();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        self.connected.review(|chain, at| new.verifier.believes(chain, at))
    }

    /// When what we show to peers is valid; `None` for a derived one, which always is.
    pub fn validity(&self) -> Option<Validity> {
        self.version().validity
    }

    /// From now on `stream` ends when its other end is not believed any more. Looks at it once more where that may have
    /// changed while it shook hands: whoever delays its handshake must not slip through.
    fn guard<S>(&self, stream: S, chain: &[CertificateDer<'_>], shook: &Arc<Version>) -> io::Result<Guarded<S>> {
        let guarded = self.connected.guard(stream, chain);
        let now = self.version();
        if Arc::ptr_eq(&now, shook) || now.verifier.believes(chain, UnixTime::now()) {
            return Ok(guarded);
        }
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        Err(io::Error::new(io::ErrorKind::InvalidData, refused))
    }

    fn version(&self) -> Arc<Version> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn build(
        verifier: Arc<PeerVerifier>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        validity: Option<Validity>,
    ) -> Result<Self, rustls::Error> {
        let server = server(Arc::clone(&verifier), chain.clone(), key.clone_key())?;
        let client = client(Arc::clone(&verifier), chain, key)?;
        let ends = |channel: Channel| {
            let (mut server, mut client) = (server.clone(), client.clone());
            server.alpn_protocols = vec![channel.alpn().to_vec()];
            client.alpn_protocols = vec![channel.alpn().to_vec()];
            Ends { server: Arc::new(server), client: Arc::new(client) }
        };
        let version = Version { raft: ends(Channel::Raft), gossip: ends(Channel::Gossip), verifier, validity };
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(version))), connected: Arc::default() })
    }

    /// The end that is called. [`Self::accept`] also looks at the protocol's name: who uses this directly must do so.
    pub fn server(&self, channel: Channel) -> Arc<ServerConfig> {
        Arc::clone(&self.version().ends(channel).server)
    }

    /// The end that calls. [`Self::connect`] also looks at the protocol's name: who uses this directly must do so.
    pub fn client(&self, channel: Channel) -> Arc<ClientConfig> {
        Arc::clone(&self.version().ends(channel).client)
    }

    /// The name to give to a connector, whatever the address.
    pub fn server_name() -> ServerName<'static> {
        ServerName::try_from(SERVER_NAME).expect("a constant that is a DNS name")
    }

    /// The handshake with whoever has connected. Sets no limit of time.
    ///
    /// # Errors
    /// What [`super::explain`] explains.
    pub async fn accept<S>(&self, channel: Channel, stream: S) -> io::Result<Guarded<server::TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let version = self.version();
        let stream = TlsAcceptor::from(Arc::clone(&version.ends(channel).server)).accept(stream).await?;
        let session = stream.get_ref().1;
        check_protocol(session.alpn_protocol(), channel)?;
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        self.guard(stream, &chain, &version)
    }

    /// The handshake with whom we have connected to. Sets no limit of time. That the peer believes us shows only with
    /// the first read.
    ///
    /// # Errors
    /// What [`super::explain`] explains.
    pub async fn connect<S>(&self, channel: Channel, stream: S) -> io::Result<Guarded<client::TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let version = self.version();
        let connector = TlsConnector::from(Arc::clone(&version.ends(channel).client));
        let stream = connector.connect(Self::server_name(), stream).await?;
        let session = stream.get_ref().1;
        check_protocol(session.alpn_protocol(), channel)?;
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        self.guard(stream, &chain, &version)
    }
}

/// TLS lets both ends go on where one of them names no protocol. With certificates from files, that end may be another
/// program which serves the same certificate.
fn check_protocol(agreed: Option<&[u8]>, channel: Channel) -> io::Result<()> {
    if agreed == Some(channel.alpn()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::NoApplicationProtocol))
}

fn verifier(scope: &Scope, roots: RootCertStore, naming: Naming) -> Result<Arc<PeerVerifier>, Error> {
    let verifier = PeerVerifier::new(scope.clone(), naming, roots, &Arc::new(provider()));
    verifier.map(Arc::new).map_err(|cause| Error::Setup(rustls::Error::General(cause.to_string())))
}

fn server(
    verifier: Arc<PeerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    // Peers stay connected. A resumed session would skip the check of the certificate, early data can be replayed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn client(
    verifier: Arc<PeerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The name means nothing to anybody, so it is not sent in clear.
    config.enable_sni = false;
    Ok(config)
}
