//! How replicas that know no fixed size form one cluster, or join the one that exists.
//!
//! Pure. Owns rules 1 to 6 of bootstrapping: what a node answers, what it thereby promises, and what it does after a
//! round. What must never happen: two nodes initialise. The shell keeps one [`Bootstrap`] behind a lock, since answers
//! are given while a round is under way, and runs rounds one after the other:
//!
//! 1. a fresh list, and [`Bootstrap::begin`];
//! 2. a probe to each peer that it names;
//! 3. a fresh read of the pods of those that are silent;
//! 4. [`Bootstrap::decide`];
//! 5. on [`Decision::ReadAgain`] a second fresh list, and `decide` again.
//!
//! It has to answer probes before its first read.
//!
//! **Why at most one initialises.** "Smallest" is the smallest pod uid of the list (one list, one initialiser, even if
//! storage is lost and the node id with it). A node's list is fixed from the first probe of a round to its decision;
//! where absentees change it, that round decides nothing. Let a initialise under A and b under B, A != B. If each lists
//! the other, the later of the two answers "A" and "B" was given by a node whose list was another within the very round
//! that made it initialise: impossible. If only B lists a, then a has promised B to b, and may not initialise under A
//! before b answers with another list, after which b needs a new round. If a third node answered both, it is `held`
//! for b until its promise to a has ended. A promise ends by an answer to a probe that was sent after the promise was
//! made, and only by one of an uninitialised node: neither a delayed frame nor a dead incarnation can end it, nor that
//! its receiver has initialised. So whoever was promised anything is asked even where a later list is an older one.
//!
//! **What these rules cannot do**, said here since no rule of a node alone could:
//! - Promises are in memory. One who restarts before it has joined forgets; two clusters then need a list that drops a
//!   living pod, too, or one that is older than the restart. Fresh reads are there so that no list is old.
//! - Against such a list only a promise helps. A voter that is not named by two reads, and was promised nothing, is
//!   overlooked: by an uninitialised node, and by a learner that starts over.
//! - Rule 4 takes the API server's word. A peer that initialised, kept its storage, and is in a crash loop while every
//!   other listed peer is new, is left behind: two clusters, which rule 5 reports once it is back. The other choice,
//!   to wait, would block every roll-out that replaces a broken pod. The same holds for a living peer that is
//!   unreachable while its status still says that it is not running, if it has never asked us.
//! - Total loss of storage is a new cluster with an empty ledger (rule 6): dialling first and the receiver's single
//!   accept protect then, not the ledger.
//! - Whoever is not listed does not exist to us. A pod whose address changes may be unlisted for a moment.
//! - "Start over" is taken only by a node on pod-bound storage. On lasting storage a voter that is not listed may be a
//!   pod on its way to another node: it would come back to a second cluster. `recover` is for that.
//!
//! A node that has asked us is never absent by its container's status, which lags; its pod gone is another matter.

mod promises;
mod reason;
mod round;

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{ClusterId, Epoch, PodUid};
use super::peers::{Answer, Heard, Listed, LogState, PodState, Probe, Silence, Standing, uids};
use promises::Promises;
pub use reason::Reason;
pub use round::{Decision, LOG_EVERY, Myself, READY_WITHOUT_IDENTITY_AFTER, Round, Ruling};

/// Most pods that are remembered for having asked us. One that is not remembered gets no list and hence no promise.
pub const MAX_ASKED: usize = 256;

/// The state machine: what we are, what we have promised, and what we compare.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    me: Myself,
    standing: Standing,
    log: Option<LogState>,
    /// What is compared, promised and used for "smallest": sorted. `None` while no fresh read lists us.
    list: Option<Vec<PodUid>>,
    /// Absent by the last decision, and whether its pod is gone.
    absent: BTreeMap<PodUid, PodState>,
    /// Who has asked us.
    asked: BTreeSet<PodUid>,
    promises: Promises,
}

impl Bootstrap {
    /// A process that has just started, with what its storage says.
    pub fn new(me: Myself, standing: Standing, log: Option<LogState>) -> Self {
        let (absent, asked) = (BTreeMap::new(), BTreeSet::new());
        Self { me, standing, log, list: None, absent, asked, promises: Promises::default() }
    }

    /// What we are now.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Raft or storage has news of what we are, and of our log.
    pub fn set_standing(&mut self, standing: Standing, log: Option<LogState>) {
        (self.standing, self.log) = (standing, log);
    }

    /// Begins a round with a fresh read; returns whom to probe: all other listed peers, and those to whom we are bound.
    /// Nobody, as long as the read does not list us.
    pub fn begin(&mut self, listed: &[Listed]) -> Vec<Listed> {
        self.promises.begin_round();
        self.absent.retain(|uid, pod| *pod == PodState::Gone || !self.asked.contains(uid));
        self.list = self.compared(listed, &self.absent);
        if self.list.is_none() {
            return Vec::new();
        }
        let known = uids(listed);
        let unlisted = self.promises.receivers().filter(|receiver| known.binary_search(&receiver.uid).is_err());
        let mut peers: Vec<Listed> = listed.iter().cloned().chain(unlisted.cloned()).collect();
        peers.retain(|peer| peer.uid != self.me.uid);
        peers.sort();
        peers.dedup_by(|a, b| a.uid == b.uid);
        peers
    }

