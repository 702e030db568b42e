//! The composition root: the only place that builds adapters and knows them all.
//!
//! Owns the order of start and of shutdown. Start: everything that waits (watch, Vault, pages, Raft) at once; nothing is
//! claimed before this replica leads and Vault's checks pass. Shutdown: stop claiming, hand over the lead, let pushes
//! end, leave the cluster where the storage goes with the pod, then Events, then pages.

mod control;
mod gossip;
mod identity;
mod node;
mod pages;
pub mod peers;
mod reload;
mod sampled;
mod scraping;
mod settings;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::node::Node;
use self::pages::{ReplicaPages, VaultMeter};
use crate::cli::{Command, Output, version_line};
use crate::clock::{Clock, Dice, SystemClock};
use crate::config::Config;
use crate::control::{ClientError as ControlError, Report, Request, Socket};
use crate::deliver::ports::Leadership;
use crate::deliver::{Ports, Service};
use crate::domain::limits::Limits;
use crate::k8s::client::{self, ClientError};
use crate::k8s::events::EventAnnouncer;
use crate::k8s::standby::StandbyFeed;
use crate::k8s::watch::Feed;
use crate::metrics::Metrics;
use crate::push::PodCourier;
use crate::raft::service as raft;
use crate::store::marker::MarkerError;
use crate::store::rocks::OpenError;
use crate::{tls, vault};

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
    /// What `prometheus.tls` names cannot be used.
    #[error("metrics cannot be served over TLS")]
    ScraperTls(#[source] tls::Error),
    /// Nothing to show to peers.
    #[error("this replica has no identity for its peers")]
    Identity(#[from] tls::Error),
    /// `raft.peers` does not fit.
    #[error("raft.peers cannot be used: {0}")]
    Peers(String),
    /// The storage cannot be opened.
    #[error("the replicated ledger cannot be kept in raftDir")]
    Storage(#[from] OpenError),
    /// The storage is not ours.
    #[error("the replicated ledger cannot be kept in raftDir")]
    Marker(#[from] MarkerError),
    /// The replicated ledger has ended.
    #[error("the replicated ledger cannot go on")]
    Raft(#[from] raft::Error),
    /// The system gives no thread.
    #[error("no threads can be started")]
    Threads(#[source] std::io::Error),
    /// A task that must not end has ended.
    #[error("the {0} ended unexpectedly; this is a bug")]
    Ended(&'static str),
}

impl Error {
    /// Whether trying again does not help: something in the configuration has to change.
    pub fn is_misconfiguration(&self) -> bool {
        matches!(self, Self::Identity(_) | Self::ScraperTls(_) | Self::Peers(_) | Self::Raft(raft::Error::NeedIdentity))
    }
}

/// Runs one replica until `stop`.
///
/// # Errors
/// Why it ended by itself.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new(clock.clone())?);
    let kube = client::connect().await?;
    let meter = Arc::new(VaultMeter(metrics.clone()));
    let (vault_service, issuer) = vault::Service::new(settings::vault_options(&config), meter)?;
    let namespaces = settings::namespaces(&config.kubernetes.watch_namespace);
    let (feed, watch) = StandbyFeed::new(Feed::new(kube.clone(), namespaces));
    let feed = Arc::new(feed);
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "kubernetes-vault".to_owned());
    let (announcer, event_writer) = EventAnnouncer::new(kube.clone(), &instance, clock.clone());
    let pages = Arc::new(ReplicaPages {
        metrics: metrics.clone(),
        clock: clock.clone(),
        watch: feed.health(),
        feed: feed.clone(),
        events: announcer.counters(),
        raft: OnceLock::new(),
    });

    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    pages::serve_pages(&config, &pages, (&issuer, &clock), &tasks, &background).await?;
    tasks.spawn(event_writer.run(background.clone()));
    tasks.spawn(watch.run(background.clone()));
    tasks.spawn(pages::tell_peers(kube.clone(), config.clone(), metrics.clone()));
    let mut vault_task = tasks.spawn(vault_service.run(background.clone()));

    let raft_stop = CancellationToken::new();
    let mounts = node::mounts(&config);
    let starting = async {
        let watches = |watcher: crate::k8s::peers::PeerWatcher| {
            tasks.spawn(watcher.run(background.clone()));
        };
        let surroundings = node::surroundings(&config, kube.clone(), watches, &mounts).await?;
        let identity = identity::Surroundings {
            config: &config,
            vault: issuer.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            tasks: &tasks,
            stop: background.clone(),
        };
        node::start(&config, surroundings, &mounts, identity, raft_stop.clone()).await
    };
    let started = tokio::select! {
        () = stop.cancelled() => None,
        ended = &mut vault_task => Some(Err(vault_ended(ended))),
        started = starting => Some(started),
    };
    let ended = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(node)) => {
            pages.raft.get_or_init(|| node.handle.clone());
            serve_control(&config, &node, &tasks, &background).await;
            tasks.spawn(sampled::look_at_room(node.raft_dir.clone(), metrics.clone(), background.clone()));
            tasks.spawn(gossip::follow(gossip::Surroundings::of(&node, &metrics), background.clone()));
            let ports = Ports {
                feed,
                issuer: Arc::new(issuer),
                courier: Arc::new(PodCourier::new()?),
                ledger: Arc::new(node.handle.ledger.clone()),
                announcer: Arc::new(announcer),
                meter: metrics.clone(),
                clock,
                dice: Dice::fair(),
            };
            tracing::info!(version = env!("CARGO_PKG_VERSION"), "kubernetes-vault has started");
            take_part(&config, node, Deliveries::new(ports, config.limits, metrics), vault_task, &stop, &raft_stop)
                .await
        }
    };
    background.cancel();
    tasks.close();
    if timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("stopped without waiting for all background tasks");
    }
    ended
}

/// Delivers whenever this replica leads, until `stop` or a failure; then hands over and goes in order.
async fn take_part(
    config: &Config,
    mut node: Node,
    mut deliveries: Deliveries,
    mut vault: JoinHandle<Result<(), vault::Fatal>>,
    stop: &CancellationToken,
    raft_stop: &CancellationToken,
) -> Result<(), Error> {
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            ended = &mut vault => break Err(vault_ended(ended)),
            ended = &mut node.task => return Err(match ended {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => Error::Ended("replicated ledger"),
            }),
            Some(leadership) = node.leaderships.recv() => deliveries.begin(leadership),
        }
    };
    tracing::info!("stopping: nothing more is claimed, pushes under way may end");
    deliveries.stop_claiming();
    node.handle.hand_over().await;
    deliveries.drain().await;
    if settings::leaves(config, node.bound_to_pod) {
        node.handle.leave().await;
    }
    raft_stop.cancel();
    node.close().await;
    ended
}

