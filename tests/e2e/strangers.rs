//! Who does not belong to the cluster gets nothing from its ports, and cannot keep it from serving.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use kubernetes_vault::tls::Channel;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::failover::{create, served};
use super::impostors::Impostors;
use super::stage::{Plan, controller_token};
use super::trio::{Trio, lone_pod};

/// Gossip and Raft.
const PORTS: [(u16, Channel); 2] = [(45_678, Channel::Gossip), (45_679, Channel::Raft)];
/// The controller's limit for a handshake is 2 s.
pub(crate) const HUNG_UP: Duration = Duration::from_secs(15);
/// What a stranger may read: a TLS alert.
const ALERT: usize = 64;

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("a_stranger_on_the_peers_ports_learns_nothing_and_service_goes_on", On::Testbed, |cluster| {
        ports(cluster).boxed_local()
    }),
    ("a_replica_with_another_token_says_why_it_joins_nothing_and_service_goes_on", On::Testbed, |cluster| {
        odd_one(cluster).boxed_local()
    }),
];

async fn ports(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan::new("strangers")).await?;
    let leader = trio.settled(3).await?;
    let address = cluster.bed()?.node_of(trio.namespace(), &leader)?.network(trio.namespace(), &leader)?.ip;
    for (port, channel) in PORTS {
        // Gossip begins once its replica knows who it is.
        let opens = || async { Ok(TcpStream::connect((address, port)).await.ok().map(drop)) };
        eventually(&format!("open port {port}"), LIMIT, opens).await?;
        for words in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00garbage", &[0xff; 4096]] {
            let mut stream = TcpStream::connect((address, port)).await?;
            // It may have hung up at the first bytes.
            let _ = stream.write_all(words).await;
            let mut answer = Vec::new();
            let ended = timeout(HUNG_UP, stream.read_to_end(&mut answer)).await;
            ended.with_context(|| format!("port {port} keeps a stranger that says {} bytes", words.len()))?.ok();
            ensure!(answer.len() <= ALERT, "port {port} told a stranger {answer:?}");
        }
        let impostors = Impostors::of(trio.namespace(), &trio.stage.token, channel)?;
        impostors.are_refused(address, port).await?;
        impostors.cannot_replay(channel, address, port).await?;
    }
    let pods = create(&trio.stage, "web", 2).await?;
    served(&trio, &pods).await?;
    ensure!(trio.settled(3).await? == leader, "strangers brought another leader");
    trio.served_once(2).await
}

/// The fourth one is of the same service, and has another Vault token.
async fn odd_one(cluster: Arc<Cluster>) -> Result<()> {
    let trio = Trio::up(&cluster, Plan::new("odd")).await?;
    trio.settled(3).await?;
    let token = controller_token(&cluster, "odd").await?;
    let meta = json!({"name": "odd", "namespace": trio.namespace()});
    let data = json!({"addr": cluster.vault.for_pods, "token": token});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})).await?;
    let mut pod = lone_pod(trio.namespace(), "odd")?;
    for variable in pod["spec"]["containers"][0]["env"].as_array_mut().context("no environment")? {
        if let Some(reference) = variable.pointer_mut("/valueFrom/secretKeyRef") {
            reference["name"] = json!("odd");
        }
    }
    cluster.apply(&pod).await?;
    let told = eventually("reason in the log of the odd one", LIMIT, || async {
        let log = cluster.logs(trio.namespace(), "odd", "kubernetes-vault").await?;
        Ok(log.lines().find(|line| line.contains("waiting for peers")).map(str::to_owned))
    });
    let told = trio.blame(told.await).await?;
    eprintln!("the odd one says: {told}");
    ensure!(trio.status("odd").await?["cluster"].is_null(), "it has joined a cluster");
    let pods = create(&trio.stage, "web", 2).await?;
    served(&trio, &pods).await?;
    trio.served_once(2).await
}
