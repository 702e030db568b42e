//! A world of nodes: each with a store whose crash loses what was not synced, all on one network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{copy_bidirectional, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Dice;
use crate::deliver::ports::{Leadership, LedgerPort};
use crate::domain::ids::{BootId, NodeId, PodUid, Timestamp};
use crate::domain::peers::{Listed, PodState, Silence};
use crate::raft::ports::Directory;
use crate::raft::rpc::network::{Acceptor, Connection, Incoming, Network};
use crate::raft::running::{Running, Timings};
use crate::raft::service::{Error, Handle, Options, Service};
use crate::store::Store;
use crate::store::marker::{self, Claimant};
use crate::store::mem::MemEngine;

const PORT: u16 = 45_679;

type Pipe = (IpAddr, Connection);

/// Who listens, and who cannot reach whom.
#[derive(Default)]
struct Wires {
    listening: BTreeMap<IpAddr, mpsc::Sender<Pipe>>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    links: Vec<((IpAddr, IpAddr), AbortHandle)>,
}

struct Wire {
    from: IpAddr,
    wires: Arc<Mutex<Wires>>,
}

struct Listening(mpsc::Receiver<Pipe>);

#[async_trait]
impl Acceptor for Listening {
    async fn accept(&mut self) -> io::Result<Incoming> {
        let (from, connection) = self.0.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Incoming { from, handshake: Box::pin(async move { Ok(connection) }) })
    }
}

#[async_trait]
impl Network for Wire {
    async fn bind(&self, _address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let (dialled, listening) = mpsc::channel(64);
        self.wires.lock().unwrap().listening.insert(self.from, dialled);
        Ok(Box::new(Listening(listening)))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let (cut, dialled) = {
            let wires = self.wires.lock().unwrap();
            (wires.cut.contains(&(self.from, address.ip())), wires.listening.get(&address.ip()).cloned())
        };
        if cut {
            return std::future::pending().await;
        }
        let ((ours, mut near), (mut far, theirs)) = (duplex(1 << 16), duplex(1 << 16));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let Some(dialled) = dialled else { return Err(refused) };
        dialled.send((self.from, Box::new(theirs))).await.map_err(|_| refused)?;
        let link = tokio::spawn(async move { drop(copy_bidirectional(&mut near, &mut far).await) });
        self.wires.lock().unwrap().links.push(((self.from, address.ip()), link.abort_handle()));
        Ok(Box::new(ours))
    }

    async fn diagnose(&self, _address: SocketAddr, error: &io::Error) -> Silence {
        if error.kind() == io::ErrorKind::ConnectionRefused { Silence::Refused } else { Silence::TimedOut }
    }

    fn explain(&self, error: &io::Error) -> String {
        error.to_string()
    }
}

/// The API server's word.
struct Word {
    listed: Mutex<Vec<Listed>>,
    pods: Mutex<BTreeMap<PodUid, PodState>>,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl Directory for Word {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        Ok(self.listed.lock().unwrap().clone())
    }

    async fn pods(&self, peers: &[Listed]) -> BTreeMap<PodUid, PodState> {
        let pods = self.pods.lock().unwrap();
        peers.iter().map(|peer| (peer.uid.clone(), pods.get(&peer.uid).copied().unwrap_or(PodState::Gone))).collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn urgent(&self, _urgent: bool) {}
}

/// One replica.
pub(super) struct Replica {
    pub(super) handle: Handle,
    pub(super) leaderships: mpsc::Receiver<Leadership>,
    pub(super) stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Replica {
    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.handle.ledger.running()
    }
}

/// See the module.
pub(super) struct World {
    wires: Arc<Mutex<Wires>>,
    word: Arc<Word>,
    engines: BTreeMap<u8, MemEngine>,
    pub(super) replicas: BTreeMap<u8, Replica>,
    rolls: Arc<std::sync::atomic::AtomicU64>,
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

pub(super) fn uid(n: u8) -> PodUid {
    PodUid::from(format!("pod-{n}").as_str())
}

impl World {
    pub(super) fn new() -> Self {
        let word = Word { listed: Mutex::default(), pods: Mutex::default(), changes: watch::Sender::new(0) };
        Self {
            wires: Arc::default(),
            word: Arc::new(word),
            engines: BTreeMap::new(),
            replicas: BTreeMap::new(),
            rolls: Arc::new(1.into()),
        }
    }

