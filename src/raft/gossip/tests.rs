//! Nodes on a network in memory, with paused time.

mod mesh;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::mesh::{Mesh, Socket};
use super::wire::{Hello, Home, Packet, Said};
use super::*;
use crate::domain::ids::{BootId, NodeId};
use crate::raft::rpc::frame;
use crate::raft::rpc::network::Connection;

const CLUSTER: ClusterId = ClusterId(7);

/// Counts, in order, with the time since the first.
#[derive(Default)]
struct Book {
    entries: Mutex<Vec<(Duration, Change, String)>>,
    first: OnceLock<Instant>,
    other_clusters: AtomicUsize,
}

impl GossipMeter for Book {
    fn changed(&self, change: Change, node: &str) {
        let after = self.first.get_or_init(Instant::now).elapsed();
        self.entries.lock().unwrap().push((after, change, node.to_owned()));
    }

    fn met_another_cluster(&self) {
        self.other_clusters.fetch_add(1, Ordering::Relaxed);
    }
}

struct Node {
    handle: Handle,
    book: Arc<Book>,
    woken: Arc<Notify>,
    seeds: watch::Sender<Vec<SocketAddr>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    fn sees(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> = self.handle.active().iter().map(|member| member.node.0).collect();
        nodes.sort_unstable();
        nodes
    }

    fn counted(&self, change: Change) -> Vec<String> {
        let entries = self.history().into_iter().filter(|(_, what, _)| *what == change);
        let mut nodes: Vec<String> = entries.map(|(_, _, node)| node).collect();
        nodes.sort_unstable();
        nodes
    }

