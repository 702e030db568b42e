//! The composition root: the only place that builds adapters and knows them all.
//!
//! Owns the order of start and of shutdown. Start: everything that waits (watch, Vault, pages) at once; nothing is
//! claimed before Vault's checks pass. Shutdown: stop claiming and let pushes end, then Events, then pages.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Pages};
use crate::cli::{Command, Output, version_line};
use crate::clock::{Clock, Dice, SystemClock};
use crate::config::{Config, ListenAddr, Login, VaultRoots, WatchNamespace};
use crate::control::{self, ClientError as ControlError, Report, Request};
use crate::deliver::ports::Leadership;
use crate::deliver::{Ports, Service};
use crate::domain::ids::BootId;
use crate::domain::ledger::Author;
use crate::k8s::client::{self, Client, ClientError};
use crate::k8s::events::{EventAnnouncer, EventCounters};
use crate::k8s::health::WatchHealth;
use crate::k8s::peers;
use crate::k8s::watch::{Feed, NamespaceFilter};
use crate::ledger::{MemoryLedger, ONLY_TERM};
use crate::metrics::{Metrics, Sampled};
use crate::push::PodCourier;
use crate::vault;

/// What is left to do once pushes have ended: a few Events, and a revocation.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No API server to talk to.
    #[error("Kubernetes cannot be used")]
    Kubernetes(#[from] ClientError),
    /// Vault has answered, and what it said will not change by waiting.
    #[error("Vault cannot be used")]
    Vault(#[from] vault::Fatal),
    /// The TLS library lacks what TLS needs.
    #[error("TLS cannot be used")]
    Tls(#[from] rustls::Error),
    /// Two metrics of one name.
    #[error("metrics cannot be made")]
    Metrics(#[from] prometheus::Error),
    /// A task that must not end has ended.
    #[error("the {0} ended unexpectedly; this is a bug")]
    Ended(&'static str),
}

/// Runs one replica until `stop`.
///
/// # Errors
/// Why it ended by itself.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new()?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kube = client::connect().await?;
    let meter = Arc::new(VaultMeter { metrics: metrics.clone(), clock: clock.clone() });
    let (vault_service, issuer) = vault::Service::new(vault_options(&config), meter)?;
    let feed = Feed::new(kube.clone(), namespaces(&config.kubernetes.watch_namespace));
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "kubernetes-vault".to_owned());
    let (announcer, event_writer) = EventAnnouncer::new(kube.clone(), &instance, clock.clone());
    let ledger = Arc::new(MemoryLedger::default());
    let pages = Arc::new(ReplicaPages {
        metrics: metrics.clone(),
        watch: feed.health(),
        events: announcer.counters(),
        ledger: ledger.clone(),
        delivering: AtomicBool::new(true),
    });

    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    serve_pages(&config, &pages, &tasks, &background).await;
    tasks.spawn(event_writer.run(background.clone()));
    tasks.spawn(tell_peers(kube, config.clone(), metrics.clone()));
    let vault_task = tasks.spawn(vault_service.run(background.clone()));

    let leadership = Leadership {
        author: Author { term: ONLY_TERM, boot: BootId(rand::random()) },
        ended: CancellationToken::new(),
    };
    metrics.leadership_changed();
    let ports = Ports {
        feed: Arc::new(feed),
        issuer: Arc::new(issuer),
        courier: Arc::new(PodCourier::new()?),
        ledger,
        announcer: Arc::new(announcer),
        meter: metrics,
        clock,
        dice: Dice::fair(),
    };
    let delivery = tokio::spawn(Service::new(ports, leadership.clone()).run());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "kubernetes-vault has started");

    let ended = wait_for_end(&stop, vault_task, delivery, &leadership, &pages).await;
    background.cancel();
    tasks.close();
    if timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("stopped without waiting for all background tasks");
    }
    ended
}

/// What the controller that runs here says to `command`.
///
/// # Errors
/// It does not answer, and why.
pub async fn ask(config: &Config, command: Command) -> Result<Report, ControlError> {
    let (request, output) = match command {
        Command::Version => return Ok(Report { text: version_line() + "\n", well: true }),
        Command::Status { output } => (Request::Status, output),
        Command::Recover { yes, output } => (Request::Recover { confirm: yes }, output),
    };
    let answer = control::ask(&config.raft_dir, request).await?;
    Ok(control::report(&answer, output == Output::Json))
}

