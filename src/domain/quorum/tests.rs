//! Lost quorum, sentence by sentence; and on random remains: never two, never while a quorum could exist.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::domain::ids::{BootId, Term};
use crate::domain::peers::Standing;

const CLUSTER: ClusterId = ClusterId(7);

fn uid(n: u64) -> PodUid {
    PodUid::from(format!("pod-{n}").as_str())
}

fn listed(n: u64) -> Listed {
    Listed { uid: uid(n), name: format!("vault-{n}").into(), address: IpAddr::from([10, 0, 0, n as u8]) }
}

fn log(term: u64, index: u64, configuration: u64) -> LogState {
    let at = |term, index| LogId { term: Term(term), index };
    LogState { last: at(term, index), configuration: at(1, configuration) }
}

/// One pod of the remains.
#[derive(Clone, Debug)]
struct Pod {
    node: u64,
    standing: Standing,
    log: Option<LogState>,
    silent: Option<PodState>,
}

/// The remains of a cluster: who was a voter in which pod, and which pods are listed now.
#[derive(Clone, Debug, Default)]
struct Remains {
    configuration: Configuration,
    pods: BTreeMap<u64, Pod>,
}

impl Remains {
    /// Voters 1 to `n`, each in the pod of its number; all pods are gone.
    fn of(n: u64) -> Self {
        let member = |n| Member { address: listed(n).address, pod: uid(n), bound_to_pod: true };
        let members = (1..=n).map(|n| (NodeId(n), member(n))).collect();
        let voters = (1..=n).map(NodeId).collect();
        Self { configuration: Configuration { members, voters, outgoing: None }, pods: BTreeMap::new() }
    }

    fn survivor(mut self, n: u64, log: LogState) -> Self {
        self.pods.insert(n, Pod { node: n, standing: standing(0, false), log: Some(log), silent: None });
        self
    }

    fn newcomer(mut self, pod: u64, node: u64) -> Self {
        self.pods.insert(pod, Pod { node, standing: Standing::Uninitialised, log: None, silent: None });
        self
    }

    fn silent(mut self, n: u64, state: PodState) -> Self {
        let (standing, log) = (standing(0, false), Some(log(1, 1, 1)));
        self.pods.insert(n, Pod { node: n, standing, log, silent: Some(state) });
        self
    }

    fn lasting(mut self, n: u64) -> Self {
        self.configuration.members.get_mut(&NodeId(n)).unwrap().bound_to_pod = false;
        self
    }

