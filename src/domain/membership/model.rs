//! A cluster as the leader sees it, that applies what is decided; and the properties on random ones.

use super::*;
use proptest::prelude::*;

pub(super) const GRACE: Duration = Duration::from_secs(600);
const LONG_AGO: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) me: NodeId,
    pub(super) configuration: Configuration,
    pub(super) listed: Option<Vec<Listed>>,
    pub(super) presented: BTreeMap<PodUid, Presented>,
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) leaving: BTreeSet<NodeId>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            me: NodeId(1),
            configuration: Configuration::default(),
            listed: Some(Vec::new()),
            presented: BTreeMap::new(),
            progress: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }
}

impl Cluster {
    pub(super) fn uid(pod: u64) -> PodUid {
        PodUid::from(format!("pod-{pod}").as_str())
    }

    fn address(pod: u64) -> IpAddr {
        IpAddr::from([10, 0, 0, pod as u8])
    }

    /// A pod that runs, and shows this id.
    pub(super) fn pod(&mut self, pod: u64, node: u64) {
        let (uid, address) = (Self::uid(pod), Self::address(pod));
        if let Some(listed) = &mut self.listed {
            listed.push(Listed { uid: uid.clone(), name: format!("p-{pod}").into(), address });
        }
        let shown = Presented { node: NodeId(node), address, bound_to_pod: true, joining: true };
        self.presented.insert(uid, shown);
    }

    /// A member without a vote, alive and behind.
    pub(super) fn member(&mut self, node: u64, pod: u64) {
        let member = Member { address: Self::address(pod), pod: Self::uid(pod), bound_to_pod: true };
        self.configuration.members.insert(NodeId(node), member);
        self.progress.insert(NodeId(node), Progress { caught_up: false, silent_for: Duration::ZERO });
    }

    pub(super) fn lasting(&mut self, node: u64) {
        self.configuration.members.get_mut(&NodeId(node)).unwrap().bound_to_pod = false;
        for shown in self.presented.values_mut().filter(|shown| shown.node == NodeId(node)) {
            shown.bound_to_pod = false;
        }
    }

    pub(super) fn delete_pod(&mut self, pod: u64) {
        self.presented.remove(&Self::uid(pod));
        if let Some(listed) = &mut self.listed {
            listed.retain(|listed| listed.uid != Self::uid(pod));
        }
        let members = &self.configuration.members;
        for (_, progress) in self
            .progress
            .iter_mut()
            .filter(|(node, _)| members.get(node).is_some_and(|member| member.pod == Self::uid(pod)))
        {
            progress.silent_for = LONG_AGO;
        }
    }

    /// The container is started anew, with another id.
    pub(super) fn lose_storage(&mut self, pod: u64, node: u64) {
        self.presented.get_mut(&Self::uid(pod)).unwrap().node = NodeId(node);
        let uid = Self::uid(pod);
        for (node, _) in self.configuration.members.iter().filter(|(_, member)| member.pod == uid) {
            self.progress.insert(*node, Progress { caught_up: true, silent_for: LONG_AGO });
        }
    }

    pub(super) fn silence(&mut self, node: u64, silent_for: Duration) {
        self.progress.get_mut(&NodeId(node)).unwrap().silent_for = silent_for;
    }

    pub(super) fn catch_up(&mut self, node: u64) {
        self.progress.get_mut(&NodeId(node)).unwrap().caught_up = true;
    }

    pub(super) fn leave(&mut self, node: u64) {
        self.leaving.insert(NodeId(node));
    }

    /// What a leader does before it leaves.
    pub(super) fn hand_over_from(&mut self, node: u64) {
        if self.me == NodeId(node) {
            self.me = *self.configuration.voters.iter().find(|voter| **voter != NodeId(node)).unwrap();
        }
    }

    pub(super) fn decide(&self) -> Option<Change> {
        decide(&Situation {
            me: self.me,
            configuration: &self.configuration,
            listed: self.listed.as_deref(),
            presented: &self.presented,
            progress: &self.progress,
            leaving: &self.leaving,
            grace: GRACE,
        })
    }

