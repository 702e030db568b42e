//! The pages of this replica, and what adapters tell the metrics.
//!
//! Owns what is said on `/metrics`, `/livez` and `/readyz`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::encounters::Encounters;
use crate::admin::{self, Pages};
use crate::clock::Clock;
use crate::config::{Config, ListenAddr};
use crate::k8s::client::Client;
use crate::k8s::events::EventCounters;
use crate::k8s::health::WatchHealth;
use crate::k8s::peers;
use crate::metrics::{Metrics, RaftSampled, Sampled};
use crate::raft::gossip::{Change, GossipMeter};
use crate::raft::service::Handle;
use crate::raft::status::{Role, Seen};
use crate::vault;

pub(super) async fn serve_pages(
    config: &Config,
    pages: &Arc<ReplicaPages>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let health = admin::health_routes(pages.clone());
    listen(&config.health.address, "health.address", health, tasks, stop).await;
    if config.prometheus.tls.is_some() {
        tracing::error!(
            "prometheus.tls is configured, but this version cannot serve metrics over TLS yet: there is no metrics listener at all, rather than one in clear"
        );
        return;
    }
    let metrics = admin::metrics_routes(pages.clone());
    listen(&config.prometheus.address, "prometheus.address", metrics, tasks, stop).await;
}

/// A page that cannot be served is one warning: pods get their secrets all the same.
async fn listen(address: &ListenAddr, key: &str, routes: axum::Router, tasks: &TaskTracker, stop: &CancellationToken) {
    let ip = address.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    match bind_any(SocketAddr::new(ip, address.port)).await {
        Ok(listener) => {
            tasks.spawn(admin::serve(listener, routes, stop.clone()));
        }
        Err(error) => {
            tracing::warn!(%address, %error, "nothing is served there; choose an address that this process may bind with {key}");
        }
    }
}

/// Binds `address`; where it is all addresses and the kernel has no IPv6, all of IPv4.
pub(super) async fn bind_any(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], address.port()))).await
        }
        bound => bound,
    }
}

/// Sets the reference's gauges of peers once, as the reference does.
pub(super) async fn tell_peers(kube: Client, config: Config, metrics: Arc<Metrics>) {
    let kubernetes = &config.kubernetes;
    match peers::count(&kube, &kubernetes.service_namespace, &kubernetes.service).await {
        Ok(peers) => metrics.nodes_discovered(peers),
        Err(error) => tracing::warn!(
            "the endpoints of {}/{} cannot be read ({error}); kubernetesvault_kubernetes_discovered_nodes_total stays 0",
            kubernetes.service_namespace,
            kubernetes.service
        ),
    }
}

/// Tells the metrics how Vault is.
pub(super) struct VaultMeter {
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

impl vault::TokenMeter for VaultMeter {
    fn renewal(&self, failed: bool) {
        self.metrics.token_renewed(failed);
    }

    fn token_ttl(&self, seconds: Option<u64>) {
        let expires = seconds.map_or(0, |ttl| (self.clock.now().0 / 1000).saturating_add(ttl));
        self.metrics.token_expires(i64::try_from(expires).unwrap_or(i64::MAX));
    }

    fn vault_state(&self, state: &vault::State) {
        self.metrics.vault_usable(matches!(state, vault::State::Usable));
    }
}

/// Tells the metrics who came and went.
pub(super) struct PeerMeter {
    pub(super) metrics: Arc<Metrics>,
    pub(super) encounters: Encounters,
}

impl GossipMeter for PeerMeter {
    fn changed(&self, change: Change, node: &str) {
        self.metrics.gossip_changed(
            match change {
                Change::Joined => "joined",
                Change::Left => "left",
                Change::Failed => "failed",
                Change::Reaped => "reaped",
            },
            node,
        );
    }

    fn met_another_cluster(&self) {
        self.metrics.another_cluster_met();
        self.encounters.note();
    }
}

/// What the pages of this replica say.
pub(super) struct ReplicaPages {
    pub(super) metrics: Arc<Metrics>,
    pub(super) watch: Arc<WatchHealth>,
    pub(super) events: Arc<EventCounters>,
    /// Raft, once it runs.
    pub(super) raft: OnceLock<Handle>,
}

impl Pages for ReplicaPages {
    fn metrics(&self) -> Vec<u8> {
        let watch = self.watch.counts();
        let raft = self.raft.get();
        self.metrics.observe(&Sampled {
            watch_restarts: watch.restarts,
            undecodable_pods: watch.undecodable,
            events_dropped: self.events.dropped() + self.events.failed(),
            raft: raft.and_then(Handle::seen).map(|seen| sample(&seen)),
            refused: raft.map(Handle::refused).unwrap_or_default(),
        });
        self.metrics.render()
    }

    /// A process whose Raft or delivery is dead ends by itself: whoever answers lives.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    /// Vault's state is a metric and an Event, and no part of this: a sealed Vault must not block a rollout.
    fn ready(&self) -> Result<(), String> {
        let raft = self.raft.get().ok_or("the replicated ledger has not started yet")?;
        raft.ready()?;
        if self.watch.fresh() {
            return Ok(());
        }
        let cause = self.watch.last_error();
        Err(format!("the watch on pods is not up to date: {}", cause.as_deref().unwrap_or("it has just begun")))
    }
}

fn sample(seen: &Seen) -> RaftSampled {
    RaftSampled {
        term: seen.term.0,
        leads: seen.role == Role::Leader,
        voters: seen.members.iter().filter(|member| member.voter).count(),
        members: seen.members.len(),
        lag: seen.committed.zip(seen.applied).map_or(0, |(committed, applied)| committed.saturating_sub(applied)),
        most_behind: seen.members.iter().filter_map(|member| member.lag).max().unwrap_or(0),
        entries: seen.entries,
        tombstones: seen.tombstones,
    }
}
