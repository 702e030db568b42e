//! The ledger alone: three nodes of this process, each with RocksDB and fsync, mutual TLS between them; no API server
//! and no Vault.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use futures::future::try_join_all;
use kubernetes_vault::app::peers::TlsNetwork;
use kubernetes_vault::clock::{Clock as _, Dice, SystemClock};
use kubernetes_vault::deliver::ports::{Leadership, LedgerPort as _};
use kubernetes_vault::domain::ids::{AttemptId, BootId, ContainerId, InstanceKey, NodeId, PodRef, PodUid, RoleName};
use kubernetes_vault::domain::ledger::{Accessors, Author, Claim, Command, Issued, Outcome, Reply, Verdict};
use kubernetes_vault::domain::peers::{Listed, PodState};
use kubernetes_vault::raft::Timings;
use kubernetes_vault::raft::ports::Directory;
use kubernetes_vault::raft::service::{Handle, Options, Service};
use kubernetes_vault::raft::status::{Role, Seen};
use kubernetes_vault::raft::thread::RaftThread;
use kubernetes_vault::store::Store;
use kubernetes_vault::store::marker::{self, Claimant};
use kubernetes_vault::store::rocks::{self, RocksEngine};
use kubernetes_vault::tls::{Channel, ClusterIdentity, Scope};
use secrecy::SecretString;
use testbed::fake_pods::simulated_ip;
use testbed::poll_until;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::report::{Report, Target};
use crate::rig::Rig;
use crate::sizes::Sizes;

/// Raft's port of each node, and of each replica.
pub(crate) const PORT: u16 = 45_679;
/// First of the nodes' own addresses.
const NODES: u16 = 51_301;
/// Deliveries that are under way at once: as many as a controller has pushes.
const AT_ONCE: usize = 512;
/// Deliveries of the measured stretch, three entries each.
const DELIVERIES: u64 = 40_000;
const MILLION: u64 = 1_000_000;
/// For so long both cores are kept busy, to see whether somebody takes the leader for dead.
const BURSTS: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(60);
/// So long without a leader is usual when one goes.
const ELECTION: Duration = Duration::from_millis(500);
const MIB: f64 = 1_048_576.0;

/// Who is there.
struct List(watch::Sender<u64>, std::sync::Mutex<Vec<Listed>>);

#[async_trait]
impl Directory for List {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        self.1.lock().map(|listed| listed.clone()).map_err(|error| error.to_string())
    }

    async fn pods(&self, _peers: &[Listed]) -> BTreeMap<PodUid, PodState> {
        BTreeMap::new()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn urgent(&self, _urgent: bool) {}
}

fn listed(n: u16) -> Listed {
    let address = simulated_ip(NODES + n);
    Listed { uid: PodUid::from(address.to_string().as_str()), name: address.to_string().into(), address }
}

struct Node {
    handle: Handle,
    folder: PathBuf,
    stop: CancellationToken,
    _thread: RaftThread,
}

/// Who leads, as the nodes themselves say.
#[derive(Clone)]
struct Lead {
    handle: Handle,
    author: Author,
}

type Leads = watch::Sender<Option<Lead>>;

async fn start(rig: &Rig, list: &Arc<List>, identity: &ClusterIdentity, leads: &Leads, n: u16) -> Result<Node> {
    let folder = rig.bed.directory().join(format!("ledger-{n}"));
    let store = Store::start(RocksEngine::open(&folder)?)?;
    let me = listed(n);
    let dice = Dice::fair();
    let claimant = Claimant {
        fresh: NodeId(dice.roll()),
        pod: Some(me.uid.clone()),
        bound_to_pod: true,
        owner: "bench/ledger/".to_owned(),
        now: SystemClock.now(),
    };
    let marker = marker::claim(&store, claimant.clone()).await?;
    let options = Options {
        listen: SocketAddr::new(me.address, PORT),
        network: Some(Arc::new(TlsNetwork {
            identity: identity.clone(),
            channel: Channel::Raft,
            ip: me.address,
            handshakes: tokio::runtime::Handle::current(),
        })),
        directory: list.clone(),
        store,
        marker,
        claimant,
        uid: me.uid,
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
    tokio::spawn(tell(leads.clone(), handle.clone(), leaderships));
    let stop = CancellationToken::new();
    let (thread, _) = RaftThread::start(service.run(stop.clone()))?;
    Ok(Node { handle, folder, stop, _thread: thread })
}

/// Tells when `handle`'s node begins to lead.
async fn tell(leads: Leads, handle: Handle, mut leaderships: mpsc::Receiver<Leadership>) {
    while let Some(Leadership { author, .. }) = leaderships.recv().await {
        leads.send_replace(Some(Lead { handle: handle.clone(), author }));
    }
}

/// What the ledger does in a second, how soon a newcomer has all of it, and what it takes on disk.
pub(crate) async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.say("the ledger alone: three nodes");
    let secret = SecretString::from("a secret of a benchmark that runs on one machine alone");
    let scope = Scope { namespace: "bench".to_owned(), service: "ledger".to_owned(), cluster: String::new() };
    let identity = ClusterIdentity::derive(&scope, &secret, None)?;
    let list = Arc::new(List(watch::Sender::new(0), std::sync::Mutex::new((0..3).map(listed).collect())));
    let leads = Leads::new(None);
    let nodes = try_join_all((0..3).map(|n| start(rig, &list, &identity, &leads, n))).await?;
    poll_until("three voters", LIMIT, || async {
        let leads_three =
            |seen: Seen| seen.role == Role::Leader && seen.members.iter().filter(|member| member.voter).count() == 3;
        Ok(nodes.iter().filter_map(|node| node.handle.seen()).any(leads_three).then_some(()))
    })
    .await?;
    let work = Work { leads: leads.subscribe(), numbers: Arc::default() };
    work.deliver(DELIVERIES / 10).await?;
    let since = Instant::now();
    work.deliver(DELIVERIES).await?;
    let rate = DELIVERIES as f64 / since.elapsed().as_secs_f64();
    report.row("ledger_deliveries_per_s", rate, "/s", Target::AtLeast(2_000.0), "-");
    if sizes.million {
        let before = term(&nodes)?;
        report.say("the ledger alone: a million deliveries");
        let since = Instant::now();
        work.deliver(MILLION - DELIVERIES - DELIVERIES / 10).await?;
        report.note(format!("a million deliveries: {:.0} s with both cores busy", since.elapsed().as_secs_f64()));
        let most = nodes.iter().map(|node| rocks::disk_bytes(&node.folder)).collect::<io::Result<Vec<_>>>()?;
        let most = most.into_iter().max().unwrap_or_default() as f64 / MIB;
        report.row("disk_mib_1m", most, "MiB", Target::AtMost(64.0), "-");
        report.say("the ledger alone: on until ten minutes have passed");
        while since.elapsed() < BURSTS {
            work.deliver(DELIVERIES).await?;
        }
        // Each election is a term; one that nobody won is counted too.
        let changes = term(&nodes)? - before;
        report.row("leader_changes_under_burst", changes as f64, "", Target::AtMost(0.0), "-");
    }
    let leader = work.leader()?;
    let entries = leader.handle.seen().and_then(|seen| seen.last).context("no log")?;
    ensure!(entries >= 100_000, "only {entries} entries");
    let since = Instant::now();
    if let Ok(mut listed_now) = list.1.lock() {
        listed_now.push(listed(3));
    }
    list.0.send_modify(|count| *count += 1);
    let newcomer = start(rig, &list, &identity, &leads, 3).await?;
    poll_until("a newcomer that has all entries", LIMIT, || async {
        Ok(newcomer.handle.seen().is_some_and(|seen| seen.applied >= Some(entries)).then_some(()))
    })
    .await?;
    report.row("catch_up_100k_s", since.elapsed().as_secs_f64(), "s", Target::AtMost(5.0), "-");
    for node in nodes.iter().chain([&newcomer]) {
        node.stop.cancel();
    }
    Ok(())
}