    /// What to send to the peers of this round; `None` while we are not listed, for nobody could ask back.
    pub fn probe(&self, listed: &[Listed]) -> Option<Probe> {
        let from = listed.iter().find(|listed| listed.uid == self.me.uid)?.clone();
        Some(Probe { from, node: self.me.node, boot: self.me.boot })
    }

    /// Answers a peer. From an uninitialised node it is a promise not to initialise under another list.
    pub fn answer(&mut self, probe: &Probe) -> Answer {
        let remembered = self.asked.contains(&probe.from.uid) || self.asked.len() < MAX_ASKED;
        if remembered {
            self.asked.insert(probe.from.uid.clone());
        }
        let mut list = self.list.clone().filter(|_| remembered && self.standing == Standing::Uninitialised);
        let held = self.list.as_ref().is_some_and(|list| self.promises.held(list, &probe.from.uid));
        if let Some(promised) = &list
            && !self.promises.make(&probe.from, probe.boot, promised)
        {
            list = None;
        }
        let Myself { uid, node, boot, bound_to_pod } = self.me.clone();
        Answer { uid, node, boot, bound_to_pod, standing: self.standing, list, held, log: self.log }
    }

    /// Decides what follows from a round. The lock that guards `answer` is held: an `Initialise` takes effect here.
    pub fn decide(&mut self, round: &Round) -> Ruling {
        self.promises.end(round);
        let mut reasons = Vec::new();
        self.absent = self.hear_silence(round, &mut reasons);
        let listed = round.listed.iter().any(|listed| listed.uid == self.me.uid);
        let decision = match self.standing {
            Standing::Initialising => Decision::Stay,
            Standing::Member { leader: true, .. } => Decision::Stay,
            _ if !listed => {
                reasons.push(Reason::NotListed);
                Decision::Wait
            }
            Standing::Uninitialised => self.newcomer(round, &mut reasons),
            Standing::Remembers { cluster, epoch, .. } | Standing::Member { cluster, epoch, .. } => {
                self.returner(round, (cluster, epoch), &mut reasons)
            }
        };
        if decision == Decision::Initialise {
            self.standing = Standing::Initialising;
        }
        Ruling { decision, reasons }
    }

    /// The list that is compared: the listed less the absent. `None`: we are not in it.
    fn compared(&self, listed: &[Listed], absent: &BTreeMap<PodUid, PodState>) -> Option<Vec<PodUid>> {
        let list: Vec<PodUid> = uids(listed).into_iter().filter(|uid| !absent.contains_key(uid)).collect();
        list.contains(&self.me.uid).then_some(list)
    }

    /// Rule 4: who is absent, with a line for each that is silent.
    fn hear_silence(&self, round: &Round, reasons: &mut Vec<Reason>) -> BTreeMap<PodUid, PodState> {
        let mut absent = BTreeMap::new();
        for peer in self.others(round) {
            let Some(Heard::Silent(silence, pod)) = round.heard.get(&peer.uid) else { continue };
            let (peer, silence, pod) = (peer.clone(), silence.clone(), *pod);
            let asked = self.asked.contains(&peer.uid);
            if pod == PodState::Gone || (pod == PodState::NotRunning && !asked) {
                absent.insert(peer.uid.clone(), pod);
                reasons.push(Reason::Absent { peer, silence, pod });
            } else {
                reasons.push(Reason::Silent { peer, silence, pod, asked });
            }
        }
        absent
    }

