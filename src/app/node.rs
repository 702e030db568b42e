//! This replica's part in the cluster: its storage, its identity, its peers, and Raft on a runtime of its own.
//!
//! Owns what has to be known before Raft can start: which pod this is, and whether its storage goes with it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::peers::{Alone, ServicePeers, StaticPeers, TlsNetwork};
use super::{Error, identity};
use crate::clock::Dice;
use crate::config::Config;
use crate::deliver::ports::Leadership;
use crate::domain::ids::{BootId, NodeId, PodUid};
use crate::domain::storage;
use crate::k8s::client::Client;
use crate::k8s::peers::{OwnPod, PeerDirectory, PeerWatcher};
use crate::raft::Timings;
use crate::raft::ports::Directory;
use crate::raft::rpc::network::Network;
use crate::raft::service::{self, Handle, Options, Service};
use crate::raft::thread::RaftThread;
use crate::store::Store;
use crate::store::marker::{self, Claimant};
use crate::store::rocks::RocksEngine;
use crate::tls::{Channel, ClusterIdentity};

/// All addresses.
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Raft's port, as the Go version has it.
pub(super) const PORT: u16 = 45_679;

/// Between two questions who we are, while the API server does not say.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Of those questions, every so many are logged: once in ten seconds.
const LOG_EVERY: u32 = 10;

/// Raft, running.
pub(super) struct Node {
    pub(super) handle: Handle,
    pub(super) leaderships: mpsc::Receiver<Leadership>,
    pub(super) task: JoinHandle<Result<(), service::Error>>,
    pub(super) boot: BootId,
    pub(super) node: NodeId,
    pub(super) uid: PodUid,
    pub(super) identity: Option<ClusterIdentity>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) bound_to_pod: bool,
    pub(super) ip: IpAddr,
    pub(super) raft_dir: PathBuf,
    store: Store,
    _thread: RaftThread,
}

impl Node {
    /// Waits for Raft's end, and closes the storage.
    pub(super) async fn close(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "Raft died while it stopped");
        }
        self.store.close().await;
    }
}

/// Who the peers are, and which of them we are.
pub(super) struct Surroundings {
    directory: Arc<dyn Directory>,
    uid: PodUid,
    /// There are peers to speak of.
    peers: bool,
    /// Where we listen, and what we dial from: all addresses of a pod, or our own of `raft.peers`.
    ip: IpAddr,
}

/// Finds out who we are. Waits for the API server where it has to be asked.
pub(super) async fn surroundings(
    config: &Config,
    kube: Client,
    watches: impl FnOnce(PeerWatcher),
    mounts: &storage::Storage,
) -> Result<Surroundings, Error> {
    if !config.raft.peers.is_empty() {
        let peers = StaticPeers::new(config.raft.peers.clone());
        let (uid, ip) = peers.myself().await.map_err(Error::Peers)?;
        return Ok(Surroundings { directory: Arc::new(peers), uid, peers: true, ip });
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        tracing::info!("outside of a cluster (KUBECONFIG is set) and without raft.peers: this replica stays alone");
        return Ok(Surroundings { directory: Arc::new(Alone::new()), uid: Alone::uid(), peers: false, ip: ALL });
    }
    let kubernetes = &config.kubernetes;
    let (directory, watcher) = PeerDirectory::new(kube, &kubernetes.service_namespace, &kubernetes.service);
    watches(watcher);
    let mut known = OwnPod::from_env();
    known.uid = known.uid.or_else(|| mounts.pod_uid.clone());
    let uid = own_uid(&directory, &known, config).await;
    Ok(Surroundings { directory: Arc::new(ServicePeers::new(directory)), uid, peers: true, ip: ALL })
}

async fn own_uid(directory: &PeerDirectory, known: &OwnPod, config: &Config) -> PodUid {
    let mut asked: u32 = 0;
    loop {
        let why = match directory.own_pod(known).await {
            Ok(Some(uid)) => return uid,
            Ok(None) => format!(
                "this pod is not behind the service {}/{}",
                config.kubernetes.service_namespace, config.kubernetes.service
            ),
            Err(error) => error.to_string(),
        };
        if asked.is_multiple_of(LOG_EVERY) {
            tracing::warn!("cannot tell yet which pod this is: {why}; setting POD_UID by the downward API tells it");
        }
        asked += 1;
        sleep(ASK_AGAIN).await;
    }
}

/// Where `raftDir` is kept.
pub(super) fn mounts(config: &Config) -> storage::Storage {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = std::fs::canonicalize(&config.raft_dir).unwrap_or_else(|_| config.raft_dir.clone());
    storage::locate(&mountinfo, &path.to_string_lossy())
}

/// Opens the storage and starts Raft.
pub(super) async fn start(
    config: &Config,
    surroundings: Surroundings,
    mounts: &storage::Storage,
    identity: identity::Surroundings<'_>,
    stop: CancellationToken,
) -> Result<Node, Error> {
    let dice = Dice::fair();
    let Surroundings { directory, uid, peers, ip } = surroundings;
    let (scope, now) = (identity::scope(config), identity.clock.now());
    let identity = if peers { identity::establish(identity).await? } else { None };
    let store = open(&config.raft_dir).await?;
    let claimant = Claimant {
        fresh: NodeId(dice.roll()),
        pod: Some(uid.clone()),
        bound_to_pod: mounts.kind.is_bound_to_pod(),
        owner: format!("{}/{}/{}", scope.namespace, scope.service, scope.cluster),
        now,
    };
    let marker = marker::claim(&store, claimant.clone()).await?;
    let (boot, node, bound_to_pod) = (BootId(dice.roll()), marker.node, claimant.bound_to_pod);
    let network = identity.clone().map(|identity| {
        let network: Arc<dyn Network> =
            Arc::new(TlsNetwork { identity, channel: Channel::Raft, ip, handshakes: Runtime::current() });
        network
    });
    let timing = &config.raft.timing;
    let options = Options {
        listen: SocketAddr::new(ip, PORT),
        network,
        directory: directory.clone(),
        store: store.clone(),
        marker,
        claimant,
        uid: uid.clone(),
        boot,
        timings: Timings {
            heartbeat: timing.heartbeat,
            election_min: timing.election_min,
            election_max: timing.election_max,
        },
        grace: timing.dead_server_grace,
        dice,
    };
    let (service, handle, leaderships) = Service::new(options);
    let (thread, task) = RaftThread::start(service.run(stop)).map_err(Error::Threads)?;
    Ok(Node {
        handle,
        leaderships,
        task,
        boot,
        node,
        uid,
        identity,
        directory,
        bound_to_pod,
        ip,
        raft_dir: config.raft_dir.clone(),
        store,
        _thread: thread,
    })
}

/// RocksDB reads its logs when it is opened: off the threads that serve others.
async fn open(folder: &Path) -> Result<Store, Error> {
    let folder = folder.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let engine = RocksEngine::open(&folder)?;
        Store::start(engine).map_err(Error::Threads)
    });
    opened.await.map_err(|_| Error::Ended("opening of the storage"))?
}
