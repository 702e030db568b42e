//! A controller: a runtime of its own on paused time, which the simulation steps. So it can be stopped while its clock
//! goes on (SIGSTOP), and ended between any two steps of its tasks (SIGKILL, or the power).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kubernetes_vault::clock::Dice;
use kubernetes_vault::deliver;
use kubernetes_vault::deliver::ports::Leadership;
use kubernetes_vault::domain::ids::{BootId, NodeId, PodUid, Timestamp};
use kubernetes_vault::domain::limits::Limits;
use kubernetes_vault::domain::peers::{Listed, PodState};
use kubernetes_vault::raft::Timings;
use kubernetes_vault::raft::ports::Directory;
use kubernetes_vault::raft::service::{Handle, Options, Service};
use kubernetes_vault::store::Store;
use kubernetes_vault::store::marker::{self, Claimant};
use kubernetes_vault::store::mem::MemEngine;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ports::{Gate, Site0, ports};
use super::rng::Rng;
use super::wire::Wire;
use super::world::{Shared, Site, TICK};
use crate::history::{Millis, What};

/// Where peers dial each other.
pub(crate) const PORT: u16 = 45_679;

/// A read of the API server.
const READ: Duration = Duration::from_secs(2);

/// The address of the controller that has had `moves` others.
pub(crate) fn address(n: u8, moves: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, moves, n).into()
}

/// A running process.
pub(crate) struct Process {
    pub(crate) runtime: Runtime,
    base: Instant,
    /// How far its own clock is, from its start.
    local: Millis,
    started: Millis,
    pub(crate) handle: Handle,
    pub(crate) site: Site0,
    pub(crate) boot: BootId,
    pub(crate) engine: MemEngine,
    pub(crate) paused_until: Option<Millis>,
    pub(crate) stop: CancellationToken,
}

/// What a process is started with.
pub(crate) struct Start {
    pub(crate) n: u8,
    pub(crate) ip: IpAddr,
    pub(crate) uid: PodUid,
    pub(crate) skew: i64,
    pub(crate) engine: MemEngine,
    /// The rig's number of that storage.
    pub(crate) storage: u64,
}

/// The API server's word on our own service.
struct Word {
    world: Shared,
    me: IpAddr,
    changed: watch::Receiver<u64>,
}

#[async_trait]
impl Directory for Word {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        let asked = self.world.lock().call(Site::Node(self.me), Site::Api, |world, answer| {
            let listed: Vec<Listed> = world.api.listed.values().cloned().collect();
            answer.send(world, TICK, listed);
        });
        match timeout(READ, asked).await {
            Ok(Ok(listed)) => Ok(listed),
            _ => Err("the API server cannot be reached".to_owned()),
        }
    }

    async fn pods(&self, peers: &[Listed]) -> std::collections::BTreeMap<PodUid, PodState> {
        let uids: Vec<PodUid> = peers.iter().map(|peer| peer.uid.clone()).collect();
        let asked = self.world.lock().call(Site::Node(self.me), Site::Api, move |world, answer| {
            let state = |uid: &PodUid| world.api.states.get(uid).copied().unwrap_or(PodState::Gone);
            let states = uids.iter().map(|uid| (uid.clone(), state(uid))).collect();
            answer.send(world, TICK, states);
        });
        timeout(READ, asked).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    fn urgent(&self, _urgent: bool) {}
}

fn dice(rng: Rng) -> Dice {
    let rng = Mutex::new(rng);
    Dice::loaded(move || rng.lock().unwrap_or_else(PoisonError::into_inner).roll())
}