    /// Applies the next change, as Raft would.
    pub(super) fn step(&mut self) -> Option<Change> {
        let change = self.decide()?;
        match change.clone() {
            Change::FinishJoint(voters) => {
                self.configuration.outgoing = None;
                self.configuration.voters = voters;
            }
            Change::SetVoters(voters) => self.configuration.voters = voters,
            Change::AddLearner(node, member) => {
                self.configuration.members.insert(node, member);
                self.progress.insert(node, Progress { caught_up: false, silent_for: Duration::ZERO });
            }
            Change::UpdateMember(node, member) => {
                self.configuration.members.insert(node, member);
            }
            Change::RemoveLearner(node) => {
                self.configuration.members.remove(&node);
                self.progress.remove(&node);
            }
        }
        Some(change)
    }

    /// Learners that run catch up; changes are made until there is none. Returns how many.
    pub(super) fn settle(&mut self) -> usize {
        for changes in 0..200 {
            for progress in self.progress.values_mut().filter(|progress| progress.silent_for < ALIVE_WITHIN) {
                progress.caught_up = true;
            }
            if self.step().is_none() {
                return changes;
            }
            if !self.configuration.voters.contains(&self.me) {
                self.me = *self.configuration.voters.first().unwrap();
            }
        }
        panic!("no end to it: {:?}", self.decide());
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.me || self.progress.get(&node).is_some_and(|progress| progress.silent_for < ALIVE_WITHIN)
    }

    fn has_quorum(&self) -> bool {
        self.configuration.is_quorum(|node| self.is_alive(node))
    }
}

/// What one pod and the member that was in it may be like.
#[derive(Clone, Debug)]
struct Fortune {
    voter: bool,
    member: bool,
    listed: bool,
    shows: Option<bool>,
    bound: bool,
    caught_up: bool,
    silent_for: Duration,
    leaving: bool,
}

fn fortune() -> impl Strategy<Value = Fortune> {
    let silence = prop_oneof![3 => Just(Duration::ZERO), 1 => Just(LONG_AGO), 1 => Just(GRACE)];
    let shows = prop_oneof![4 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
    (any::<[bool; 5]>(), 0u8..5, shows, silence).prop_map(|(flags, leaving, shows, silent_for)| {
        let [voter, member, listed, bound, caught_up] = flags;
        Fortune { voter, member: member || voter, listed, shows, bound, caught_up, silent_for, leaving: leaving == 0 }
    })
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let list = prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(2)];
    (proptest::collection::vec(fortune(), 1..9), list, any::<bool>()).prop_map(|(fortunes, list, joint)| {
        let mut c = Cluster::default();
        c.pod(1, 1);
        c.member(1, 1);
        c.configuration.voters.insert(NodeId(1));
        for (at, fortune) in (2..).zip(fortunes) {
            add(&mut c, at, &fortune);
        }
        if joint {
            c.configuration.outgoing = Some(c.configuration.voters.clone());
        }
        match list {
            1 => c.listed = None,
            2 => c.listed = Some(Vec::new()),
            _ => {}
        }
        c
    })
}

fn add(c: &mut Cluster, at: u64, fortune: &Fortune) {
    if fortune.member {
        c.member(at, at);
        let Fortune { caught_up, silent_for, .. } = *fortune;
        c.progress.insert(NodeId(at), Progress { caught_up, silent_for });
        if fortune.voter && c.configuration.voters.len() < MAX_VOTERS {
            c.configuration.voters.insert(NodeId(at));
        }
    }
    if let Some(itself) = fortune.shows {
        c.pod(at, if itself { at } else { at + 100 });
    }
    if !fortune.bound {
        c.lasting_if_member(at);
    }
    if !fortune.listed
        && let Some(listed) = &mut c.listed
    {
        listed.retain(|listed| listed.uid != Cluster::uid(at));
    }
    if fortune.leaving {
        c.leave(at);
    }
}