    fn others<'a>(&self, round: &'a Round) -> impl Iterator<Item = &'a Listed> {
        let me = self.me.uid.clone();
        round.listed.iter().filter(move |listed| listed.uid != me)
    }

    /// No cluster in our storage: rules 2, 3 and 5.
    fn newcomer(&mut self, round: &Round, reasons: &mut Vec<Reason>) -> Decision {
        let clusters = clusters_of_members(round);
        if clusters.len() > 1 {
            return Decision::Conflict { clusters: clusters.into_iter().collect() };
        }
        match clusters.first() {
            // Without a door we wait: where a member answers nobody forms another cluster, whatever the list.
            Some(cluster) => self.joinable(round, *cluster, Epoch(0)).unwrap_or(Decision::Wait),
            None => self.form(round, reasons),
        }
    }

    /// Rule 3, on a list that has stood since before the first probe of this round.
    fn form(&mut self, round: &Round, reasons: &mut Vec<Reason>) -> Decision {
        let list = self.compared(&round.listed, &self.absent).unwrap_or_default();
        if self.list.as_ref() != Some(&list) {
            self.list = Some(list);
            reasons.push(Reason::ListChanged);
            return Decision::Wait;
        }
        if !round.identity && list.len() > 1 {
            return Decision::NeedIdentity;
        }
        let before = reasons.iter().filter(|reason| reason.keeps_waiting()).count();
        for peer in self.others(round).filter(|peer| list.contains(&peer.uid)) {
            if let Some(Heard::Answer(answer)) = round.heard.get(&peer.uid) {
                reasons.extend(Reason::of_answer(peer, answer, &list));
            } else if !round.heard.contains_key(&peer.uid) {
                let (silence, pod) = (Silence::TimedOut, PodState::Unknown);
                reasons.push(Reason::Silent { peer: peer.clone(), silence, pod, asked: false });
            }
        }
        for peer in self.promises.receivers().filter(|peer| !list.contains(&peer.uid)) {
            // One that is not listed has no vote, but what it is counts.
            if let Some(Heard::Answer(answer)) = round.heard.get(&peer.uid)
                && answer.standing != Standing::Uninitialised
            {
                reasons.extend(Reason::of_answer(peer, answer, &list));
            }
        }
        reasons.extend(self.promises.against(&list).cloned().map(|to| Reason::Promised { to }));
        if before > 0 || reasons.iter().any(Reason::keeps_waiting) {
            return Decision::Wait;
        }
        if list.first() != Some(&self.me.uid) {
            let smallest = self.others(round).find(|peer| list.first() == Some(&peer.uid));
            reasons.extend(smallest.cloned().map(|peer| Reason::LeftToSmallest { peer }));
            return Decision::Wait;
        }
        confirmed(round, Decision::Initialise, reasons)
    }

    /// Our storage belongs to a cluster: rules 2 and 5.
    fn returner(&self, round: &Round, (mine, epoch): (ClusterId, Epoch), reasons: &mut Vec<Reason>) -> Decision {
        let mut clusters = clusters_of_members(round);
        let seen = clusters.contains(&mine);
        clusters.insert(mine);
        if self.is_no_more(round, mine) {
            if self.me.bound_to_pod {
                return confirmed(round, Decision::StartOver { cluster: mine }, reasons);
            }
            reasons.push(Reason::VoterMayReturn { cluster: mine });
        }
        if clusters.len() > 1 {
            return Decision::Conflict { clusters: clusters.into_iter().collect() };
        }
        // A member looks for no other door, unless its cluster was formed anew without it.
        let is_member = matches!(self.standing, Standing::Member { .. });
        let least = if is_member { Epoch(epoch.0.saturating_add(1)) } else { epoch };
        match self.joinable(round, mine, least) {
            Some(join) => join,
            None if is_member => Decision::Stay,
            None => {
                if !seen {
                    reasons.push(Reason::NoMemberAnswers { cluster: mine });
                }
                Decision::Wait
            }
        }
    }

    /// Rule 5: never a voter, and every listed peer says that no voter of the remembered cluster exists, and so does
    /// everyone to whom we are bound. An absent one says nothing, so it does not count.
    fn is_no_more(&self, round: &Round, mine: ClusterId) -> bool {
        let says_so = |peer: &Listed| match round.heard.get(&peer.uid) {
            Some(Heard::Answer(answer)) => !answer.standing.tells_of_voter(mine),
            _ => false,
        };
        !self.standing.ever_voter() && self.others(round).chain(self.promises.receivers()).all(says_so)
    }

    /// The best door into `cluster`: the latest epoch, one that knows a leader, a voter; then by uid.
    fn joinable(&self, round: &Round, cluster: ClusterId, least: Epoch) -> Option<Decision> {
        let mut doors: Vec<_> = round.heard.iter().filter_map(|(uid, heard)| door(uid, heard)).collect();
        doors.retain(|(_, its, epoch, _)| *its == cluster && *epoch >= least);
        doors.sort_by_key(|(uid, _, epoch, answer)| {
            let standing = answer.standing;
            (std::cmp::Reverse((*epoch, standing.knows_leader(), standing.ever_voter())), (*uid).clone())
        });
        let (uid, _, epoch, answer) = doors.into_iter().next()?;
        let listed = round.listed.iter().chain(self.promises.receivers()).find(|listed| listed.uid == *uid)?;
        Some(Decision::Join { at: listed.clone(), node: answer.node, cluster, epoch })
    }
}

/// What must not be done on a list that is just changing.
fn confirmed(round: &Round, decision: Decision, reasons: &mut Vec<Reason>) -> Decision {
    let sorted = |listed: &[Listed]| {
        let mut listed = listed.to_vec();
        listed.sort();
        listed
    };
    match &round.second {
        None => Decision::ReadAgain,
        Some(second) if sorted(second) == sorted(&round.listed) => decision,
        Some(_) => {
            reasons.push(Reason::ListChanged);
            Decision::Wait
        }
    }
}

fn door<'a>(uid: &'a PodUid, heard: &'a Heard) -> Option<(&'a PodUid, ClusterId, Epoch, &'a Answer)> {
    match heard {
        Heard::Answer(answer) => match answer.standing {
            Standing::Member { cluster, epoch, .. } => Some((uid, cluster, epoch, answer)),
            _ => None,
        },
        Heard::Silent(..) => None,
    }
}

fn clusters_of_members(round: &Round) -> BTreeSet<ClusterId> {
    round.heard.iter().filter_map(|(uid, heard)| door(uid, heard)).map(|(_, cluster, ..)| cluster).collect()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
