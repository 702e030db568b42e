//! Gossip: who of the peers is there, by SWIM, over connections of our own with the cluster's identity.
//!
//! Purpose: to notice within seconds that a peer has come, gone or died. Gossip informs, Raft decides: all that happens
//! here is that the membership's reconciliation is woken, and that metrics are counted. Owns the gossip port. Must never
//! be asked whether a node is a member, and must never speak with another cluster or in another node's name.

mod identity;
mod inbound;
mod outbound;
mod swim;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::inbound::Inbound;
use self::outbound::{Order, Outbound};
use self::swim::Swim;
use self::wire::{Hello, Home, Said};
use super::rpc::network::{Acceptor, Network};
use crate::domain::ids::{ClusterId, Epoch};

pub use self::identity::Identity;
pub use self::swim::Change;

/// The gossip port, as the Go version has it.
pub const PORT: u16 = 45_678;

/// Packets that have come in and wait. A packet is at most 2 KiB; a usual cluster sends a few dozen a second.
const MAX_WAITING: usize = 256;

/// Seeds that are no members are greeted this often: a peer that starts late, or that was cut off, is found by it.
const GREET_EVERY: Duration = Duration::from_secs(5);

/// Seeds that are heeded, and more than that many replicas nobody has.
const MAX_SEEDS: usize = 64;

/// Addresses that get a label of their own in metrics, in the life of a process: pods of eight rollouts of three
/// replicas. Each of them costs up to four series, and the page is to stay small.
pub const MAX_LABELS: usize = 24;

/// The label of all further ones.
const OTHER_LABEL: &str = "other";

/// How long a leaving node tries to say so.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Where changes are counted.
pub trait GossipMeter: Send + Sync + 'static {
    /// `change` has happened to the node at the address `node`: an IP, or `other` beyond a bounded number of them.
    /// This node's own start is a [`Change::Joined`], as in the Go version.
    fn changed(&self, change: Change, node: &str);

    /// A peer behind our service belongs to another cluster. Each greeting of it counts.
    fn met_another_cluster(&self);
}

/// What gossip needs to know.
pub struct Options {
    /// The way to peers.
    pub network: Arc<dyn Network>,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Who we are. Its address is the one that peers dial.
    pub identity: Identity,
    /// Our cluster.
    pub cluster: ClusterId,
    /// And how often it was formed anew.
    pub epoch: Epoch,
    /// Gossip addresses where peers may be. Our own may be among them.
    pub seeds: watch::Receiver<Vec<SocketAddr>>,
    /// Where changes are counted.
    pub meter: Arc<dyn GossipMeter>,
    /// Called after each change. It must not block.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// All random choices come from it.
    pub seed: u64,
}

/// Why there is no gossip.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, or is not ours to take.
    #[error("the gossip port {address} cannot be bound")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// What happens outside of SWIM.
enum Event {
    /// A peer has said something.
    Said(Said),
    /// This one is at an address that we were to look at.
    Met(Identity),
}

/// See the module.
pub struct Service {
    options: Options,
    acceptor: Box<dyn Acceptor>,
    active: watch::Sender<Vec<Identity>>,
    leave: CancellationToken,
    ended: DropGuard,
}

/// What can be asked of a running [`Service`].
#[derive(Clone)]
pub struct Handle {
    active: watch::Receiver<Vec<Identity>>,
    leave: CancellationToken,
    ended: CancellationToken,
}

impl Handle {
    /// The peers that are there, as gossip believes. For display, never for a decision.
    pub fn active(&self) -> Vec<Identity> {
        self.active.borrow().clone()
    }

    /// Tells all peers that this node goes for good, and ends the service. Takes a second at most.
    pub async fn leave(&self) {
        self.leave.cancel();
        self.ended.cancelled().await;
    }
}

impl Service {
    /// Takes the port. Nothing is said before [`Service::run`].
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn bind(options: Options) -> Result<(Self, Handle), Error> {
        let address = options.listen;
        let bound = options.network.bind(address).await;
        let acceptor = bound.map_err(|cause| Error::Bind { address, cause })?;
        let (active, seen) = watch::channel(Vec::new());
        let (leave, ended) = (CancellationToken::new(), CancellationToken::new());
        let handle = Handle { active: seen, leave: leave.clone(), ended: ended.clone() };
        Ok((Self { options, acceptor, active, leave, ended: ended.drop_guard() }, handle))
    }

