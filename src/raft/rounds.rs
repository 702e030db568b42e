//! Rounds: a fresh list, a probe to each peer, a look at the pods of the silent, a ruling.
//!
//! The async shell around [`crate::domain::bootstrap`]: one serial task runs it. Owns no decision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::front::Front;
use super::ports::Directory;
use super::rpc::client::{CallError, Link};
use super::rpc::frame::FrameError;
use super::rpc::message::{Request, Response};
use super::rpc::network::Network;
use crate::domain::bootstrap::{Decision, LOG_EVERY, Round, Ruling};
use crate::domain::ids::{ClusterId, PodUid};
use crate::domain::peers::{Heard, Listed, PodState, Probe, Silence};

/// A peer that is there answers in milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Runs rounds.
pub(super) struct Rounds {
    pub(super) front: Arc<Front>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) network: Arc<dyn Network>,
    pub(super) port: u16,
    /// We have an identity for peers.
    pub(super) identity: bool,
    told: Option<(Vec<String>, Instant)>,
}

/// What a round has found.
pub(super) struct Found {
    pub(super) listed: Vec<Listed>,
    pub(super) heard: BTreeMap<PodUid, Heard>,
    pub(super) ruling: Ruling,
}

impl Rounds {
    pub(super) fn new(
        front: Arc<Front>,
        directory: Arc<dyn Directory>,
        network: Arc<dyn Network>,
        port: u16,
        identity: bool,
    ) -> Self {
        Self { front, directory, network, port, identity, told: None }
    }

    /// One round. `None`: the peers could not be listed.
    pub(super) async fn run(&mut self) -> Option<Found> {
        let listed = self.listed().await?;
        let peers = self.front.with(|bootstrap| bootstrap.begin(&listed));
        let probe = self.front.with(|bootstrap| bootstrap.probe(&listed));
        let heard = match probe {
            Some(probe) => self.ask_all(&peers, probe).await,
            None => BTreeMap::new(),
        };
        let mut round = Round { listed, heard, second: None, identity: self.identity };
        let mut ruling = self.front.with(|bootstrap| bootstrap.decide(&round));
        if ruling.decision == Decision::ReadAgain {
            round.second = Some(self.listed().await?);
            ruling = self.front.with(|bootstrap| bootstrap.decide(&round));
        }
        self.tell(&ruling, &round);
        Some(Found { listed: round.listed, heard: round.heard, ruling })
    }

    async fn listed(&mut self) -> Option<Vec<Listed>> {
        match self.directory.listed().await {
            Ok(listed) => Some(listed),
            Err(why) => {
                self.say(vec![why]);
                None
            }
        }
    }

    async fn ask_all(&self, peers: &[Listed], probe: Probe) -> BTreeMap<PodUid, Heard> {
        let asked = peers.iter().map(|peer| self.ask(peer, probe.clone()));
        let answers = join_all(asked).await;
        let silent: Vec<Listed> =
            peers.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(peer, _)| peer.clone()).collect();
        let pods = if silent.is_empty() { BTreeMap::new() } else { self.directory.pods(&silent).await };
        let heard = peers.iter().zip(answers).map(|(peer, answer)| {
            let pod = pods.get(&peer.uid).copied().unwrap_or(PodState::Unknown);
            let heard = match answer {
                Ok(answer) => Heard::Answer(answer),
                Err(silence) => Heard::Silent(silence, pod),
            };
            (peer.uid.clone(), heard.of(&peer.uid, pod))
        });
        heard.collect()
    }

    async fn ask(&self, peer: &Listed, probe: Probe) -> Result<crate::domain::peers::Answer, Silence> {
        let address = SocketAddr::new(peer.address, self.port);
        let mut link = Link::new(self.network.clone(), address);
        match link.call(&Request::Probe(probe), PROBE_LIMIT).await {
            Ok(Response::Probe(answer)) => Ok(answer),
            Ok(_) => Err(Silence::Garbled("an answer of another kind".into())),
            Err(CallError::Late(_)) => Err(Silence::TimedOut),
            Err(CallError::Connect(_, error)) => Err(self.network.diagnose(address, &error).await),
            // With TLS 1.3 a refused client certificate shows only once something is read.
            Err(CallError::Frame(_, FrameError::Io(error))) => Err(self.network.diagnose(address, &error).await),
            Err(CallError::Frame(_, error)) => Err(Silence::Garbled(error.to_string().into())),
        }
    }

    fn tell(&mut self, ruling: &Ruling, round: &Round) {
        let mut lines: Vec<String> = ruling.reasons.iter().map(ToString::to_string).collect();
        match &ruling.decision {
            Decision::Conflict { clusters } => {
                let each: Vec<String> = clusters.iter().map(|cluster| with_members(*cluster, round)).collect();
                lines.push(format!("several clusters are behind this service ({}): joining none", each.join("; ")));
            }
            Decision::Wait | Decision::Join { .. } => {}
            _ => return,
        }
        self.say(lines);
    }

    /// Says why we wait: when it changes, and every ten seconds.
    fn say(&mut self, lines: Vec<String>) {
        let due = self.told.as_ref().is_none_or(|(said, at)| *said != lines || at.elapsed() >= LOG_EVERY);
        if !due {
            return;
        }
        for line in &lines {
            tracing::info!("waiting for peers: {line}");
        }
        self.told = Some((lines, Instant::now()));
    }

    /// Why we waited last.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.told.as_ref().map(|(lines, _)| lines.clone()).unwrap_or_default()
    }
}

/// A cluster, and the peers that say they belong to it: whoever has to decide which one stays looks for these.
fn with_members(cluster: ClusterId, round: &Round) -> String {
    let belongs = |peer: &&Listed| match round.heard.get(&peer.uid) {
        Some(Heard::Answer(answer)) => answer.standing.cluster().is_some_and(|(its, _)| its == cluster),
        _ => false,
    };
    let members: Vec<String> = round.listed.iter().filter(belongs).map(ToString::to_string).collect();
    if members.is_empty() { cluster.to_string() } else { format!("{cluster}: {}", members.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{BootId, Epoch, NodeId};
    use crate::domain::peers::{Answer, Standing};

    #[test]
    fn of_several_clusters_each_is_told_with_its_members() {
        let peer = |n: u8| Listed {
            uid: format!("uid-{n}").as_str().into(),
            name: format!("kv-{n}").into(),
            address: [10, 0, 0, n].into(),
        };
        let member = |n: u8, cluster| {
            let standing =
                Standing::Member { cluster: ClusterId(cluster), epoch: Epoch(0), ever_voter: true, leader: true };
            let (node, boot, uid) = (NodeId(n.into()), BootId(1), peer(n).uid);
            let answer = Answer {
                uid: uid.clone(),
                node,
                boot,
                bound_to_pod: true,
                standing,
                list: None,
                held: false,
                log: None,
            };
            (uid, Heard::Answer(answer))
        };
        let heard = [member(1, 7), member(2, 8), member(3, 7)].into();
        let round = Round { listed: vec![peer(1), peer(2), peer(3)], heard, second: None, identity: true };
        let told = |cluster| with_members(ClusterId(cluster), &round);
        assert_eq!(told(7), format!("{}: kv-1 (10.0.0.1), kv-3 (10.0.0.3)", ClusterId(7)));
        assert_eq!(told(8), format!("{}: kv-2 (10.0.0.2)", ClusterId(8)));
        assert_eq!(told(9), ClusterId(9).to_string(), "our own, of which nobody answers");
    }
}
