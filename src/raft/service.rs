//! One node, from its start to its end: it forms or joins a cluster, takes part in it, and begins anew where it must.
//!
//! Options -> Service -> Handle. Owns the order of these things and the tasks of each. Must never run Raft for a
//! cluster that the marker does not name (but for the one that it is just initialising, which nobody can join yet).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::belong::{Belonging, End, RecoverRequest, watch_raft};
use super::front::{Front, HANG_UPS};
use super::ledger::RaftLedger;
use super::ports::Directory;
use super::rounds::{Found, Rounds};
use super::rpc::client::{Elections, Link, Links, MemberPlaces};
use super::rpc::message::{Address, MemberRequest, MemberResponse, Request, Response};
use super::rpc::network::{Isolated, Network};
use super::rpc::server::Server;
use super::running::{Running, Timings, seeded};
use super::{leader, pulse, reconcile, reform, suspect, warm};
use crate::clock::Dice;
use crate::deliver::ports::Leadership;
use crate::domain::bootstrap::{Decision, Myself, READY_WITHOUT_IDENTITY_AFTER};
use crate::domain::ids::{BootId, ClusterId, Epoch, NodeId, PodUid};
use crate::domain::membership::Member;
use crate::domain::peers::{Listed, Standing};
use crate::domain::quorum::Recovery;
use crate::store::marker::{self, Claimant, Marker, MarkerError};
use crate::store::{Family, Store, StoreError};

/// Between two rounds of a node that forms or joins a cluster. A round is a read of the API and a question to each
/// peer; a pod waits that much longer for the first cluster at most.
const ROUND_EVERY: Duration = Duration::from_millis(300);

/// A request to be taken up: one message and its answer.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// `recover` asks every listed peer: a round, and a few seconds for the list.
const RECOVER_LIMIT: Duration = Duration::from_secs(20);

/// Leaderships that nobody has taken up yet: one ends before the next begins.
const LEADERSHIPS: usize = 1;

/// What a node needs.
pub struct Options {
    /// Where peers dial us.
    pub listen: SocketAddr,
    /// The way to peers; `None`: this node has no identity to show them.
    pub network: Option<Arc<dyn Network>>,
    /// Who the peers are.
    pub directory: Arc<dyn Directory>,
    /// Our storage.
    pub store: Store,
    /// Whose it is.
    pub marker: Marker,
    /// In whose name it was claimed, should it begin anew.
    pub claimant: Claimant,
    /// Our pod, or what stands in for it.
    pub uid: PodUid,
    /// This incarnation.
    pub boot: BootId,
    /// How fast Raft is.
    pub timings: Timings,
    /// `raft.deadServerGrace`.
    pub grace: Duration,
    /// For ids and election timeouts.
    pub dice: Dice,
}

/// Why a node ended by itself. The process has to end, too.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peers' port.
    #[error("the peers' port {0} cannot be taken; another process has it")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The log, the vote or a snapshot cannot be used.
    #[error("the storage in raftDir cannot be used")]
    Storage(#[source] std::io::Error),
    /// A write or a sync has failed.
    #[error("the storage in raftDir has failed")]
    Store(#[from] StoreError),
    /// The marker cannot be written.
    #[error("the storage in raftDir cannot be used")]
    Marker(#[from] MarkerError),
    /// openraft has given up.
    #[error("Raft has stopped: {0}")]
    Raft(String),
    /// There is a peer, and nothing to show it.
    #[error(
        "there is another replica, and this one has no identity for peers: set raft.secrets, or raft.tls.certFile, \
         raft.tls.certKey and raft.tls.caCert, alike on all replicas (vault.tokenFile and vault.kubernetesAuth give \
         replicas no secret that they share); one replica needs none"
    )]
    NeedIdentity,
}

/// See the module.
pub struct Service {
    options: Options,
    network: Arc<dyn Network>,
    ledger: RaftLedger,
    front: Arc<Front>,
    leaderships: mpsc::Sender<Leadership>,
    recoveries: mpsc::Receiver<RecoverRequest>,
    hang_ups: mpsc::Receiver<NodeId>,
    forming: watch::Sender<Forming>,
}