/// The newest term that a node knows of.
fn term(nodes: &[Node]) -> Result<u64> {
    nodes.iter().filter_map(|node| Some(node.handle.seen()?.term.0)).max().context("no node is in a cluster")
}

/// Deliveries, as the ledger sees them.
#[derive(Clone)]
struct Work {
    leads: watch::Receiver<Option<Lead>>,
    /// Each delivery has its own number.
    numbers: Arc<AtomicU64>,
}

impl Work {
    /// Makes `count` deliveries, [`AT_ONCE`] at a time.
    async fn deliver(&self, count: u64) -> Result<()> {
        let left = Arc::new(AtomicU64::new(count));
        let workers = (0..AT_ONCE).map(|_| {
            let (work, left) = (self.clone(), left.clone());
            tokio::spawn(async move {
                while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    work.one().await?;
                }
                Ok::<(), anyhow::Error>(())
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await??;
        }
        Ok(())
    }

    /// Makes one, under another leader where the first goes.
    async fn one(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let mut leads = self.leads.clone();
            let Lead { handle, author } = leads.borrow_and_update().clone().context("nobody leads")?;
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let Err(error) = propose(&handle, delivery(number, author)?).await else { return Ok(()) };
            ensure!(since.elapsed() < LIMIT, "a delivery is not written: {error:#}");
            // A lead that ends may also begin anew at the same node.
            let _ = timeout(ELECTION, leads.changed()).await;
        }
    }

    fn leader(&self) -> Result<Lead> {
        self.leads.borrow().clone().context("nobody leads")
    }
}

async fn propose(to: &Handle, commands: [Command; 3]) -> Result<()> {
    for command in commands {
        let reply = to.ledger.propose(command).await?;
        ensure!(reply == Reply::Done, "{reply:?}");
    }
    Ok(())
}

/// Claim, `Issued` and outcome, of the sizes that real ones have.
fn delivery(number: u64, by: Author) -> Result<[Command; 3]> {
    let uid = PodUid::from(format!("8f0c5d1e-5a6b-4c7d-9e8f-{number:012x}").as_str());
    let key = InstanceKey {
        pod: uid.clone(),
        container: "install".into(),
        container_id: ContainerId::from(format!("containerd://{number:064x}").as_str()),
        generation: 0,
    };
    let attempt = AttemptId::from(format!("{number:032x}").as_str());
    let pod = PodRef { namespace: "production".into(), name: format!("web-7d9f8b6c5-{number:05x}").into(), uid };
    let at = SystemClock.now();
    let accessors = Accessors {
        wrapping: format!("{number:024x}").into(),
        secret_id: Some(format!("2f1e0d3c-4b5a-6978-8796-{number:012x}").into()),
    };
    Ok([
        Command::Claim(Claim {
            key: key.clone(),
            attempt: attempt.clone(),
            pod,
            role: RoleName::parse("web")?,
            by,
            at,
        }),
        Command::Issued(Issued { key: key.clone(), attempt: attempt.clone(), accessors, by, at }),
        Command::Outcome(Outcome { key, verdicts: vec![(attempt, Verdict::Accepted)], close: true, at }),
    ])
}
