//! The world of the simulation: pods that run the state machine step by step, and what goes wrong around them.
//!
//! The world is as kind as the module's docs ask for: a living pod does not vanish from the list, and a voter that is
//! restarting with its storage is not called "not running". Reads that are older than what was read before, and
//! statuses that lag behind, are unkind enough each to have a world of their own: see [`Reads`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::*;
use crate::domain::ids::{BootId, NodeId};
use proptest::prelude::*;

/// What a node's serial task is about to do next.
#[derive(Debug)]
enum Task {
    Read,
    Begin(Vec<Listed>),
    Probe(Round, Vec<Listed>),
    ReadPods(Round, Vec<PodUid>),
    Decide(Round),
    ReadAgain(Round),
    Commit(ClusterId),
    Join(Listed, ClusterId),
}

struct Process {
    /// The oldest list that it reads.
    since: usize,
    /// Who relies on which answer of it, kept beside the rules, so that a promise that they forget is found.
    promised: BTreeMap<PodUid, (BootId, Vec<PodUid>)>,
    bootstrap: Bootstrap,
    task: Task,
}

struct Pod {
    me: Listed,
    exists: bool,
    listed: bool,
    node: NodeId,
    stored: Standing,
    /// Started before.
    started: bool,
    process: Option<Process>,
}

/// What the API server's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Lists and pods as they are.
    Fresh,
    /// The same, but pods may not be read.
    ListsAlone,
    /// Lists may be older than those before, within limits (see `World::list`); no pod that exists is said not to run.
    Stale,
    /// Pod 0 is said not to run until it has initialised.
    Lagging,
}

pub(super) struct World {
    pods: Vec<Pod>,
    cuts: BTreeSet<(usize, usize)>,
    drawn: u64,
    reads: Reads,
    /// All lists that there were.
    lists: Vec<Vec<Listed>>,
    pub(super) initialised: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// With a read of the list that many changes ago, where reads are stale.
    Step(usize, usize),
    Start(usize),
    Crash(usize, bool),
    Spawn,
    List(usize),
    Delete(usize),
    Unlist(usize),
    Cut(usize, usize),
    Heal,
    Promote(usize),
}

const STORAGE_LOST: Standing = Standing::Uninitialised;
pub(super) const MOST_PODS: usize = 7;