/// What others may ask of a node.
#[derive(Clone)]
pub struct Handle {
    /// The ledger.
    pub ledger: RaftLedger,
    pub(super) front: Arc<Front>,
    recoveries: mpsc::Sender<RecoverRequest>,
    forming: watch::Receiver<Forming>,
}

/// How a node is doing that is in no cluster yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Forming {
    /// Why it waits, a line for each peer.
    pub(super) reasons: Vec<String>,
    /// It is to report ready all the same.
    pub(super) ready_all_the_same: bool,
}

impl Handle {
    pub(super) fn progress(&self) -> Forming {
        self.forming.borrow().clone()
    }

    /// Something may have changed among the peers: the leader looks again.
    pub fn wake(&self) {
        if let Some(running) = self.ledger.running() {
            running.wake.notify_one();
        }
    }

    /// Hands the lead to somebody else, if this node has it.
    pub async fn hand_over(&self) {
        if let Some(running) = self.ledger.running() {
            running.hand_over().await;
        }
    }

    /// Leaves the voters, as pod-bound storage does before its pod goes.
    pub async fn leave(&self) {
        if let Some(running) = self.ledger.running() {
            running.leave().await;
        }
    }

    /// What a forced recovery would find; with `act` it is done, if nothing forbids it.
    ///
    /// # Errors
    /// Why it could not be found out, in words.
    pub async fn recover(&self, act: bool) -> Result<Recovery, String> {
        let (answer, found) = oneshot::channel();
        let asked = async {
            let unheard = || "this node takes part in no cluster".to_owned();
            self.recoveries.send(RecoverRequest { act, answer }).await.map_err(|_| unheard())?;
            found.await.unwrap_or_else(|_| Err(unheard()))
        };
        tokio::time::timeout(RECOVER_LIMIT, asked).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
    }
}

impl Service {
    /// A node with `options`, its handle, and the leaderships that it will have.
    pub fn new(options: Options) -> (Self, Handle, mpsc::Receiver<Leadership>) {
        let ledger = RaftLedger::new();
        let (hung_up, hang_ups) = mpsc::channel(HANG_UPS);
        let front = Front::new(ledger.clone(), hung_up, myself(&options));
        let (leaderships, led) = mpsc::channel(LEADERSHIPS);
        let (asked, recoveries) = mpsc::channel(1);
        let (tell, forming) = watch::channel(Forming::default());
        let handle = Handle { ledger: ledger.clone(), front: front.clone(), recoveries: asked, forming };
        let network = options.network.clone().unwrap_or_else(|| Arc::new(Isolated));
        let service = Self { options, network, ledger, front, leaderships, recoveries, hang_ups, forming: tell };
        (service, handle, led)
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// Why it cannot go on. The storage is as it was.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let seed = self.options.dice.roll();
        seeded(seed, self.work(stop)).await
    }