    fn history(&self) -> Vec<(Duration, Change, String)> {
        self.book.entries.lock().unwrap().clone()
    }
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::new(ip(n), PORT)
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

async fn start(mesh: &Arc<Mesh>, n: u8, boot: u64, cluster: ClusterId, seeds: &[u8]) -> Node {
    let (seeds, seen) = watch::channel(seeds.iter().copied().map(at).collect());
    let (book, woken) = (Arc::new(Book::default()), Arc::new(Notify::new()));
    let wake = woken.clone();
    let options = Options {
        network: Arc::new(Socket(mesh.clone(), ip(n))),
        listen: at(n),
        identity: Identity::new(NodeId(n.into()), at(n), BootId(boot)),
        cluster,
        epoch: Epoch(0),
        seeds: seen,
        meter: book.clone(),
        wake: Arc::new(move || wake.notify_one()),
        seed: u64::from(n) + boot,
    };
    let (service, handle) = Service::bind(options).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(service.run(stop.clone()));
    Node { handle, book, woken, seeds, stop, task }
}

/// Three that know each other. Only one of them is a seed.
async fn three(mesh: &Arc<Mesh>) -> [Node; 3] {
    let nodes = [
        start(mesh, 1, 1, CLUSTER, &[]).await,
        start(mesh, 2, 1, CLUSTER, &[1]).await,
        start(mesh, 3, 1, CLUSTER, &[1]).await,
    ];
    until("all three see each other", || {
        nodes[0].sees() == [2, 3] && nodes[1].sees() == [1, 3] && nodes[2].sees() == [1, 2]
    })
    .await;
    nodes
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = timeout(Duration::from_secs(120), async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(held.await.is_ok(), "not within two minutes: {what}");
}

#[tokio::test(start_paused = true)]
async fn three_nodes_find_each_other_by_one_seed() {
    let mesh = Arc::new(Mesh::default());
    let nodes = three(&mesh).await;
    assert_eq!(nodes[0].counted(Change::Joined), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    timeout(Duration::from_secs(1), nodes[0].woken.notified()).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    for node in &nodes {
        assert_eq!(node.history().len(), 3, "nothing else happens in ten quiet minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_has_failed_and_is_reaped_later() {
    let mesh = Arc::new(Mesh::default());
    let nodes = three(&mesh).await;
    nodes[2].stop.cancel();
    until("its death is seen", || nodes[0].sees() == [2] && nodes[1].sees() == [1]).await;
    for node in &nodes[..2] {
        assert_eq!(node.counted(Change::Failed), ["10.0.0.3"]);
        assert_eq!(node.counted(Change::Left), [""; 0]);
    }
    sleep(Duration::from_secs(601)).await;
    assert_eq!(nodes[0].counted(Change::Reaped), ["10.0.0.3"]);
    assert_eq!(nodes[1].counted(Change::Reaped), ["10.0.0.3"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_has_left_at_once() {
    let mesh = Arc::new(Mesh::default());
    let [one, two, three] = three(&mesh).await;
    timeout(LEAVE_LIMIT * 2, three.handle.leave()).await.unwrap();
    three.task.await.unwrap();
    sleep(Duration::from_millis(100)).await;
    for node in [&one, &two] {
        assert_eq!(node.counted(Change::Left), ["10.0.0.3"]);
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!((one.counted(Change::Failed), two.counted(Change::Failed)), (vec![], vec![]));
    assert_eq!((one.sees(), two.sees()), (vec![2], vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_another_member_at_the_same_address() {
    let mesh = Arc::new(Mesh::default());
    let [one, two, three] = three(&mesh).await;
    three.stop.cancel();
    three.task.await.unwrap();
    let _again = start(&mesh, 3, 2, CLUSTER, &[1]).await;
    let boots = |node: &Node| -> Vec<u64> {
        node.handle.active().iter().filter(|member| member.node.0 == 3).map(|member| member.boot.0).collect()
    };
    until("only its second life is there", || boots(&one) == [2] && boots(&two) == [2]).await;
    assert_eq!(one.counted(Change::Failed), ["10.0.0.3"]);
    assert_eq!(one.counted(Change::Joined).iter().filter(|node| *node == "10.0.0.3").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_cut_off_comes_back_when_the_network_does() {
    let mesh = Arc::new(Mesh::default());
    let nodes = three(&mesh).await;
    mesh.cut(ip(3));
    until("it is taken for dead", || nodes[0].sees() == [2] && nodes[2].sees().is_empty()).await;
    mesh.heal(ip(3));
    until("it is back", || nodes[0].sees() == [2, 3] && nodes[1].sees() == [1, 3] && nodes[2].sees() == [1, 2]).await;
}

#[test]
fn the_same_seeds_give_the_same_history() {
    let lives = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mesh = Arc::new(Mesh::default());
            let nodes = three(&mesh).await;
            nodes[2].stop.cancel();
            sleep(Duration::from_secs(30)).await;
            [nodes[0].history(), nodes[1].history()]
        })
    };
    let first = lives();
    assert!(first[0].iter().any(|(_, what, _)| *what == Change::Failed));
    assert_eq!(first, lives());
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_becomes_known_later_is_greeted_at_once() {
    let mesh = Arc::new(Mesh::default());
    let one = start(&mesh, 1, 1, CLUSTER, &[]).await;
    let two = start(&mesh, 2, 1, CLUSTER, &[2]).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(two.sees(), [0; 0]);
    two.seeds.send_replace(vec![at(1), at(2)]);
    sleep(Duration::from_millis(100)).await;
    assert_eq!((one.sees(), two.sees()), (vec![2], vec![1]));
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_no_peer() {
    let mesh = Arc::new(Mesh::default());
    let one = start(&mesh, 1, 1, CLUSTER, &[2]).await;
    let two = start(&mesh, 2, 1, ClusterId(8), &[1]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((one.sees(), two.sees()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_port_is_free_again_after_a_stop() {
    let mesh = Arc::new(Mesh::default());
    let one = start(&mesh, 1, 1, CLUSTER, &[]).await;
    let socket = Socket(mesh.clone(), ip(1));
    assert!(socket.bind(at(1)).await.is_err());
    one.stop.cancel();
    one.task.await.unwrap();
    assert!(socket.bind(at(1)).await.is_ok());
}

/// A stranger with the cluster's identity, as node 9.
fn hello(cluster: ClusterId) -> Hello {
    Hello { home: Home { cluster, epoch: Epoch(0) }, identity: Identity::new(NodeId(9), at(9), BootId(1)) }
}

fn packet(said: Said) -> Packet {
    let home = Home { cluster: CLUSTER, epoch: Epoch(0) };
    Packet { home, source: NodeId(9), target: NodeId(1), said }
}

/// The other end has closed, and has said nothing more.
async fn closed(connection: &mut Connection) -> bool {
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(1), connection.read_to_end(&mut rest)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

// Bad-input table: gossip of another cluster or epoch, for another node, in another's name, garbage, oversized.
#[tokio::test(start_paused = true)]
async fn whatever_is_not_for_this_node_closes_the_connection() {
    let mesh = Arc::new(Mesh::default());
    let one = start(&mesh, 1, 1, CLUSTER, &[]).await;
    let stranger = Socket(mesh.clone(), ip(9));
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00\x00\x00\x01\x01\xff", b"\x00\x01\x00\x00\x01"] {
        let mut connection = stranger.connect(at(1)).await.unwrap();
        connection.write_all(bytes).await.unwrap();
        assert!(closed(&mut connection).await, "{bytes:?}");
    }
    let mut wrong = hello(CLUSTER);
    wrong.home.epoch = Epoch(1);
    for greeting in [hello(ClusterId(8)), wrong] {
        let mut connection = stranger.connect(at(1)).await.unwrap();
        frame::write(&mut connection, &greeting).await.unwrap();
        assert!(closed(&mut connection).await, "{greeting:?}");
    }
    let me = hello(CLUSTER).identity;
    let bye = || packet(Said::Leaving(me));
    for bad in [
        packet(Said::Swim(b"garbage".to_vec())),
        packet(Said::Swim(vec![])),
        packet(Said::Swim(vec![0; 4 << 10])),
        packet(Said::Leaving(Identity::new(NodeId(2), at(2), BootId(1)))),
        Packet { source: NodeId(2), ..bye() },
        Packet { target: NodeId(2), ..bye() },
        Packet { home: Home { cluster: ClusterId(8), epoch: Epoch(0) }, ..bye() },
        Packet { home: Home { cluster: CLUSTER, epoch: Epoch(1) }, ..bye() },
    ] {
        let mut connection = stranger.connect(at(1)).await.unwrap();
        frame::write(&mut connection, &hello(CLUSTER)).await.unwrap();
        let answer: Hello = frame::read(&mut connection).await.unwrap();
        assert_eq!(answer.identity.node, NodeId(1));
        frame::write(&mut connection, &bad).await.unwrap();
        assert!(closed(&mut connection).await, "{bad:?}");
    }
    // What was right goes on.
    let two = start(&mesh, 2, 1, CLUSTER, &[1]).await;
    until("they meet", || one.sees() == [2] && two.sees() == [1]).await;
}

// Members of two clusters have leaders, and ask nobody who they are: without this nobody would hear of it.
#[tokio::test(start_paused = true)]
async fn each_of_two_clusters_behind_one_service_counts_the_other_and_keeps_to_itself() {
    let mesh = Arc::new(Mesh::default());
    let seeds = [1, 2, 3];
    let one = start(&mesh, 1, 1, CLUSTER, &seeds).await;
    let two = start(&mesh, 2, 1, CLUSTER, &seeds).await;
    let apart = start(&mesh, 3, 1, ClusterId(8), &seeds).await;
    let met = |node: &Node| node.book.other_clusters.load(Ordering::Relaxed);
    until("each has met the other", || met(&one) > 0 && met(&two) > 0 && met(&apart) > 0).await;
    assert_eq!((one.sees(), two.sees(), apart.sees()), (vec![2], vec![1], vec![]));
    let before = met(&one);
    until("it goes on to count, so that an alert stays", || met(&one) > before).await;
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_take_all_places() {
    let mesh = Arc::new(Mesh::default());
    let one = start(&mesh, 1, 1, CLUSTER, &[]).await;
    let stranger = Socket(mesh.clone(), ip(9));
    let two = start(&mesh, 2, 1, CLUSTER, &[1]).await;
    until("they meet", || one.sees() == [2] && two.sees() == [1]).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(stranger.connect(at(1)).await.unwrap());
    }
    let three = start(&mesh, 3, 1, CLUSTER, &[1]).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!((one.sees(), three.sees()), (vec![2, 3], vec![1, 2]));
    assert!(closed(&mut held[0]).await, "the flood's own oldest makes room");
}