/// Waits for `stop` or a failure; then lets pushes that are under way end.
async fn wait_for_end(
    stop: &CancellationToken,
    vault: JoinHandle<Result<(), vault::Fatal>>,
    mut delivery: JoinHandle<()>,
    leadership: &Leadership,
    pages: &ReplicaPages,
) -> Result<(), Error> {
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = vault => match ended {
            Ok(Err(fatal)) => Err(fatal.into()),
            Ok(Ok(())) | Err(_) => Err(Error::Ended("connection to Vault")),
        },
        _ = &mut delivery => {
            pages.delivering.store(false, Ordering::Relaxed);
            return Err(Error::Ended("delivery"));
        }
    };
    tracing::info!("stopping: nothing more is claimed, pushes under way may end");
    leadership.ended.cancel();
    if delivery.await.is_err() {
        tracing::error!("the delivery died while it stopped");
    }
    result
}

async fn serve_pages(config: &Config, pages: &Arc<ReplicaPages>, tasks: &TaskTracker, stop: &CancellationToken) {
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
    let bound = match address.ip {
        Some(ip) => admin::bind(SocketAddr::new(ip, address.port)).await,
        // All addresses; a kernel without IPv6 has only the others.
        None => match admin::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => admin::bind(SocketAddr::from(([0, 0, 0, 0], address.port))).await,
        },
    };
    match bound {
        Ok(listener) => {
            tasks.spawn(admin::serve(listener, routes, stop.clone()));
        }
        Err(error) => {
            tracing::warn!(%address, %error, "nothing is served there; choose an address that this process may bind with {key}");
        }
    }
}

/// Sets the reference's gauges of peers once, as the reference does.
async fn tell_peers(kube: Client, config: Config, metrics: Arc<Metrics>) {
    metrics.raft_members(1);
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

fn namespaces(watch: &WatchNamespace) -> NamespaceFilter {
    match watch.exact() {
        Some(name) => NamespaceFilter::One(name.into()),
        None => {
            let watch = watch.clone();
            NamespaceFilter::Matching(Arc::new(move |namespace| watch.matches(namespace)))
        }
    }
}

fn vault_options(config: &Config) -> vault::Options {
    let vault = &config.vault;
    let login = match &vault.login {
        Login::Token(token) => {
            vault::Login::Token { token: token.clone(), skip_token_role: vault.skip_token_role_name_validation }
        }
        Login::TokenFile(path) => vault::Login::File(path.clone()),
        Login::Kubernetes(auth) => vault::Login::Kubernetes {
            mount: auth.mount.clone(),
            role: auth.role.clone(),
            token_path: auth.token_path.clone(),
        },
    };
    let ca = match &vault.tls.roots {
        VaultRoots::Public => vault::Ca::Public,
        VaultRoots::File(path) => vault::Ca::File(path.clone()),
        VaultRoots::PkiMounts { mounts, fingerprints } => vault::Ca::Pki {
            mounts: mounts.clone(),
            fingerprints: fingerprints.iter().copied().map(vault::Fingerprint::from).collect(),
        },
    };
    let client = vault.tls.client.as_ref();
    vault::Options {
        address: vault.addr.as_str().to_owned(),
        namespace: vault.namespace.clone(),
        approle_mount: vault.approle_mount.clone(),
        wrapping_ttl: vault.wrapping_ttl.as_str().to_owned(),
        login,
        tls: vault::Tls {
            ca,
            server_name: vault.tls.server_name.clone(),
            client: client
                .map(|pair| vault::ClientCertificate { certificate: pair.cert.clone(), key: pair.key.clone() }),
        },
    }
}

/// Tells the metrics how Vault is.
struct VaultMeter {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
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

/// What the pages of this replica say.
struct ReplicaPages {
    metrics: Arc<Metrics>,
    watch: Arc<WatchHealth>,
    events: Arc<EventCounters>,
    ledger: Arc<MemoryLedger>,
    delivering: AtomicBool,
}

impl Pages for ReplicaPages {
    fn metrics(&self) -> Vec<u8> {
        let watch = self.watch.counts();
        self.metrics.observe(&Sampled {
            ledger_entries: u64::try_from(self.ledger.len()).unwrap_or(u64::MAX),
            watch_restarts: watch.restarts,
            undecodable_pods: watch.undecodable,
            events_dropped: self.events.dropped() + self.events.failed(),
        });
        self.metrics.render()
    }

    fn live(&self) -> Result<(), String> {
        if self.delivering.load(Ordering::Relaxed) { Ok(()) } else { Err("the delivery has ended".to_owned()) }
    }

    /// Vault's state is a metric and an Event, and no part of this: a sealed Vault must not block a rollout.
    fn ready(&self) -> Result<(), String> {
        if self.watch.fresh() {
            return Ok(());
        }
        let cause = self.watch.last_error();
        Err(format!("the watch on pods is not up to date: {}", cause.as_deref().unwrap_or("it has just begun")))
    }
}