    /// Gossips until `stop`, or until [`Handle::leave`]. With `stop` nothing is said: peers find out. The port is free
    /// again when this has returned.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut options, acceptor, active, leave, ended: _ended } = self;
        // Ends what was spawned, also where this future is dropped.
        let tasks = CancellationToken::new();
        let _end = tasks.clone().drop_guard();
        let home = Home { cluster: options.cluster, epoch: options.epoch };
        let hello = Hello { home, identity: options.identity };
        let (events, mut incoming) = mpsc::channel(MAX_WAITING);
        let inbound =
            Inbound::new(options.network.clone(), hello, events.clone(), options.meter.clone(), tasks.clone());
        let accepting = tokio::spawn(inbound.run(acceptor));
        let mut core = Core {
            swim: Swim::new(options.identity, options.seed, Instant::now()),
            outbound: Outbound::new(options.network.clone(), hello, events, tasks.clone()),
            meter: options.meter,
            wake: options.wake,
            labels: BTreeSet::new(),
            active,
        };
        core.count(Change::Joined, options.identity.address.ip());
        let mut greet_at = Instant::now();
        let mut seeds_change = true;
        loop {
            let tick = core.swim.next_tick();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = leave.cancelled() => break,
                () = sleep_until(tick.unwrap_or(greet_at)), if tick.is_some() => core.swim.tick(Instant::now()),
                () = sleep_until(greet_at) => {
                    core.greet(&options.seeds.borrow_and_update());
                    greet_at = Instant::now() + GREET_EVERY;
                }
                changed = options.seeds.changed(), if seeds_change => {
                    seeds_change = changed.is_ok();
                    greet_at = Instant::now();
                }
                Some(event) = incoming.recv() => core.handle(event),
            }
            core.carry_out();
        }
        if leave.is_cancelled() {
            core.say_goodbye().await;
        }
        tasks.cancel();
        if accepting.await.is_err() {
            tracing::error!("the gossip port's listener died; this is a bug");
        }
    }
}

/// SWIM and the world.
struct Core {
    swim: Swim,
    outbound: Outbound,
    meter: Arc<dyn GossipMeter>,
    wake: Arc<dyn Fn() + Send + Sync>,
    labels: BTreeSet<IpAddr>,
    active: watch::Sender<Vec<Identity>>,
}

impl Core {
    /// Looks who is at those seeds where no member is.
    fn greet(&mut self, seeds: &[SocketAddr]) {
        let mut there: BTreeSet<SocketAddr> = self.swim.active().iter().map(|member| member.address).collect();
        there.insert(self.swim.me().address);
        for seed in seeds.iter().take(MAX_SEEDS).filter(|seed| !there.contains(seed)) {
            self.outbound.send(*seed, Order::Meet);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Met(peer) => self.swim.announce(peer, now),
            Event::Said(Said::Swim(packet)) => self.swim.heard(&packet, now),
            Event::Said(Said::Leaving(member)) => self.swim.leaves(member, now),
        }
    }

    /// Sends what SWIM wants sent, and tells what it has found out.
    fn carry_out(&mut self) {
        for (to, packet) in self.swim.take_outgoing() {
            self.outbound.send(to.address, Order::Say(to.node, Said::Swim(packet)));
        }
        let news = self.swim.take_news();
        if news.is_empty() {
            return;
        }
        for (change, member) in news {
            tracing::info!(node = %member.node, address = %member.address, "gossip: a peer {}", in_words(change));
            if matches!(change, Change::Left | Change::Failed) {
                self.outbound.forget(member.address);
            }
            self.count(change, member.address.ip());
        }
        self.active.send_replace(self.swim.active().into_iter().collect());
        (self.wake)();
    }

    fn count(&mut self, change: Change, address: IpAddr) {
        if self.labels.len() < MAX_LABELS {
            self.labels.insert(address);
        }
        if self.labels.contains(&address) {
            self.meter.changed(change, &address.to_string());
        } else {
            self.meter.changed(change, OTHER_LABEL);
        }
    }

    async fn say_goodbye(mut self) {
        let me = self.swim.me();
        for member in self.swim.active() {
            self.outbound.send(member.address, Order::Say(member.node, Said::Leaving(me)));
        }
        self.outbound.finish(LEAVE_LIMIT).await;
    }
}

fn in_words(change: Change) -> &'static str {
    match change {
        Change::Joined => "has joined",
        Change::Left => "has left",
        Change::Failed => "has failed",
        Change::Reaped => "that went earlier is forgotten",
    }
}