    fn with<T>(&self, pod: u64, ask: impl Fn(&Round<'_>) -> T) -> T {
        let list: Vec<Listed> = self.pods.keys().map(|n| listed(*n)).collect();
        let others = self.pods.iter().filter(|(n, _)| **n != pod);
        let heard = others.map(|(n, pod)| (uid(*n), pod.heard(*n))).collect();
        let me = &self.pods[&pod];
        let Some((cluster, epoch)) = me.standing.cluster() else { panic!("{pod} is no survivor") };
        ask(&Round {
            node: NodeId(me.node),
            uid: &uid(pod),
            cluster,
            epoch,
            log: me.log.unwrap(),
            leader: me.standing.knows_leader(),
            configuration: &self.configuration,
            listed: Some(&list),
            heard: &heard,
        })
    }

    fn decide(&self, pod: u64) -> Verdict {
        self.with(pod, decide)
    }

    fn missing(&self, pod: u64) -> String {
        match self.decide(pod) {
            Verdict::Blocked(missing) => missing.iter().map(|missing| format!("{missing}\n")).collect(),
            verdict => panic!("{verdict:?}"),
        }
    }
}

impl Pod {
    fn heard(&self, n: u64) -> Heard {
        if let Some(state) = self.silent {
            return Heard::Silent(Silence::TimedOut, state);
        }
        let (node, standing, log) = (NodeId(self.node), self.standing, self.log);
        let (boot, bound_to_pod, list, held) = (BootId(n), true, None, false);
        Heard::Answer(Answer { uid: uid(n), node, boot, bound_to_pod, standing, list, held, log })
    }
}

fn standing(epoch: u64, leader: bool) -> Standing {
    Standing::Member { cluster: CLUSTER, epoch: Epoch(epoch), ever_voter: true, leader }
}

const REFORM: Verdict = Verdict::Reform(Epoch(1));

#[test]
fn it_heals_when_every_voter_is_accounted_for() {
    let gone = Remains::of(3).survivor(1, log(2, 9, 1));
    assert_eq!(gone.decide(1), REFORM, "their pods are gone");
    let replaced = gone.clone().newcomer(2, 22).newcomer(3, 33);
    assert_eq!(replaced.decide(1), REFORM, "their pods show other ids");
    let new_pods = gone.newcomer(4, 4).newcomer(5, 5);
    assert_eq!(new_pods.decide(1), REFORM, "other pods answer");
}

#[test]
fn the_greatest_log_forms_it_anew_and_ties_go_by_node_id() {
    let by_term = Remains::of(5).survivor(1, log(3, 5, 1)).survivor(2, log(2, 9, 1));
    assert_eq!(by_term.decide(1), REFORM);
    let last = log(3, 5, 1).last;
    assert_eq!(by_term.decide(2), Verdict::Follow { node: NodeId(1), last });
    let by_index = Remains::of(5).survivor(1, log(3, 5, 1)).survivor(2, log(3, 9, 1));
    assert_eq!(by_index.decide(2), REFORM);
    let tie = Remains::of(5).survivor(1, log(3, 5, 1)).survivor(2, log(3, 5, 1));
    assert_eq!(tie.decide(2), REFORM);
    assert_eq!(tie.decide(1), Verdict::Follow { node: NodeId(2), last });
}

#[test]
fn a_silent_voter_or_peer_blocks_and_is_named() {
    for state in [PodState::Running, PodState::NotRunning, PodState::Unknown] {
        let silent = Remains::of(3).survivor(1, log(2, 9, 1)).silent(2, state);
        assert!(silent.missing(1).contains("vault-2 (10.0.0.2) is silent: no answer in time"));
        let bystander = Remains::of(3).survivor(1, log(2, 9, 1)).silent(8, state);
        assert!(bystander.missing(1).contains("vault-8"), "every listed peer answers");
    }
}

#[test]
fn a_voter_whose_storage_outlives_its_pod_is_never_gone() {
    let remains = Remains::of(3).survivor(1, log(2, 9, 1)).newcomer(2, 22).lasting(2).lasting(3);
    let missing = remains.missing(1);
    assert!(missing.contains("voter 0000000000000002") && missing.contains("voter 0000000000000003"), "{missing}");
    assert!(missing.contains("its storage outlives its pod"), "{missing}");
    assert_eq!(Remains::of(3).lasting(1).survivor(1, log(2, 9, 1)).decide(1), REFORM, "the survivor's own may");
}

#[test]
fn a_quorum_that_answers_elects_by_itself() {
    let two = Remains::of(3).survivor(1, log(2, 9, 1)).survivor(2, log(2, 8, 1));
    assert_eq!(two.decide(1), Verdict::Alive);
    let mut joint = Remains::of(5).survivor(1, log(2, 9, 1)).survivor(2, log(2, 8, 1));
    joint.configuration.outgoing = Some([4, 5].map(NodeId).into());
    joint.configuration.voters = [1, 2, 3].map(NodeId).into();
    assert_eq!(joint.decide(1), REFORM, "a quorum of one half is none");
}

#[test]
fn whoever_knows_better_blocks() {
    let base = Remains::of(3).survivor(1, log(2, 9, 1));
    let with = |standing, log| {
        let mut remains = base.clone();
        remains.pods.insert(4, Pod { node: 4, standing, log: Some(log), silent: None });
        remains.missing(1)
    };
    assert!(with(standing(0, true), log(2, 9, 1)).contains("knows a leader"));
    assert!(with(standing(0, false), log(2, 9, 2)).contains("later configuration"));
    assert!(with(standing(1, false), log(2, 9, 1)).contains("later epoch"));
    let other = Standing::Member { cluster: ClusterId(8), epoch: Epoch(0), ever_voter: true, leader: false };
    assert!(with(other, log(2, 9, 1)).contains("another cluster"));
}

#[test]
fn neither_a_learner_nor_an_unlisted_node_nor_one_without_a_list_forms_anything() {
    let mut learner = Remains::of(3).survivor(1, log(2, 9, 1)).survivor(9, log(2, 9, 1));
    learner.pods.remove(&1);
    assert!(learner.missing(9).contains("no voter"));
    let base = Remains::of(3).survivor(1, log(2, 9, 1));
    let none = |listed: Option<&[Listed]>| base.with(1, |round| decide(&Round { listed, ..round.clone() }));
    for list in [None, Some([].as_slice()), Some([listed(2)].as_slice())] {
        assert_eq!(none(list), Verdict::Blocked(vec![Missing::NoList]));
    }
}

#[test]
fn a_voter_that_answers_from_another_pod_is_accounted_for() {
    let mut moved = Remains::of(5).survivor(1, log(2, 9, 1)).lasting(2);
    moved.pods.insert(6, Pod { node: 2, standing: standing(0, false), log: Some(log(2, 4, 1)), silent: None });
    assert_eq!(moved.decide(1), REFORM);
}

#[test]
fn recover_names_what_is_missing_and_does_it_all_the_same() {
    let remains = Remains::of(3).survivor(1, log(2, 9, 1)).lasting(2).lasting(3);
    let recovery = remains.with(1, recover);
    assert_eq!(recovery.outcome, Ok(Epoch(1)));
    assert_eq!(recovery.logs, [(NodeId(1), log(2, 9, 1).last)]);
    assert_eq!(recovery.missing.len(), 2);
    let unreadable =
        Remains::of(3).survivor(1, log(2, 9, 1)).silent(2, PodState::Unknown).silent(3, PodState::NotRunning);
    let recovery = unreadable.with(1, recover);
    assert_eq!(recovery.outcome, Ok(Epoch(1)));
    let unaccounted = |missing: &&Missing| matches!(missing, Missing::Unaccounted(..));
    assert_eq!(recovery.missing.iter().filter(unaccounted).count(), 2, "silent voters are named as voters");
}

#[test]
fn recover_refuses_while_a_quorum_could_answer() {
    let refused = |remains: &Remains, pod| remains.with(pod, recover).outcome.unwrap_err();
    let answers = Remains::of(3).survivor(1, log(2, 9, 1)).survivor(2, log(2, 9, 1));
    assert!(matches!(refused(&answers, 2), Refusal::QuorumPossible(_)));
    let runs = Remains::of(3).survivor(1, log(2, 9, 1)).silent(2, PodState::Running);
    let refusal = refused(&runs, 1);
    assert!(matches!(refusal, Refusal::QuorumPossible(_)) && refusal.to_string().contains("delete their pods"));
    let mut leader = Remains::of(3).survivor(1, log(2, 9, 1)).newcomer(5, 5);
    leader.pods.get_mut(&5).unwrap().standing = standing(0, true);
    assert_eq!(refused(&leader, 1), Refusal::Leader);
    let greater = Remains::of(5).survivor(1, log(2, 9, 1)).survivor(2, log(2, 10, 1));
    assert!(matches!(refused(&greater, 1), Refusal::GreaterLog { node: NodeId(2), .. }));
    let later = Remains::of(5).survivor(1, log(2, 9, 1)).survivor(2, log(2, 8, 2));
    assert!(matches!(refused(&later, 1), Refusal::Outdated(_)));
}

#[test]
fn recover_asks_a_list_first_and_a_voter_only() {
    let base = Remains::of(3).survivor(1, log(2, 9, 1));
    let none = base.with(1, |round| recover(&Round { listed: None, ..round.clone() }).outcome);
    assert_eq!(none, Err(Refusal::NoList));
    let learner = Remains::of(3).survivor(9, log(2, 9, 1));
    assert_eq!(learner.with(9, recover).outcome, Err(Refusal::NotAVoter));
}

/// What became of one voter.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Survives { term: u64, index: u64, cut_off: bool },
    PodGone,
    StorageLost,
    Down(PodState),
}