impl Process {
    /// Starts a controller.
    pub(crate) fn start(world: &Shared, start: Start) -> Self {
        let (mut rng, now) = {
            let mut world = world.lock();
            (world.rng.fork(), world.now)
        };
        let seed = RngSeed::from_bytes(&rng.roll().to_be_bytes());
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).rng_seed(seed).build();
        let runtime = runtime.expect("a runtime without input and output needs nothing that may be missing");
        let gate = Arc::new(Gate::default());
        let boot = BootId(rng.roll());
        let stop = CancellationToken::new();
        let (engine, n) = (start.engine.clone(), start.n);
        let begun = runtime.block_on(begin(world, start, boot, &mut rng));
        let (service, handle, leaderships) = begun;
        let (ip, skew) = (handle.1, handle.2);
        let handle = handle.0;
        let site = Site0 { world: world.clone(), n, ip, skew, gate, ledger: handle.ledger.clone() };
        let (ends, told) = (stop.clone(), world.clone());
        runtime.spawn(async move {
            if let Err(error) = service.run(ends).await {
                let why = kubernetes_vault::causes::with_causes(&error);
                told.lock().note(What::Failed { n, why });
            }
        });
        runtime.spawn(lead(site.clone(), handle.clone(), leaderships, rng));
        let base = runtime.block_on(async { Instant::now() });
        Self { runtime, base, local: 0, started: now, handle, site, boot, engine, paused_until: None, stop }
    }

    /// Lets it run until the world's `now`. False: the nemesis has stopped it at a point before.
    pub(crate) fn step(&mut self, now: Millis) -> bool {
        let target = now - self.started;
        let behind = target - self.local;
        let until = self.base + Duration::from_millis(target);
        let gate = self.site.gate.clone();
        self.local = target;
        self.runtime.block_on(async move {
            // A stopped process finds its clock further on, and all its timers due at once.
            if behind > TICK {
                tokio::time::advance(Duration::from_millis(behind - TICK)).await;
            }
            tokio::select! {
                biased;
                () = gate.stop.notified() => false,
                () = sleep_until(until) => true,
            }
        })
    }

    /// Goes on after a pause.
    pub(crate) fn go_on(&mut self) {
        self.paused_until = None;
        self.site.gate.go_on.notify_waiters();
    }
}

type Begun = (Service, (Handle, IpAddr, i64), mpsc::Receiver<Leadership>);

async fn begin(world: &Shared, start: Start, boot: BootId, rng: &mut Rng) -> Begun {
    let Start { n, ip, uid, skew, engine, storage } = start;
    let store = Store::inline(engine);
    let now = super::EPOCH + world.lock().now;
    let claimant = Claimant {
        fresh: NodeId(rng.roll()),
        pod: Some(uid.clone()),
        bound_to_pod: true,
        owner: "kube-system/kubernetes-vault/".to_owned(),
        now: Timestamp(now),
    };
    let marker = marker::claim(&store, claimant.clone()).await.expect("the rig gives each pod its own storage");
    world.lock().note(What::Started { n, node: marker.node, boot, storage });
    let changed = world.lock().api.changed();
    let (service, handle, leaderships) = Service::new(Options {
        listen: SocketAddr::new(ip, PORT),
        network: Some(Arc::new(Wire { ip, world: world.clone() })),
        directory: Arc::new(Word { world: world.clone(), me: ip, changed }),
        store,
        marker,
        claimant,
        uid,
        boot,
        timings: Timings {
            heartbeat: Duration::from_millis(120),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
        },
        // Production's ten minutes, to spare simulated time.
        grace: Duration::from_secs(10),
        dice: dice(rng.fork()),
    });
    (service, (handle, ip, skew), leaderships)
}

/// Delivers during each leadership. An earlier one may still drain.
async fn lead(site: Site0, handle: Handle, mut leaderships: mpsc::Receiver<Leadership>, mut rng: Rng) {
    while let Some(leadership) = leaderships.recv().await {
        let by = leadership.author;
        let cluster = handle.seen().map(|seen| seen.cluster);
        site.world.lock().note(What::Leads { n: site.n, by, cluster });
        let ports = ports(&site, by, rng.fork());
        tokio::spawn(deliver::Service::new(ports, leadership, Limits::default()).run());
    }
}
