//! Gossip for as long as this replica is in a cluster: it wakes the leader's reconciliation, and counts who comes and
//! goes.
//!
//! Owns when gossip begins anew: with each epoch.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::encounters::Encounters;
use super::node::Node;
use super::pages::PeerMeter;
use super::peers::TlsNetwork;
use crate::clock::Dice;
use crate::domain::ids::{BootId, PodUid};
use crate::metrics::{MOST_PEERS, Metrics};
use crate::raft::gossip::{Identity, MAX_LABELS, Options, PORT, Service};
use crate::raft::ports::Directory;
use crate::raft::service::Handle;
use crate::raft::status::Seen;
use crate::tls::{Channel, ClusterIdentity};

/// Whether we are in a cluster, and in the same, is looked at this often. Nothing waits for gossip.
const LOOK_EVERY: Duration = Duration::from_secs(1);

// Gossip makes a label for each of these addresses, and the page of metrics has room for them.
const _: () = assert!(MAX_LABELS <= MOST_PEERS);

/// What gossip needs of this replica.
pub(super) struct Surroundings {
    handle: Handle,
    directory: Arc<dyn Directory>,
    identity: Option<ClusterIdentity>,
    uid: PodUid,
    boot: BootId,
    ip: IpAddr,
    metrics: Arc<Metrics>,
    encounters: Encounters,
}

impl Surroundings {
    pub(super) fn of(node: &Node, metrics: &Arc<Metrics>, encounters: &Encounters) -> Self {
        Self {
            handle: node.handle.clone(),
            directory: node.directory.clone(),
            identity: node.identity.clone(),
            uid: node.uid.clone(),
            boot: node.boot,
            ip: node.ip,
            metrics: metrics.clone(),
            encounters: encounters.clone(),
        }
    }

    /// Where gossip of peers is listened for, by the list; and our own address among them.
    async fn listed(&self) -> Option<(Vec<SocketAddr>, IpAddr)> {
        let listed = self.directory.listed().await.ok()?;
        let own = listed.iter().find(|peer| peer.uid == self.uid)?.address;
        Some((listed.iter().map(|peer| SocketAddr::new(peer.address, PORT)).collect(), own))
    }
}

/// Gossips until `stop`.
pub(super) async fn follow(around: Surroundings, stop: CancellationToken) {
    // Who has nothing to show to peers has nobody to gossip with.
    let Some(identity) = around.identity.clone() else { return };
    let network =
        Arc::new(TlsNetwork { identity, channel: Channel::Gossip, ip: around.ip, handshakes: Runtime::current() });
    while !stop.is_cancelled() {
        let (Some(seen), Some((seeds, own))) = (around.handle.seen(), around.listed().await) else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => continue,
            }
        };
        let (tell_seeds, seeds) = watch::channel(seeds);
        let handle = around.handle.clone();
        let options = Options {
            network: network.clone(),
            listen: SocketAddr::new(around.ip, PORT),
            identity: Identity::new(seen.node, SocketAddr::new(own, PORT), around.boot),
            cluster: seen.cluster,
            epoch: seen.epoch,
            seeds,
            meter: Arc::new(PeerMeter { metrics: around.metrics.clone(), encounters: around.encounters.clone() }),
            wake: Arc::new(move || handle.wake()),
            seed: Dice::fair().roll(),
        };
        let (service, gossip) = match Service::bind(options).await {
            Ok(bound) => bound,
            Err(error) => {
                tracing::warn!(%error, "there is no gossip; lost peers are noticed later");
                return;
            }
        };
        let ended = CancellationToken::new();
        let running = tokio::spawn(service.run(ended.clone()));
        let same = keep_up(&around, &seen, &tell_seeds);
        tokio::select! {
            () = stop.cancelled() => gossip.leave().await,
            () = same => {}
        }
        ended.cancel();
        if running.await.is_err() {
            tracing::error!("gossip died");
        }
    }
}

/// Tells new seeds for as long as we are the same node of the same cluster.
async fn keep_up(around: &Surroundings, then: &Seen, seeds: &watch::Sender<Vec<SocketAddr>>) {
    let mut changed = around.directory.changed();
    loop {
        tokio::select! {
            Ok(()) = changed.changed() => {
                if let Some((listed, _)) = around.listed().await {
                    seeds.send_replace(listed);
                }
            }
            () = sleep(LOOK_EVERY) => {}
        }
        let same = |now: Seen| (now.node, now.cluster, now.epoch) == (then.node, then.cluster, then.epoch);
        if !around.handle.seen().is_none_or(same) {
            return;
        }
    }
}