fn fate() -> impl Strategy<Value = Fate> {
    let survives = (1u64..3, 1u64..4, any::<[bool; 2]>());
    prop_oneof![
        3 => survives.prop_map(|(term, index, [a, b])| Fate::Survives { term, index, cut_off: a && b }),
        2 => Just(Fate::PodGone),
        2 => Just(Fate::StorageLost),
        1 => prop_oneof![Just(PodState::Running), Just(PodState::NotRunning), Just(PodState::Unknown)].prop_map(Fate::Down),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn never_two_and_never_while_a_quorum_could_exist(
        fates in proptest::collection::vec((fate(), any::<bool>()), 1..=5), joint in any::<Option<u8>>(),
    ) {
        let mut remains = Remains::of(fates.len() as u64);
        if let Some(joint) = joint {
            let voters = remains.configuration.voters.iter().filter(|n| joint >> n.0 & 1 == 1).copied();
            remains.configuration.outgoing = Some(voters.collect()).filter(|outgoing: &BTreeSet<_>| !outgoing.is_empty());
        }
        // Whose storage may still exist, seen from above.
        let mut could_vote = BTreeSet::new();
        for (n, (fate, bound)) in (1..).zip(fates) {
            if !bound {
                remains = remains.lasting(n);
            }
            remains = match fate {
                Fate::Survives { term, index, cut_off } => {
                    let mut remains = remains.survivor(n, log(term, index, 1));
                    remains.pods.get_mut(&n).unwrap().silent = cut_off.then_some(PodState::Running);
                    remains
                }
                Fate::PodGone => remains,
                Fate::StorageLost => remains.newcomer(n, n + 50),
                Fate::Down(state) => remains.silent(n, state),
            };
            let dead = bound && matches!(fate, Fate::PodGone | Fate::StorageLost);
            if !dead {
                could_vote.insert(NodeId(n));
            }
        }
        let survivors: Vec<u64> = remains.pods.iter()
            .filter(|(_, pod)| pod.standing.cluster().is_some())
            .map(|(n, _)| *n)
            .collect();
        let reform: Vec<u64> = survivors.iter().copied().filter(|n| remains.decide(*n) == REFORM).collect();
        prop_assert!(reform.len() <= 1, "{reform:?} of {remains:?}");
        if !reform.is_empty() {
            prop_assert!(!remains.configuration.is_quorum(|node| could_vote.contains(&node)), "{remains:?}");
        }
        // And it does heal, where nothing speaks against it.
        let all_answer = remains.pods.values().all(|pod| pod.silent.is_none());
        let all_known = could_vote.iter().all(|node| survivors.contains(&node.0));
        let quorum = remains.configuration.is_quorum(|node| could_vote.contains(&node));
        if all_answer && all_known && !quorum && !survivors.is_empty() {
            prop_assert_eq!(reform.len(), 1);
        }
        // Forced: one at most among those who hear each other, none while a quorum answers.
        let forced = survivors.iter().filter(|n| remains.pods[n].silent.is_none());
        let forced = forced.filter(|n| remains.with(**n, recover).outcome.is_ok()).count();
        prop_assert!(forced <= 1 && !(forced == 1 && quorum && all_answer && all_known));
    }
}