impl Cluster {
    fn lasting_if_member(&mut self, node: u64) {
        if self.configuration.members.contains_key(&NodeId(node)) {
            self.lasting(node);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn each_change_leaves_a_living_quorum_and_removes_nobody_without_a_ground(mut c in clusters()) {
        for _ in 0..60 {
            let before = c.clone();
            let Some(change) = c.step() else { break };
            let (old, new) = (&before.configuration, &c.configuration);
            if let Change::SetVoters(voters) = &change {
                prop_assert!(is_majority(voters, |node| before.is_alive(node)), "{change:?}");
                prop_assert!(is_majority(&old.voters, |node| before.is_alive(node)), "{change:?}");
                prop_assert!(voters.len() <= MAX_VOTERS.max(old.voters.len()));
                let grown = voters.len() > old.voters.len();
                prop_assert!(!grown || voters.len() % 2 == 1, "grows to an even number: {change:?}");
                for node in voters.difference(&old.voters) {
                    prop_assert!(before.progress[node].caught_up && !before.leaving.contains(node));
                    prop_assert!(old.members.contains_key(node), "learner first");
                }
            }
            if before.has_quorum() && !matches!(change, Change::FinishJoint(_)) {
                prop_assert!(c.has_quorum() || !c.configuration.voters.contains(&c.me), "{change:?}");
            }
            let blind = before.listed.as_ref().is_none_or(Vec::is_empty);
            let voters_lost = old.voters.difference(&new.voters);
            let members_lost = old.members.keys().filter(|node| !new.members.contains_key(node));
            for node in voters_lost.chain(members_lost) {
                let member = &old.members[node];
                let other_id = before.presented.get(&member.pod).is_some_and(|shown| shown.node != *node);
                let ground = before.leaving.contains(node) || (other_id && member.bound_to_pod);
                prop_assert!(ground || !blind, "removed blindly: {change:?}");
                prop_assert!(before.leaving.contains(node) || !before.is_alive(*node), "alive: {change:?}");
            }
        }
    }

    #[test]
    fn repeated_decisions_come_to_an_end_with_an_odd_number_where_there_are_learners(mut c in clusters()) {
        c.settle();
        let leaves = |node: &NodeId| c.leaving.contains(node);
        let voters = &c.configuration.voters;
        prop_assert!(!voters.is_empty());
        let spare = c.configuration.members.iter().any(|(node, member)| {
            let listed = c.listed.as_ref().is_none_or(|listed| {
                listed.is_empty() || listed.iter().any(|listed| listed.uid == member.pod)
            });
            !voters.contains(node) && c.progress[node].caught_up && c.is_alive(*node) && !leaves(node) && listed
        });
        if spare && c.has_quorum() {
            prop_assert!(voters.len() % 2 == 1, "{voters:?} and a learner to spare");
        }
    }

    #[test]
    fn where_all_is_well_the_voters_are_the_greatest_odd_number_and_nobody_dead_is_left(
        replicas in 1u64..10, fortunes in proptest::collection::vec(any::<(bool, bool)>(), 4),
    ) {
        let mut c = Cluster::default();
        for at in 1..=5 {
            c.pod(at, at);
            c.member(at, at);
            c.configuration.voters.insert(NodeId(at));
        }
        // At most two of five die, as the ledger bears; then replicas come.
        let mut dead = 0;
        for (at, (dies, in_place)) in (2..).zip(fortunes) {
            if dies && dead < 2 {
                dead += 1;
                if in_place { c.lose_storage(at, at + 50) } else { c.delete_pod(at); c.silence(at, GRACE) }
            }
        }
        (10..10 + replicas).for_each(|at| c.pod(at, at));
        c.settle();
        let living = c.presented.len();
        prop_assert_eq!(c.configuration.voters.len(), if living >= 5 { 5 } else { 3 });
        prop_assert!(c.configuration.members.keys().all(|node| c.is_alive(*node)));
        prop_assert_eq!(c.configuration.members.len(), living);
    }
}
