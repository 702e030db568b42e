//! Faults, one after another, from a seed; after each the service has to go on, and the cluster to be whole again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use testbed::{Direction, Signal};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::pods::Served;
use crate::trio::Trio;

/// Classes of faults.
const KINDS: [&str; 10] = [
    "kill the leader",
    "kill another",
    "pause",
    "cut off the leader",
    "one way",
    "bridge",
    "lose storage",
    "rolling restart",
    "seal Vault",
    "crash the control plane",
];
/// From a fault to the next push that is taken. Debug builds on busy machines; the targets are for others.
const SERVICE_GAP: Duration = Duration::from_secs(20);

/// What happened.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) counted: BTreeMap<&'static str, Vec<Duration>>,
    trace: Vec<String>,
}

impl Faults {
    /// For people.
    pub(crate) fn told(&self) -> String {
        let mut text = format!("{}\n", self.trace.join("\n"));
        for (kind, gaps) in &self.counted {
            let mut gaps: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
            gaps.sort_unstable();
            text += &format!("{kind}: {} times, ms to the next push: {gaps:?}\n", gaps.len());
        }
        text
    }

    /// Classes that never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| !self.counted.contains_key(kind)).collect()
    }
}

/// See the module.
pub(crate) struct Nemesis<'a> {
    trio: &'a Trio,
    cluster: &'a Cluster,
    dice: Dice,
    served: Served,
    faults: Faults,
    begun: Instant,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(trio: &'a Trio, cluster: &'a Cluster, seed: u64, served: Served) -> Self {
        let (dice, faults, begun) = (Dice(seed | 1), Faults::default(), Instant::now());
        Self { trio, cluster, dice, served, faults, begun }
    }

    /// For so long at least, and until each class has happened.
    pub(crate) async fn run(mut self, duration: Duration) -> Result<Faults> {
        let mut order: Vec<&'static str> = Vec::new();
        while self.begun.elapsed() < duration || !order.is_empty() || self.faults.counted.is_empty() {
            if order.is_empty() {
                order = KINDS.to_vec();
                for index in (1..order.len()).rev() {
                    order.swap(index, self.dice.below(index + 1));
                }
                // Further rounds end with the time.
                if !self.faults.counted.is_empty() {
                    order.truncate(1);
                }
            }
            let Some(kind) = order.pop() else { break };
            let told = self.faults.told();
            let fault = Box::pin(self.one(kind)).await;
            fault.with_context(|| {
                format!("{kind}, {} ms after the start; before:\n{told}", self.begun.elapsed().as_millis())
            })?;
        }
        Ok(self.faults)
    }

    async fn one(&mut self, kind: &'static str) -> Result<()> {
        let leader = self.trio.settled(3).await?;
        let pods = self.trio.pods().await?;
        let others: Vec<&String> = pods.iter().filter(|pod| **pod != leader).collect();
        let other = (*others[self.dice.below(others.len())]).clone();
        let any = pods[self.dice.below(pods.len())].clone();
        let hold = Duration::from_millis(200 + self.dice.below(2_800) as u64);
        self.faults.trace.push(format!("{:>7} ms {kind}: leader {leader}, {hold:?}", self.begun.elapsed().as_millis()));
        let bed = self.cluster.bed()?;
        let at = Instant::now();
        let before = self.served.count();
        let network = |pod: &str| bed.node_of(self.trio.namespace(), pod)?.network(self.trio.namespace(), pod);
        match kind {
            "kill the leader" => self.trio.signal(&leader, Signal::KILL)?,
            "kill another" => self.trio.signal(&other, Signal::KILL)?,
            "pause" => {
                self.trio.signal(&leader, Signal::STOP)?;
                sleep(hold).await;
                self.trio.signal(&leader, Signal::CONT)?;
            }
            "cut off the leader" => {
                self.trio.part(&leader).await?;
                sleep(hold).await;
                self.trio.heal(&leader).await?;
            }
            "one way" => {
                for other in &others {
                    network(&any)?.drop_packets(Direction::In, Some(network(other)?.ip.into())).await?;
                }
                sleep(hold).await;
                network(&any)?.let_packets_through().await?;
            }
            // The two others do not see each other, and the third sees both.
            "bridge" => {
                let [one, two] = others.as_slice() else { bail!("no two others") };
                network(one)?.drop_packets(Direction::In, Some(network(two)?.ip.into())).await?;
                network(one)?.drop_packets(Direction::Out, Some(network(two)?.ip.into())).await?;
                sleep(hold).await;
                network(one)?.let_packets_through().await?;
            }
            // In the same pod, so that it is known to be gone: another node takes its place at once.
            "lose storage" => {
                let was = self.trio.nodes().await?;
                let script = "rm -rf /var/lib/kubernetes-vault/*";
                self.cluster.shell(self.trio.namespace(), &any, crate::controller::NAME, script).await?;
                self.trio.signal(&any, Signal::KILL)?;
                self.trio.restarted(&[&any], &was).await?;
            }
            "rolling restart" => {
                let old = self.trio.uids().await?;
                let template = json!({"metadata": {"annotations": {"proc/rolled": before.to_string()}}});
                self.trio.patch("StatefulSet", &json!({"spec": {"template": template}})).await?;
                crate::cluster::eventually("three new replicas", crate::cluster::LIMIT, || async {
                    let new = self.trio.uids().await?;
                    Ok((new.len() == 3 && new.is_disjoint(&old)).then_some(()))
                })
                .await?;
            }
            "seal Vault" => {
                bed.vault()?.seal().await?;
                sleep(hold).await;
                bed.vault()?.unseal().await?;
            }
            _ => {
                bed.control_plane().crash().await;
                bed.control_plane().recover().await?;
            }
        }
        self.service_goes_on(kind, at, before).await
    }

    /// Until the next push that is taken. A fault that is over before the next pod is asked for had no gap.
    async fn service_goes_on(&mut self, kind: &'static str, at: Instant, before: u64) -> Result<()> {
        let healed = Instant::now();
        while self.served.count() == before {
            if healed.elapsed() > SERVICE_GAP {
                bail!("nothing was pushed for {SERVICE_GAP:?} after it was over");
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.faults.counted.entry(kind).or_default().push(at.elapsed());
        Ok(())
    }
}

/// xorshift: enough to choose faults.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or_default()
    }
}