impl World {
    pub(super) fn new(pods: usize, reads: Reads) -> Self {
        let (cuts, lists) = (BTreeSet::new(), vec![Vec::new()]);
        let mut world = Self { pods: Vec::new(), cuts, drawn: 0, reads, lists, initialised: 0 };
        (0..pods).for_each(|_| world.spawn());
        world
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn spawn(&mut self) {
        let (at, node) = (self.pods.len(), NodeId(self.draw()));
        // Not in the order of birth: the smallest uid may come last.
        let uid = PodUid::from(format!("{}-uid", ["d", "b", "f", "a", "g", "c", "e"][at]).as_str());
        let me = Listed { uid, name: format!("pod-{at}").into(), address: IpAddr::from([10, 0, 0, at as u8]) };
        let (exists, listed, started, stored) = (true, false, false, STORAGE_LOST);
        self.pods.push(Pod { me, exists, listed, node, stored, started, process: None });
    }

    pub(super) fn start(&mut self, at: usize) {
        let (boot, latest) = (BootId(self.draw()), self.lists.len() - 1);
        let pod = &mut self.pods[at];
        if pod.exists && pod.process.is_none() {
            let me = Myself { uid: pod.me.uid.clone(), node: pod.node, boot, bound_to_pod: true };
            let since = if pod.started { latest } else { 0 };
            pod.started = true;
            pod.process = Some({
                let (bootstrap, promised) = (Bootstrap::new(me, pod.stored, None), BTreeMap::new());
                Process { since, promised, bootstrap, task: Task::Read }
            });
        }
    }

    pub(super) fn set_listed(&mut self, at: usize, listed: bool) {
        self.pods[at].listed = listed;
        let list: Vec<_> = self.pods.iter().filter(|pod| pod.listed).map(|pod| pod.me.clone()).collect();
        if self.lists.last() != Some(&list) {
            self.lists.push(list);
        }
    }

    /// What a read gives. A stale one is no older than what these two allow, each for a hole that the module's docs
    /// name: one who restarts has forgotten its promises, so it reads nothing from before its restart; and a voter to
    /// whom the reader is not bound is always named, since nothing else would tell of it (but a voter reads anything).
    fn list(&self, at: usize, back: usize) -> Vec<Listed> {
        let (latest, process) = (self.lists.len() - 1, self.pods[at].process.as_ref());
        let Some(process) = process.filter(|_| self.reads == Reads::Stale) else { return self.lists[latest].clone() };
        let bound = |me: &Listed| process.promised.contains_key(&me.uid);
        let named = |list: &[Listed]| {
            let mut voters = self.pods.iter().filter(|pod| pod.exists && pod.listed && pod.stored.ever_voter());
            self.pods[at].stored.ever_voter() || voters.all(|voter| bound(&voter.me) || list.contains(&voter.me))
        };
        let mut oldest = latest.saturating_sub(back).max(process.since)..=latest;
        oldest.find_map(|nth| Some(&self.lists[nth]).filter(|list| named(list))).unwrap_or(&self.lists[latest]).clone()
    }

    fn find(&self, uid: &PodUid) -> usize {
        self.pods.iter().position(|pod| pod.me.uid == *uid).unwrap()
    }

    fn state(&self, uid: &PodUid) -> PodState {
        let at = self.find(uid);
        let pod = &self.pods[at];
        match pod {
            _ if self.reads == Reads::ListsAlone => PodState::Unknown,
            pod if !pod.exists => PodState::Gone,
            pod if pod.stored.ever_voter() => PodState::Running,
            _ if self.reads == Reads::Stale => PodState::Running,
            pod if pod.process.is_none() || (self.reads == Reads::Lagging && at == 0) => PodState::NotRunning,
            _ => PodState::Running,
        }
    }

    fn standings(&self) -> impl Iterator<Item = Standing> {
        self.pods.iter().filter(|pod| pod.exists).map(|pod| pod.stored)
    }

    fn leads(&self, cluster: ClusterId) -> bool {
        let lives = |pod: &Pod| pod.process.is_some() && pod.stored.ever_voter();
        self.pods.iter().any(|pod| lives(pod) && pod.stored.cluster().is_some_and(|(its, _)| its == cluster))
    }

    /// What Raft would tell: whether there is a leader.
    fn refresh(&mut self, at: usize) {
        let mut stored = self.pods[at].stored;
        let leads = stored.cluster().is_some_and(|(cluster, _)| self.leads(cluster));
        if let Standing::Member { leader, .. } = &mut stored {
            *leader = leads;
        }
        if let Some(process) = &mut self.pods[at].process
            && process.bootstrap.standing() != Standing::Initialising
        {
            process.bootstrap.set_standing(stored, None);
        }
    }

    fn ask(&mut self, from: usize, peer: &Listed) -> Heard {
        let to = self.find(&peer.uid);
        let silent = |silence| Heard::Silent(silence, PodState::Unknown);
        if self.cuts.contains(&(from, to)) {
            return silent(Silence::TimedOut);
        }
        self.refresh(to);
        let me = self.pods[from].me.clone();
        let process = self.pods[from].process.as_ref().unwrap();
        let probe = process.bootstrap.probe(std::slice::from_ref(&me)).unwrap();
        let Some(asked) = &mut self.pods[to].process else { return silent(Silence::Refused) };
        let answer = asked.bootstrap.answer(&probe);
        if let Some(list) = &answer.list {
            asked.promised.insert(me.uid, (probe.boot, list.clone()));
        }
        // The promise was made, although nobody hears of it.
        if self.cuts.contains(&(to, from)) {
            return silent(Silence::TimedOut);
        }
        let promised = &mut self.pods[from].process.as_mut().unwrap().promised;
        if answer.standing == Standing::Uninitialised
            && let Some((boot, list)) = promised.get(&peer.uid)
            && (*boot != answer.boot || Some(list) != answer.list.as_ref())
        {
            promised.remove(&peer.uid);
        }
        Heard::Answer(answer)
    }

    /// One step of one node's task; everything else may happen between two of them.
    fn step(&mut self, at: usize, back: usize) -> Result<(), TestCaseError> {
        self.refresh(at);
        let list = self.list(at, back);
        let Some(process) = &mut self.pods[at].process else { return Ok(()) };
        let task = std::mem::replace(&mut process.task, Task::Read);
        let next = match task {
            Task::Read => Task::Begin(list),
            Task::Begin(listed) => {
                let peers = process.bootstrap.begin(&listed);
                let round = Round { listed, heard: BTreeMap::new(), second: None, identity: true };
                Task::Probe(round, peers)
            }
            Task::Probe(mut round, mut peers) => match peers.pop() {
                Some(peer) => {
                    let heard = self.ask(at, &peer);
                    round.heard.insert(peer.uid, heard);
                    Task::Probe(round, peers)
                }
                None => {
                    let silent = round.heard.iter().filter(|(_, heard)| matches!(heard, Heard::Silent(..)));
                    let silent = silent.map(|(uid, _)| uid.clone()).collect();
                    Task::ReadPods(round, silent)
                }
            },
            Task::ReadPods(mut round, mut pods) => match pods.pop() {
                Some(uid) => {
                    let read = self.state(&uid);
                    if let Some(Heard::Silent(_, state)) = round.heard.get_mut(&uid) {
                        *state = read;
                    }
                    Task::ReadPods(round, pods)
                }
                None => Task::Decide(round),
            },
            Task::Decide(round) => self.decide(at, round)?,
            Task::ReadAgain(mut round) => {
                round.second = Some(list);
                Task::Decide(round)
            }
            Task::Commit(cluster) => {
                self.commit(at, cluster)?;
                Task::Read
            }
            Task::Join(door, cluster) => {
                self.join(at, &door, cluster);
                Task::Read
            }
        };
        if let Some(process) = &mut self.pods[at].process {
            process.task = next;
        }
        Ok(())
    }

    fn decide(&mut self, at: usize, round: Round) -> Result<Task, TestCaseError> {
        let Some(process) = &mut self.pods[at].process else { return Ok(Task::Read) };
        let ruling = process.bootstrap.decide(&round);
        Ok(match ruling.decision {
            Decision::Stay | Decision::Wait => Task::Read,
            Decision::ReadAgain => Task::ReadAgain(round),
            Decision::Initialise => {
                for (uid, heard) in &round.heard {
                    let absent = matches!(heard, Heard::Silent(_, PodState::NotRunning | PodState::Gone));
                    let unlisted = round.listed.iter().all(|listed| listed.uid != *uid);
                    let answers = matches!(heard, Heard::Answer(_));
                    prop_assert!(answers || absent || unlisted, "initialises although {uid} is silent: {round:?}");
                }
                Task::Commit(ClusterId(self.draw()))
            }
            Decision::Join { at: door, cluster, .. } => Task::Join(door, cluster),
            Decision::StartOver { cluster } => {
                prop_assert!(!self.pods[at].stored.ever_voter());
                prop_assert!(!self.leads(cluster), "starts over although {cluster} lives");
                let node = NodeId(self.draw());
                let pod = &mut self.pods[at];
                (pod.node, pod.stored, pod.process) = (node, STORAGE_LOST, None);
                self.start(at);
                Task::Read
            }
            // To a learner of a cluster that is no more its successor is a conflict, until all listed peers answer.
            Decision::Conflict { .. } if self.pods[at].stored.cluster().is_some() => Task::Read,
            Decision::Conflict { clusters } => {
                return Err(TestCaseError::fail(format!("two clusters: {clusters:?}")));
            }
            Decision::NeedIdentity => return Err(TestCaseError::fail("it has an identity")),
        })
    }

    fn commit(&mut self, at: usize, cluster: ClusterId) -> Result<(), TestCaseError> {
        self.initialised += 1;
        let others: Vec<Standing> = self.standings().collect();
        prop_assert!(!others.iter().any(Standing::ever_voter), "a second cluster: {others:?}");
        let pod = &mut self.pods[at];
        pod.stored = Standing::Member { cluster, epoch: Epoch(0), ever_voter: true, leader: true };
        if let Some(process) = &mut pod.process {
            process.bootstrap.set_standing(pod.stored, None);
        }
        Ok(())
    }

    fn join(&mut self, at: usize, door: &Listed, cluster: ClusterId) {
        let to = self.find(&door.uid);
        let reached = !self.cuts.contains(&(at, to)) && self.pods[to].process.is_some();
        let agreed = self.pods[to].stored.cluster().is_some_and(|(its, _)| its == cluster) && self.leads(cluster);
        let epoch = Epoch(0);
        let pod = &mut self.pods[at];
        if reached && agreed && !pod.stored.ever_voter() {
            pod.stored = match pod.stored {
                Standing::Remembers { .. } => Standing::Member { cluster, epoch, ever_voter: false, leader: true },
                _ => Standing::Remembers { cluster, epoch, ever_voter: false },
            };
        }
    }

    pub(super) fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let pods = self.pods.len();
        match op {
            Op::Step(at, back) => self.step(at % pods, back)?,
            Op::Start(at) => self.start(at % pods),
            Op::Crash(at, keep) => {
                let node = NodeId(self.draw());
                let pod = &mut self.pods[at % pods];
                if pod.process.take().is_some() && !keep {
                    (pod.node, pod.stored) = (node, STORAGE_LOST);
                }
            }
            Op::Spawn if pods < MOST_PODS => self.spawn(),
            Op::Spawn => {}
            Op::List(at) if self.pods[at % pods].exists => self.set_listed(at % pods, true),
            Op::Unlist(at) if !self.pods[at % pods].exists => self.set_listed(at % pods, false),
            Op::List(_) | Op::Unlist(_) => {}
            Op::Delete(at) => {
                let pod = &mut self.pods[at % pods];
                (pod.exists, pod.process) = (false, None);
            }
            Op::Cut(from, to) => drop(self.cuts.insert((from % pods, to % pods))),
            Op::Heal => self.cuts.clear(),
            Op::Promote(at) => {
                let pod = &self.pods[at % pods];
                let leads = pod.stored.cluster().is_some_and(|(cluster, _)| self.leads(cluster));
                if let Standing::Member { ever_voter, .. } = &mut self.pods[at % pods].stored {
                    *ever_voter |= leads;
                }
            }
        }
        Ok(())
    }

    /// Faults stop: everybody who exists runs, is listed and is reached. One cluster comes of it.
    pub(super) fn settle(&mut self) -> Result<(), TestCaseError> {
        self.cuts.clear();
        self.reads = if self.reads == Reads::Lagging { Reads::Fresh } else { self.reads };
        for at in 0..self.pods.len() {
            self.set_listed(at, self.pods[at].exists);
            self.start(at);
        }
        for _ in 0..300 {
            for at in 0..self.pods.len() {
                self.step(at, 0)?;
            }
            if self.standings().all(|standing| matches!(standing, Standing::Member { .. })) {
                break;
            }
        }
        let standings: Vec<Standing> = self.standings().collect();
        prop_assert!(standings.iter().all(|s| matches!(s, Standing::Member { .. })), "{standings:?}");
        let clusters: BTreeSet<_> = standings.iter().filter_map(Standing::cluster).collect();
        prop_assert!(clusters.len() <= 1, "{clusters:?}");
        Ok(())
    }
}