fn vault_ended(ended: Result<Result<(), vault::Fatal>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Err(fatal)) => fatal.into(),
        Ok(Ok(())) | Err(_) => Error::Ended("connection to Vault"),
    }
}

/// The work of this replica's leaderships. One may still wait for its last pushes when the next one begins.
struct Deliveries {
    ports: Ports,
    limits: Limits,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
    current: Option<CancellationToken>,
}

impl Deliveries {
    fn new(ports: Ports, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { ports, limits, metrics, tasks: JoinSet::new(), current: None }
    }

    fn begin(&mut self, leadership: Leadership) {
        while self.tasks.try_join_next().is_some() {}
        self.metrics.leadership_changed();
        self.current = Some(leadership.ended.clone());
        let (ports, limits, metrics) = (self.ports.clone(), self.limits, self.metrics.clone());
        self.tasks.spawn(async move {
            let ended = leadership.ended.clone();
            let delivery = Service::new(ports, leadership, limits).run();
            let told = async {
                ended.cancelled().await;
                metrics.leadership_changed();
            };
            tokio::join!(delivery, told);
        });
    }

    fn stop_claiming(&mut self) {
        if let Some(current) = self.current.take() {
            current.cancel();
        }
    }

    async fn drain(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_err() {
                tracing::error!("the delivery died while it stopped");
            }
        }
    }
}

async fn serve_control(config: &Config, node: &Node, tasks: &TaskTracker, stop: &CancellationToken) {
    let replica = control::Replica {
        handle: node.handle.clone(),
        peers: node.directory.clone(),
        directory: node.raft_dir.clone(),
        bound_to_pod: node.bound_to_pod,
        node: node.node.to_string(),
        pod: node.uid.clone(),
        identity: identity::in_words(&config.raft.identity),
    };
    match Socket::bind(&config.raft_dir).await {
        Ok(socket) => {
            tasks.spawn(socket.serve(Arc::new(replica), stop.clone()));
        }
        Err(error) => tracing::warn!("there is no control socket, `status` and `recover` do not work: {error}"),
    }
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
    let answer = crate::control::ask(&config.raft_dir, request).await?;
    Ok(crate::control::report(&answer, output == Output::Json))
}
