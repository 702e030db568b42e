//! Raft's frames that nobody may answer: for a node that has lost its storage, and for one that never was.
//!
//! A candidate asks whoever is at a voter's address. If that voter's storage is gone, nobody is there who could vote.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kubernetes_vault::domain::ids::{ClusterId, Epoch, NodeId};
use kubernetes_vault::raft::rpc::client::Link;
use kubernetes_vault::raft::rpc::message::{Address, RaftRequest, Request, Response};
use openraft::raft::VoteRequest;

use super::node::PORT;
use super::wire::Wire;
use super::{Sim, Site0};
use crate::history::{Millis, What};

/// How often, and for how long, a vote is asked of a node that is not there any more.
const EVERY: Millis = 60;
const TIMES: u64 = 15;

const LIMIT: Duration = Duration::from_millis(400);

/// What a frame needs to name.
#[derive(Clone, Copy)]
struct Named {
    cluster: ClusterId,
    epoch: Epoch,
    source: NodeId,
    target: NodeId,
    term: u64,
}

/// Asks a running node in the name of a node that it is not.
pub(crate) fn knock(sim: &mut Sim) -> bool {
    let Some(leader) = sim.leader() else { return false };
    let Some((_, others)) = whoever_asks(sim, leader) else { return false };
    let target = NodeId(sim.rng.roll());
    ask(sim, leader, Named { target, ..others });
    true
}

/// Asks the address of `n`, which has just lost its storage, for the vote of the node that it was.
pub(crate) fn ask_for_the_dead(sim: &mut Sim, n: u8) {
    let Some((_, named)) = whoever_asks(sim, n) else { return };
    for time in 1..=TIMES {
        sim.after(time * EVERY, move |sim| ask(sim, n, named));
    }
}

/// Another node, and how it would address the node that `n` was.
fn whoever_asks(sim: &Sim, n: u8) -> Option<(u8, Named)> {
    let (asks, seen) = sim.replicas.iter().find_map(|(other, replica)| {
        let process = replica.process.as_ref().filter(|_| *other != n)?;
        Some((*other, process.handle.seen()?))
    })?;
    let ip = sim.ip(n);
    let member = seen.members.iter().find(|member| member.member.address == ip)?;
    let (cluster, epoch, source) = (seen.cluster, seen.epoch, seen.node);
    Some((asks, Named { cluster, epoch, source, target: member.node, term: seen.term.0 }))
}

fn ask(sim: &mut Sim, n: u8, named: Named) {
    let ip = sim.ip(n);
    let asker = sim.replicas.iter().find(|(other, replica)| **other != n && replica.process.is_some());
    let Some(process) = asker.and_then(|(_, replica)| replica.process.as_ref()) else { return };
    let Site0 { world, ip: me, .. } = process.site.clone();
    process.runtime.spawn(async move {
        let Named { cluster, epoch, source, target, term } = named;
        let vote =
            VoteRequest { vote: openraft::Vote::new(term, source), last_log_id: None, leadership_transfer: false };
        let request = Request::Raft(Address { cluster, epoch, source, target }, RaftRequest::Vote(vote));
        let mut link = Link::new(Arc::new(Wire { ip: me, world: world.clone() }), SocketAddr::new(ip, PORT));
        if let Ok(Response::Raft(_)) = link.call(&request, LIMIT).await {
            world.lock().note(What::AnsweredForAnother { n, target });
        }
    });
}