    fn dice(&self) -> Dice {
        let rolls = self.rolls.clone();
        // Any odd constant spreads the counter over all 64 bits.
        Dice::loaded(move || {
            rolls.fetch_add(1, std::sync::atomic::Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }

    /// The service's list.
    pub(super) fn list(&self, replicas: &[u8]) {
        let listed =
            replicas.iter().map(|n| Listed { uid: uid(*n), name: format!("controller-{n}").into(), address: ip(*n) });
        *self.word.listed.lock().unwrap() = listed.collect();
        self.word.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn pod(&self, n: u8, state: PodState) {
        self.word.pods.lock().unwrap().insert(uid(n), state);
    }

    /// Starts replica `n` on the storage that it had, if any.
    pub(super) async fn start(&mut self, n: u8) {
        let engine = self.engines.entry(n).or_default().reopen();
        self.engines.insert(n, engine.clone());
        let store = Store::inline(engine);
        let dice = self.dice();
        let claimant = Claimant {
            fresh: NodeId(dice.roll()),
            pod: Some(uid(n)),
            bound_to_pod: true,
            owner: "ns/service/".to_owned(),
            now: Timestamp(1),
        };
        let marker = marker::claim(&store, claimant.clone()).await.unwrap();
        let options = Options {
            listen: SocketAddr::new(ip(n), PORT),
            network: Some(Arc::new(Wire { from: ip(n), wires: self.wires.clone() })),
            directory: self.word.clone(),
            store,
            marker,
            claimant,
            uid: uid(n),
            boot: BootId(dice.roll()),
            timings: Timings {
                heartbeat: Duration::from_millis(60),
                election_min: Duration::from_millis(150),
                election_max: Duration::from_millis(300),
            },
            grace: Duration::from_secs(600),
            dice,
        };
        let (service, handle, leaderships) = Service::new(options);
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.run(stop.clone()));
        self.pod(n, PodState::Running);
        self.replicas.insert(n, Replica { handle, leaderships, stop, task });
    }

    /// Kills replica `n`: what was not synced is gone.
    pub(super) fn kill(&mut self, n: u8) {
        let replica = self.replicas.remove(&n).unwrap();
        replica.task.abort();
        // Whatever it still writes goes to an engine that nobody reopens.
        let engine = self.engines.remove(&n).unwrap();
        engine.crash();
        self.engines.insert(n, engine.reopen());
        let mut wires = self.wires.lock().unwrap();
        wires.listening.remove(&ip(n));
        wires.links.iter().filter(|((from, to), _)| [*from, *to].contains(&ip(n))).for_each(|(_, link)| link.abort());
        drop(wires);
        self.pod(n, PodState::NotRunning);
    }

    /// And its storage with it.
    pub(super) fn kill_and_wipe(&mut self, n: u8) {
        self.kill(n);
        self.engines.remove(&n);
    }

    /// Cuts `n` off from all others, both ways, or joins it again. Connections that exist break.
    pub(super) fn cut(&self, n: u8, others: &[u8], cut: bool) {
        let mut wires = self.wires.lock().unwrap();
        for other in others {
            for pair in [(ip(n), ip(*other)), (ip(*other), ip(n))] {
                if cut {
                    wires.links.iter().filter(|(link, _)| *link == pair).for_each(|(_, link)| link.abort());
                    wires.cut.insert(pair);
                } else {
                    wires.cut.remove(&pair);
                }
            }
        }
    }

    /// Waits until `holds`; time is paused, so this costs none.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..6_000 {
            if holds(self) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("not within a minute: {what}; {}", self.describe());
    }

    pub(super) fn leader(&self) -> Option<u8> {
        let leads = |(n, replica): (&u8, &Replica)| replica.running()?.leads_in().map(|term| (term, *n));
        self.replicas.iter().filter_map(leads).max().map(|(_, n)| n)
    }

    /// How many voters there are, by the leader's word.
    pub(super) fn voters(&self) -> usize {
        let running = self.leader().and_then(|n| self.replicas[&n].running());
        running.map_or(0, |running| running.configuration().voters.len())
    }

    pub(super) fn members(&self) -> usize {
        let running = self.leader().and_then(|n| self.replicas[&n].running());
        running.map_or(0, |running| running.configuration().members.len())
    }

    pub(super) fn clusters(&self) -> BTreeSet<crate::domain::ids::ClusterId> {
        self.replicas.values().filter_map(|replica| Some(replica.running()?.identity.cluster)).collect()
    }

    pub(super) fn ledger(&self, n: u8) -> &dyn LedgerPort {
        &self.replicas[&n].handle.ledger
    }

    fn describe(&self) -> String {
        let describe = |(n, replica): (&u8, &Replica)| match replica.running() {
            Some(running) => format!("{n}: {}; {}", running.metrics(), replica.task.is_finished()),
            None => format!("{n}: in no cluster, finished {}", replica.task.is_finished()),
        };
        self.replicas.iter().map(describe).collect::<Vec<_>>().join("\n")
    }
}
