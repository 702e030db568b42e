//! The pages of this replica, and what adapters tell the metrics.
//!
//! Owns what is said on `/metrics`, `/livez`, `/readyz` and `/startupz`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::encounters::Encounters;
use super::scraping::{ScraperDoor, ScraperTls};
use super::{Error, sampled};
use crate::admin::{self, Pages};
use crate::clock::Clock;
use crate::config::{Config, ListenAddr};
use crate::k8s::client::Client;
use crate::k8s::events::EventCounters;
use crate::k8s::health::WatchHealth;
use crate::k8s::peers;
use crate::k8s::standby::StandbyFeed;
use crate::metrics::{Metrics, TlsUse};
use crate::raft::gossip::{Change, GossipMeter};
use crate::raft::service::Handle;
use crate::{tls, vault};

/// Serves what is configured until `stop`.
///
/// # Errors
/// Files of `prometheus.tls` that cannot be used.
pub(super) async fn serve_pages(
    config: &Config,
    pages: &Arc<ReplicaPages>,
    (vault, clock): (&vault::Handle, &Arc<dyn Clock>),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let health = admin::health_routes(pages.clone());
    listen(&config.health.address, "health.address", health, admin::Options::default(), (tasks, stop)).await;
    let metrics = admin::metrics_routes(pages.clone());
    let Some(tls) = &config.prometheus.tls else {
        let options = admin::Options { tls: None, door: Some(Arc::new(ScraperDoor(pages.metrics.clone()))) };
        listen(&config.prometheus.address, "prometheus.address", metrics, options, (tasks, stop)).await;
        return Ok(());
    };
    let tls = ScraperTls::start(config, tls, vault, (pages.metrics.clone(), clock.clone()), tasks, stop)?;
    let (address, own, until) = (config.prometheus.address, tasks.clone(), stop.clone());
    // Where Vault issues the certificate it may be long until there is one.
    tasks.spawn(async move {
        let Some(options) = until.run_until_cancelled(tls.listening()).await else { return };
        listen(&address, "prometheus.address", metrics, options, (&own, &until)).await;
    });
    Ok(())
}

/// A page that cannot be served is one warning: pods get their secrets all the same.
async fn listen(
    address: &ListenAddr,
    key: &str,
    routes: axum::Router,
    options: admin::Options,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) {
    let ip = address.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    match bind_any(SocketAddr::new(ip, address.port)).await {
        Ok(listener) => {
            tasks.spawn(admin::serve(listener, routes, options, stop.clone()));
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
pub(super) struct VaultMeter(pub(super) Arc<Metrics>);

impl vault::Meter for VaultMeter {
    fn renewal(&self, failed: bool) {
        self.0.token_renewed(failed);
    }

    fn token_ttl(&self, seconds: Option<u64>) {
        self.0.token_granted(seconds);
    }

    fn vault_state(&self, state: &vault::State) {
        self.0.vault_usable(matches!(state, vault::State::Usable));
    }

    fn certificate(&self, failed: bool) {
        self.0.certificate_renewed(failed);
    }

    fn ca_changed(&self) {
        self.0.vault_ca_changed();
    }

    fn reloaded(&self, failed: bool) {
        self.0.tls_reloaded(TlsUse::Vault, failed);
    }

    fn trusts(&self, cas: Option<&str>, ours: Option<&str>) {
        self.0.certificate_expires(TlsUse::Vault, cas.and_then(tls::expiry));
        self.0.certificate_expires(TlsUse::VaultClient, ours.and_then(tls::expiry));
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
    pub(super) clock: Arc<dyn Clock>,
    pub(super) feed: Arc<StandbyFeed>,
    pub(super) watch: Arc<WatchHealth>,
    pub(super) events: Arc<EventCounters>,
    /// Raft, once it runs.
    pub(super) raft: OnceLock<Handle>,
}

impl Pages for ReplicaPages {
    fn metrics(&self) -> Vec<u8> {
        self.metrics.page(&sampled::sample(self, self.ready().is_ok()))
    }

    /// A process whose Raft or delivery is dead ends by itself: whoever answers lives.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    /// Raft runs: this replica is in a cluster, or about to join one. The kubelet waits for this before it asks for the rest.
    fn started(&self) -> Result<(), String> {
        self.raft.get().ok_or("the replicated ledger has not started yet")?;
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
