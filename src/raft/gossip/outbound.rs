//! The ways to peers: a task, a short queue and a connection for each address that something is said to.
//!
//! Owns the connections that we dialled. They are dialled when they are needed, and kept. Nothing waits for a peer: a
//! packet that finds its queue full, or its peer out of reach, is dropped, and SWIM says it again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Event;
use super::wire::{Hello, MAX_FRAME, Packet, Said};
use crate::domain::ids::NodeId;
use crate::raft::rpc::frame;
use crate::raft::rpc::network::{Connection, Network};

/// Addresses at once: five voters, their learners, and those that a rollout has just replaced.
const MAX_PEERS: usize = 64;

/// Packets that wait for one peer: a few seconds' worth. Older ones would be of no use.
const MAX_WAITING: usize = 32;

/// Connection, handshake and greeting, all of it. Longer than a probe waits makes no sense.
const DIAL_LIMIT: Duration = Duration::from_secs(1);

/// A packet fits into any socket's buffer: a peer that takes longer takes nothing any more.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// An address that could not be reached is not dialled again before this.
const REDIAL_PAUSE: Duration = Duration::from_millis(500);

/// A way that nobody uses is given up after this.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What is to be done at an address.
pub(super) enum Order {
    /// Find out who is there: [`Event::Met`] tells.
    Meet,
    /// Say this, if it is still that node.
    Say(NodeId, Said),
}

/// See the module.
pub(super) struct Outbound {
    network: Arc<dyn Network>,
    me: Hello,
    events: mpsc::Sender<Event>,
    peers: BTreeMap<SocketAddr, mpsc::Sender<Order>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Outbound {
    pub(super) fn new(
        network: Arc<dyn Network>,
        me: Hello,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
    ) -> Self {
        Self { network, me, events, peers: BTreeMap::new(), tasks: TaskTracker::new(), stop }
    }

    /// Has `order` carried out at `address`, or drops it.
    pub(super) fn send(&mut self, address: SocketAddr, order: Order) {
        let Some(orders) = self.peers.get(&address) else { return self.open(address, order) };
        if let Err(mpsc::error::TrySendError::Closed(order)) = orders.try_send(order) {
            self.open(address, order);
        }
    }

    fn open(&mut self, address: SocketAddr, order: Order) {
        self.peers.retain(|_, orders| !orders.is_closed());
        if self.peers.len() >= MAX_PEERS {
            return;
        }
        let (orders, waiting) = mpsc::channel(MAX_WAITING);
        let peer = Peer {
            network: self.network.clone(),
            me: self.me,
            address,
            orders: waiting,
            events: self.events.clone(),
            connection: None,
            failed: None,
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = peer.run() => {}
            }
        });
        if orders.try_send(order).is_ok() {
            self.peers.insert(address, orders);
        }
    }

    /// Gives up the way to `address`: what is stuck in it would hold up what is said to it later.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.peers.remove(&address);
    }

    /// Lets everything that waits be said, for `limit` at most.
    pub(super) async fn finish(mut self, limit: Duration) {
        self.peers.clear();
        self.tasks.close();
        let _ = timeout(limit, self.tasks.wait()).await;
        self.stop.cancel();
    }
}

/// One way.
struct Peer {
    network: Arc<dyn Network>,
    me: Hello,
    address: SocketAddr,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<Event>,
    /// With who is there.
    connection: Option<(Connection, Hello)>,
    failed: Option<Instant>,
}

impl Peer {
    /// Ends when nobody has used it for a while, or its sender is dropped.
    async fn run(mut self) {
        while let Ok(Some(order)) = timeout(IDLE_LIMIT, self.next()).await {
            self.carry_out(order).await;
        }
    }

    async fn next(&mut self) -> Option<Order> {
        if let Some((connection, _)) = &mut self.connection {
            tokio::select! {
                biased;
                order = self.orders.recv() => return order,
                // Nothing is ever said in this direction: it is the end.
                _ = connection.read_u8() => {}
            }
            self.connection = None;
        }
        self.orders.recv().await
    }

    async fn carry_out(&mut self, order: Order) {
        if self.connection.is_none() {
            if self.failed.is_some_and(|at| at.elapsed() < REDIAL_PAUSE) {
                return;
            }
            match timeout(DIAL_LIMIT, dial(&*self.network, self.address, &self.me)).await {
                Ok(Ok(dialled)) => (self.connection, self.failed) = (Some(dialled), None),
                Ok(Err(why)) => return self.out_of_reach(&why),
                Err(_) => return self.out_of_reach("no answer in time"),
            }
        }
        let Some((connection, hello)) = &mut self.connection else { return };
        let (target, said) = match order {
            Order::Meet => {
                let _ = self.events.try_send(Event::Met(hello.identity));
                return;
            }
            Order::Say(target, said) => (target, said),
        };
        // The address is another node's by now.
        if target != hello.identity.node {
            return;
        }
        let packet = Packet { home: self.me.home, source: self.me.identity.node, target, said };
        if !matches!(timeout(WRITE_LIMIT, frame::write(connection, &packet)).await, Ok(Ok(()))) {
            self.connection = None;
        }
    }

    fn out_of_reach(&mut self, why: &str) {
        if self.failed.is_none() {
            tracing::debug!(address = %self.address, "no gossip with it: {why}");
        }
        self.failed = Some(Instant::now());
    }
}

/// Finds out who is at `address`.
async fn dial(network: &dyn Network, address: SocketAddr, me: &Hello) -> Result<(Connection, Hello), String> {
    let mut connection = network.connect(address).await.map_err(|error| network.explain(&error))?;
    frame::write(&mut connection, me).await.map_err(|error| error.to_string())?;
    let hello = frame::read_within(&mut connection, MAX_FRAME).await;
    let hello: Hello = hello.map_err(|error| format!("no greeting: {error}"))?;
    me.welcomes(&hello).map_err(|why| why.to_string())?;
    Ok((connection, hello))
}