    async fn work(mut self, stop: CancellationToken) -> Result<(), Error> {
        let listen = self.options.listen;
        let acceptor = self.network.bind(listen).await.map_err(|error| Error::Bind(listen, error))?;
        let serving = CancellationToken::new();
        let _stops_serving = serving.clone().drop_guard();
        let server = Server::new(self.network.clone(), self.front.clone(), self.front.counts.clone(), serving);
        let _serving = AbortOnDropHandle::new(tokio::spawn(server.run(acceptor)));
        // Initialised, but not marked: nobody can have joined, and nothing was promised.
        if self.options.marker.cluster.is_none() && self.options.store.last(Family::Log)?.is_some() {
            self.start_over().await?;
        }
        loop {
            let (running, member) = match self.options.marker.cluster {
                Some((cluster, epoch)) => (self.start(cluster, epoch, true).await?, None),
                None => tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    formed = self.form() => formed?,
                },
            };
            self.ledger.set(Some(running.clone()));
            let end = tokio::select! {
                () = stop.cancelled() => None,
                end = self.take_part(running.clone(), member) => Some(end),
            };
            self.ledger.set(None);
            running.stop().await;
            match end.transpose()? {
                None => return Ok(()),
                Some(End::StartOver) => self.start_over().await?,
                Some(End::Reform) => self.reform(&running).await?,
            }
        }
    }

    /// Runs rounds until there is a cluster, which the marker names then.
    async fn form(&mut self) -> Result<(Arc<Running>, Option<Member>), Error> {
        self.front.begin(myself(&self.options), Standing::Uninitialised);
        self.options.directory.urgent(true);
        let mut rounds = self.rounds();
        let mut changed = self.options.directory.changed();
        let mut kept_out_since = None;
        loop {
            let found = rounds.run().await;
            let kept_out = found.as_ref().is_some_and(|found| found.ruling.fails_on_identity_alone());
            kept_out_since = kept_out.then(|| kept_out_since.unwrap_or_else(Instant::now));
            self.forming.send_replace(Forming {
                reasons: rounds.reasons(),
                ready_all_the_same: kept_out_since.is_some_and(|since| since.elapsed() >= READY_WITHOUT_IDENTITY_AFTER),
            });
            if let Some(found) = found {
                let member = self.member(&found.listed);
                match found.ruling.decision.clone() {
                    Decision::Initialise => {
                        if let Some(member) = member {
                            return Ok((self.initialise(member.clone()).await?, Some(member)));
                        }
                    }
                    Decision::Join { at, node, cluster, epoch } => {
                        if let Some(member) = member
                            && self.ask_to_join(&found, &at, node, (cluster, epoch), &member).await
                        {
                            self.mark(cluster, epoch).await?;
                            tracing::info!(%cluster, "joining the cluster");
                            return Ok((self.start(cluster, epoch, true).await?, Some(member)));
                        }
                    }
                    Decision::NeedIdentity => return Err(Error::NeedIdentity),
                    Decision::StartOver { .. } | Decision::Stay => {}
                    Decision::Wait | Decision::ReadAgain | Decision::Conflict { .. } => {}
                }
            }
            tokio::select! {
                () = sleep(ROUND_EVERY) => {}
                Ok(()) = changed.changed() => {}
            }
        }
    }

    /// A cluster of one. Others join once its marker is written.
    async fn initialise(&mut self, member: Member) -> Result<Arc<Running>, Error> {
        let cluster = ClusterId(self.options.dice.roll());
        tracing::info!(%cluster, "initialising a new cluster");
        let running = self.start(cluster, Epoch(0), false).await?;
        running.remember_voter(&self.options.store).await.map_err(Error::Storage)?;
        let node = running.identity.node;
        let alone = std::collections::BTreeMap::from([(node, member)]);
        running.raft.initialize(alone).await.map_err(|error| Error::Raft(error.to_string()))?;
        self.mark(cluster, Epoch(0)).await?;
        running.belongs.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(running)
    }

    async fn ask_to_join(
        &self,
        found: &Found,
        at: &Listed,
        node: NodeId,
        (cluster, epoch): (ClusterId, Epoch),
        member: &Member,
    ) -> bool {
        let source = self.options.marker.node;
        let mut ask = (node, at.address);
        // The one that answered, and the leader that it names.
        for _ in 0..2 {
            let request = Request::Member(
                Address { cluster, epoch, source, target: ask.0 },
                MemberRequest::Present(member.clone()),
            );
            let mut link = Link::new(self.network.clone(), SocketAddr::new(ask.1, self.options.listen.port()));
            match link.call(&request, JOIN_LIMIT).await {
                Ok(Response::Member(MemberResponse::Done)) => return true,
                Ok(Response::Member(MemberResponse::NotLeader(Some(leader)))) => ask = leader,
                answer => {
                    let peers = found.listed.len();
                    tracing::debug!(?answer, peers, "the cluster did not take this node up yet");
                    return false;
                }
            }
        }
        false
    }

    /// Takes part until this node comes to an end by itself.
    async fn take_part(&mut self, running: Arc<Running>, myself: Option<Member>) -> Result<End, Error> {
        let Options { directory, store, boot, timings, grace, uid, claimant, .. } = &self.options;
        let (directory, timings, grace) = (directory.clone(), *timings, *grace);
        directory.urgent(false);
        let _follows =
            AbortOnDropHandle::new(tokio::spawn(leader::follow(running.clone(), *boot, self.leaderships.clone())));
        let _reconciles =
            AbortOnDropHandle::new(tokio::spawn(reconcile::always(running.clone(), directory.clone(), grace)));
        let _keeps_warm = AbortOnDropHandle::new(tokio::spawn(warm::always(running.clone())));
        let belonging = Belonging {
            running: running.clone(),
            rounds: self.rounds(),
            directory: directory.clone(),
            uid: uid.clone(),
            bound_to_pod: claimant.bound_to_pod,
            myself,
        };
        let looks_after = async {
            while let Some(leader) = self.hang_ups.recv().await {
                suspect::look_after(running.clone(), leader, timings).await;
            }
        };
        tokio::select! {
            // The store's failure first: it is Raft's end as well, and says what to do.
            biased;
            failed = store.failed() => Err(failed.into()),
            why = watch_raft(running.clone(), store.clone()) => Err(Error::Raft(why)),
            end = belonging.run(&mut self.recoveries) => Ok(end),
            // Here, and not in a task of its own: should it panic, this node must not go on without elections.
            never = pulse::always(running.clone(), timings) => match never {},
            never = running.commits() => match never {},
            () = looks_after => Err(Error::Raft("the peers' port is closed".to_owned())),
        }
    }

    async fn start(&self, cluster: ClusterId, epoch: Epoch, belongs: bool) -> Result<Arc<Running>, Error> {
        let node = self.options.marker.node;
        let (network, port) = (self.network.clone(), self.options.listen.port());
        let (places, elections) = (MemberPlaces::default(), Elections::default());
        let links = Links { network, node, cluster, epoch, port, places, elections };
        let store = self.options.store.clone();
        Running::start(store, links, self.options.timings, belongs).await.map_err(Error::Storage)
    }

    async fn mark(&mut self, cluster: ClusterId, epoch: Epoch) -> Result<(), Error> {
        let marker = self.options.marker.clone();
        self.options.marker = marker::join(&self.options.store, marker, cluster, epoch).await?;
        Ok(())
    }

    /// Everything is forgotten; what comes is another node.
    async fn start_over(&mut self) -> Result<(), Error> {
        let fresh = NodeId(self.options.dice.roll());
        let claimant = Claimant { fresh, ..self.options.claimant.clone() };
        self.options.marker = marker::start_over(&self.options.store, claimant).await?;
        Ok(())
    }

    async fn reform(&mut self, running: &Running) -> Result<(), Error> {
        let node = running.identity.node;
        let known = running.configuration().members.remove(&node);
        let Some(member) = known else { return Ok(()) };
        let marker = self.options.marker.clone();
        self.options.marker = reform::alone(&self.options.store, marker, node, member).await.map_err(Error::Storage)?;
        Ok(())
    }

    fn rounds(&self) -> Rounds {
        Rounds::new(
            self.front.clone(),
            self.options.directory.clone(),
            self.network.clone(),
            self.options.listen.port(),
            self.options.network.is_some(),
        )
    }

    fn member(&self, listed: &[Listed]) -> Option<Member> {
        let mine = listed.iter().find(|peer| peer.uid == self.options.uid)?;
        let bound_to_pod = self.options.claimant.bound_to_pod;
        Some(Member { address: mine.address, pod: mine.uid.clone(), bound_to_pod })
    }
}

fn myself(options: &Options) -> Myself {
    Myself {
        uid: options.uid.clone(),
        node: options.marker.node,
        boot: options.boot,
        bound_to_pod: options.claimant.bound_to_pod,
    }
}
