//! Each rule of bootstrapping, sentence by sentence.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::domain::ids::{BootId, NodeId};

fn listed(n: u8) -> Listed {
    Listed { uid: uid(n), name: format!("vault-{n}").into(), address: IpAddr::from([10, 0, 0, n]) }
}

fn uid(n: u8) -> PodUid {
    PodUid::from(format!("uid-{n}").as_str())
}

fn list(of: &[u8]) -> Vec<Listed> {
    of.iter().map(|n| listed(*n)).collect()
}

fn node(n: u8, standing: Standing) -> Bootstrap {
    let me = Myself { uid: uid(n), node: NodeId(n.into()), boot: BootId(n.into()), bound_to_pod: true };
    Bootstrap::new(me, standing, None)
}

fn probe(n: u8) -> Probe {
    Probe { from: listed(n), node: NodeId(n.into()), boot: BootId(n.into()) }
}

fn answer(n: u8, standing: Standing, of: &[u8]) -> Heard {
    let list = Some(of.iter().map(|n| uid(*n)).collect());
    let (node, boot) = (NodeId(n.into()), BootId(n.into()));
    Heard::Answer(Answer { uid: uid(n), node, boot, bound_to_pod: true, standing, list, held: false, log: None })
}

fn silent(pod: PodState) -> Heard {
    Heard::Silent(Silence::Refused, pod)
}

fn round(of: &[u8], heard: &[(u8, Heard)]) -> Round {
    let heard: BTreeMap<_, _> = heard.iter().map(|(n, heard)| (uid(*n), heard.clone())).collect();
    Round { listed: list(of), heard, second: None, identity: true }
}

/// A whole round of `node`, with a second read if it is asked for.
fn run(node: &mut Bootstrap, mut round: Round, second: &[u8]) -> Ruling {
    node.begin(&round.listed);
    let first = node.decide(&round);
    if first.decision != Decision::ReadAgain {
        return first;
    }
    round.second = Some(list(second));
    node.decide(&round)
}

fn lines(ruling: &Ruling) -> String {
    ruling.reasons.iter().map(|reason| format!("{reason}\n")).collect()
}

const NEW: Standing = Standing::Uninitialised;

fn member(cluster: u64, ever_voter: bool, leader: bool) -> Standing {
    Standing::Member { cluster: ClusterId(cluster), epoch: Epoch(0), ever_voter, leader }
}

fn remembers(cluster: u64, ever_voter: bool) -> Standing {
    Standing::Remembers { cluster: ClusterId(cluster), epoch: Epoch(0), ever_voter }
}

#[test]
fn a_node_waits_until_a_fresh_read_lists_it_and_asks_nobody_before() {
    let mut one = node(1, NEW);
    assert!(one.begin(&list(&[2])).is_empty());
    assert_eq!(one.probe(&list(&[2])), None);
    let ruling = run(&mut one, round(&[2], &[(2, member_answer(2, 7))]), &[2]);
    assert_eq!((ruling.decision, ruling.reasons), (Decision::Wait, vec![Reason::NotListed]));
    assert_eq!(one.begin(&list(&[1, 2])), list(&[2]));
    assert_eq!(one.probe(&list(&[1, 2])), Some(probe(1)));
}

fn member_answer(n: u8, cluster: u64) -> Heard {
    answer(n, member(cluster, true, true), &[])
}

#[test]
fn a_single_replica_initialises_after_two_reads_that_agree() {
    let mut one = node(1, NEW);
    one.begin(&list(&[1]));
    assert_eq!(one.decide(&round(&[1], &[])).decision, Decision::ReadAgain);
    assert_eq!(run(&mut one, round(&[1], &[]), &[1, 2]).decision, Decision::Wait);
    assert_eq!(run(&mut one, round(&[1], &[]), &[1]).decision, Decision::Initialise);
    assert_eq!(one.standing(), Standing::Initialising);
    assert_eq!(one.answer(&probe(2)).list, None);
}

#[test]
fn the_smallest_of_equal_lists_initialises_and_the_others_leave_it_to_it() {
    let all = [1, 2, 3];
    let heard = |me: u8| all.into_iter().filter(|n| *n != me).map(|n| (n, answer(n, NEW, &all))).collect::<Vec<_>>();
    assert_eq!(run(&mut node(1, NEW), round(&all, &heard(1)), &[3, 2, 1]).decision, Decision::Initialise);
    let ruling = run(&mut node(2, NEW), round(&all, &heard(2)), &all);
    let left = vec![Reason::LeftToSmallest { peer: listed(1) }];
    assert_eq!((ruling.decision, ruling.reasons), (Decision::Wait, left));
}

#[test]
fn lists_that_differ_wait() {
    let ruling = run(&mut node(1, NEW), round(&[1, 2], &[(2, answer(2, NEW, &[1, 2, 3]))]), &[1, 2]);
    assert_eq!(ruling.decision, Decision::Wait);
    assert_eq!(lines(&ruling), "peer vault-2 (10.0.0.2) sees another list of peers (3 in its, 2 in ours)\n");
}

#[test]
fn a_node_joins_whoever_is_initialised_even_while_others_are_silent() {
    let heard = [(2, silent(PodState::Running)), (3, member_answer(3, 7))];
    let ruling = run(&mut node(1, NEW), round(&[1, 2, 3], &heard), &[]);
    let join = Decision::Join { at: listed(3), node: NodeId(3), cluster: ClusterId(7), epoch: Epoch(0) };
    assert_eq!(ruling.decision, join);
    assert!(lines(&ruling).contains("vault-2 (10.0.0.2) is silent: the connection is refused"));
}

#[test]
fn the_door_is_one_of_the_latest_epoch_that_knows_a_leader() {
    let later = Standing::Member { cluster: ClusterId(7), epoch: Epoch(1), ever_voter: false, leader: true };
    let heard = [
        (2, answer(2, member(7, true, true), &[])),
        (3, answer(3, later, &[])),
        (4, answer(4, member(7, true, false), &[])),
    ];
    let ruling = run(&mut node(1, NEW), round(&[1, 2, 3, 4], &heard), &[]);
    assert!(matches!(ruling.decision, Decision::Join { node: NodeId(3), epoch: Epoch(1), .. }), "{ruling:?}");
}

#[test]
fn before_it_has_persisted_a_cluster_a_node_serves_no_raft() {
    assert!(!NEW.serves_raft() && !Standing::Initialising.serves_raft());
    assert!(remembers(7, false).serves_raft() && member(7, false, false).serves_raft());
}

#[test]
fn a_silent_peer_is_waited_for_unless_the_api_server_says_that_it_does_not_run() {
    for pod in [PodState::Running, PodState::Unknown] {
        let mut one = node(1, NEW);
        for _ in 0..3 {
            let ruling = run(&mut one, round(&[1, 2], &[(2, silent(pod))]), &[1, 2]);
            assert_eq!(ruling.decision, Decision::Wait, "{pod:?}");
            assert!(lines(&ruling).starts_with("peer vault-2 (10.0.0.2) is silent: the connection is refused; its "));
        }
    }
    for pod in [PodState::NotRunning, PodState::Gone] {
        let mut one = node(1, NEW);
        let changed = run(&mut one, round(&[1, 2], &[(2, silent(pod))]), &[1, 2]);
        assert_eq!(changed.decision, Decision::Wait, "the list must stand through a whole round");
        let ruling = run(&mut one, round(&[1, 2], &[(2, silent(pod))]), &[1, 2]);
        assert_eq!(ruling.decision, Decision::Initialise, "{pod:?}");
        assert!(lines(&ruling).ends_with("so it counts as absent\n"), "{}", lines(&ruling));
    }
}

#[test]
fn a_node_that_has_asked_us_is_never_absent_while_its_pod_exists() {
    let mut one = node(1, NEW);
    one.answer(&probe(2));
    for _ in 0..3 {
        let ruling = run(&mut one, round(&[1, 2], &[(2, silent(PodState::NotRunning))]), &[1, 2]);
        assert_eq!(ruling.decision, Decision::Wait);
        assert!(lines(&ruling).contains("but it has asked this node"), "{}", lines(&ruling));
    }
    run(&mut one, round(&[1, 2], &[(2, silent(PodState::Gone))]), &[1, 2]);
    let ruling = run(&mut one, round(&[1, 2], &[(2, silent(PodState::Gone))]), &[1, 2]);
    assert_eq!(ruling.decision, Decision::Initialise);
}

#[test]
fn a_peer_that_asks_while_it_counts_as_absent_stops_the_round() {
    let mut one = node(1, NEW);
    let absent = round(&[1, 2], &[(2, silent(PodState::NotRunning))]);
    run(&mut one, absent.clone(), &[1, 2]);
    one.begin(&absent.listed);
    assert_eq!(one.decide(&absent).decision, Decision::ReadAgain);
    assert_eq!(one.answer(&probe(2)).list, Some(vec![uid(1)]));
    let second = Round { second: Some(list(&[1, 2])), ..absent };
    assert_eq!(one.decide(&second).decision, Decision::Wait);
}

#[test]
fn the_absent_are_left_out_of_what_is_compared_promised_and_smallest() {
    let mut two = node(2, NEW);
    let heard = [(1, silent(PodState::NotRunning)), (3, answer(3, NEW, &[2, 3]))];
    run(&mut two, round(&[1, 2, 3], &heard), &[1, 2, 3]);
    assert_eq!(two.answer(&probe(3)).list, Some(vec![uid(2), uid(3)]));
    assert_eq!(run(&mut two, round(&[1, 2, 3], &heard), &[1, 2, 3]).decision, Decision::Initialise);
}

#[test]
fn an_answer_is_a_promise_not_to_initialise_under_another_list() {
    let mut one = node(1, NEW);
    run(&mut one, round(&[1, 2], &[(2, answer(2, NEW, &[1]))]), &[1, 2]);
    assert_eq!(one.answer(&probe(2)).list, Some(vec![uid(1), uid(2)]));
    // 2 vanishes from the list; its pod runs, so it may be about to initialise.
    let gone = |pod| round(&[1], &[(2, silent(pod))]);
    assert_eq!(one.begin(&list(&[1])), list(&[2]), "whoever holds a promise is asked");
    let ruling = run(&mut one, gone(PodState::Running), &[1]);
    assert_eq!((ruling.decision, ruling.reasons), (Decision::Wait, vec![Reason::Promised { to: listed(2) }]));
    assert!(one.answer(&probe(3)).held, "and nobody may build on our list");
    // The same list is no ground, another one is; so is its absence.
    let mut same = one.clone();
    assert_eq!(run(&mut same, round(&[1], &[(2, answer(2, NEW, &[1, 2]))]), &[1]).decision, Decision::Wait);
    let mut other = one.clone();
    assert_eq!(run(&mut other, round(&[1], &[(2, answer(2, NEW, &[2]))]), &[1]).decision, Decision::Initialise);
    assert_eq!(run(&mut one, gone(PodState::Gone), &[1]).decision, Decision::Initialise);
}

#[test]
fn nobody_builds_on_the_list_of_one_who_is_bound_elsewhere() {
    let Heard::Answer(mut bound) = answer(2, NEW, &[1, 2]) else { unreachable!() };
    bound.held = true;
    let ruling = run(&mut node(1, NEW), round(&[1, 2], &[(2, Heard::Answer(bound))]), &[1, 2]);
    assert_eq!((ruling.decision, ruling.reasons), (Decision::Wait, vec![Reason::Held { peer: listed(2) }]));
}

#[test]
fn an_answer_from_before_a_promise_does_not_end_it() {
    let mut one = node(1, NEW);
    one.begin(&list(&[1, 2]));
    let older = round(&[1, 2], &[(2, answer(2, NEW, &[2]))]);
    one.answer(&probe(2));
    one.decide(&older);
    one.begin(&list(&[1]));
    assert!(one.decide(&round(&[1], &[])).reasons.contains(&Reason::Promised { to: listed(2) }));
}

#[test]
fn another_incarnation_of_the_receiver_ends_a_promise() {
    let mut one = node(1, NEW);
    one.begin(&list(&[1, 2]));
    one.answer(&probe(2));
    let Heard::Answer(mut restarted) = answer(2, NEW, &[1, 2]) else { unreachable!() };
    restarted.boot = BootId(99);
    assert_eq!(run(&mut one, round(&[1], &[(2, Heard::Answer(restarted))]), &[1]).decision, Decision::Initialise);
}

/// Found by the simulation: 1 has promised {1, 2} to 2, which has initialised since; 1 then reads a list without 2.
#[test]
fn a_list_that_has_forgotten_a_peer_makes_no_second_cluster_beside_the_one_it_was_promised() {
    let join = Decision::Join { at: listed(2), node: NodeId(2), cluster: ClusterId(7), epoch: Epoch(0) };
    for (theirs, restarted, expected) in [
        (Standing::Initialising, false, Decision::Wait),
        (member(7, true, true), false, join.clone()),
        (member(7, true, true), true, join.clone()),
        (member(7, true, false), true, join),
        (remembers(7, true), false, Decision::Wait),
        (remembers(7, true), true, Decision::Wait),
    ] {
        let Heard::Answer(mut initialised) = answer(2, theirs, &[]) else { unreachable!() };
        if restarted {
            initialised.boot = BootId(99);
        }
        let mut one = node(1, NEW);
        one.begin(&list(&[1, 2]));
        one.answer(&probe(2));
        // It may not get in at once: 2 stays one whom it asks, and each round ends alike, also if 2 is silent.
        for _ in 0..3 {
            let ruling = run(&mut one, round(&[1], &[(2, Heard::Answer(initialised.clone()))]), &[1]);
            assert_eq!(ruling.decision, expected, "{theirs:?} {restarted}");
            assert_eq!(one.begin(&list(&[1])), list(&[2]), "{theirs:?} {restarted}");
            let ruling = run(&mut one, round(&[1], &[(2, silent(PodState::Running))]), &[1]);
            assert_eq!(ruling.decision, Decision::Wait, "{theirs:?} {restarted}");
        }
        let ruling = run(&mut one, round(&[1], &[(2, silent(PodState::Gone))]), &[1]);
        assert_eq!(ruling.decision, Decision::Initialise, "{theirs:?} {restarted}");
    }
}

/// A promise under our very list does not bind us, but what its receiver has become since does.
#[test]
fn one_that_is_not_listed_has_no_vote_but_keeps_others_from_a_new_cluster_all_the_same() {
    for theirs in [Standing::Initialising, remembers(7, true), member(7, true, false)] {
        let mut one = node(1, NEW);
        one.begin(&list(&[1]));
        one.answer(&probe(2));
        for _ in 0..2 {
            let ruling = run(&mut one, round(&[1], &[(2, answer(2, theirs, &[]))]), &[1]);
            assert!(matches!(ruling.decision, Decision::Wait | Decision::Join { .. }), "{theirs:?}: {ruling:?}");
        }
    }
}

#[test]
fn two_clusters_are_reported_and_neither_is_joined() {
    let heard = [(2, member_answer(2, 8)), (3, member_answer(3, 7))];
    let conflict = Decision::Conflict { clusters: vec![ClusterId(7), ClusterId(8)] };
    assert_eq!(run(&mut node(1, NEW), round(&[1, 2, 3], &heard), &[]).decision, conflict);
    let mut voter = node(1, remembers(7, true));
    assert_eq!(run(&mut voter, round(&[1, 2], &[(2, member_answer(2, 8))]), &[]).decision, conflict);
}

#[test]
fn a_node_that_remembers_a_cluster_rejoins_it() {
    for ever_voter in [false, true] {
        let mut one = node(1, remembers(7, ever_voter));
        let ruling = run(&mut one, round(&[1, 2], &[(2, member_answer(2, 7))]), &[]);
        assert!(matches!(ruling.decision, Decision::Join { node: NodeId(2), .. }), "{ruling:?}");
    }
}

#[test]
fn a_member_stays_and_follows_its_cluster_into_a_later_epoch() {
    let mut one = node(1, member(7, true, true));
    assert_eq!(run(&mut one, round(&[1, 2], &[(2, member_answer(2, 8))]), &[]).decision, Decision::Stay);
    let mut one = node(1, member(7, true, false));
    assert_eq!(run(&mut one, round(&[1, 2], &[(2, member_answer(2, 7))]), &[]).decision, Decision::Stay);
    let later = Standing::Member { cluster: ClusterId(7), epoch: Epoch(1), ever_voter: true, leader: true };
    let ruling = run(&mut one, round(&[1, 2], &[(2, answer(2, later, &[]))]), &[]);
    assert!(matches!(ruling.decision, Decision::Join { epoch: Epoch(1), .. }), "{ruling:?}");
}

#[test]
fn a_learner_whose_cluster_is_no_more_starts_over_and_a_voter_never_does() {
    let over = Decision::StartOver { cluster: ClusterId(7) };
    let peers = [NEW, remembers(7, false), member(7, false, false), member(8, true, true)];
    for mine in [remembers(7, false), member(7, false, false)] {
        for theirs in peers {
            let ruling = run(&mut node(1, mine), round(&[1, 2], &[(2, answer(2, theirs, &[]))]), &[1, 2]);
            assert_eq!(ruling.decision, over, "{theirs:?}");
        }
        for heard in [
            answer(2, remembers(7, true), &[]),
            answer(2, member(7, true, false), &[]),
            silent(PodState::Running),
            silent(PodState::NotRunning),
        ] {
            let ruling = run(&mut node(1, mine), round(&[1, 2], &[(2, heard.clone())]), &[1, 2]);
            assert_ne!(ruling.decision, over, "{heard:?}");
        }
        assert_eq!(run(&mut node(1, mine), round(&[1, 2], &[(2, answer(2, NEW, &[]))]), &[1]).decision, Decision::Wait);
    }
    for mine in [remembers(7, true), member(7, true, false)] {
        assert_ne!(run(&mut node(1, mine), round(&[1, 2], &[(2, answer(2, NEW, &[]))]), &[1, 2]).decision, over);
    }
}

/// Found by the simulation: a list of itself alone, from before the others, made a learner of theirs start over.
#[test]
fn a_learner_does_not_start_over_while_one_to_whom_it_is_bound_may_be_a_voter() {
    let over = Decision::StartOver { cluster: ClusterId(7) };
    for (heard, starts_over) in [
        (answer(2, member(7, true, true), &[]), false),
        (answer(2, remembers(7, true), &[]), false),
        (silent(PodState::Running), false),
        (silent(PodState::Gone), true),
        (answer(2, NEW, &[2]), true),
        (answer(2, member(8, true, true), &[]), true),
    ] {
        for mine in [remembers(7, false), member(7, false, false)] {
            let mut one = node(1, NEW);
            one.begin(&list(&[1, 2]));
            one.answer(&probe(2));
            one.set_standing(mine, None);
            let ruling = run(&mut one, round(&[1], &[(2, heard.clone())]), &[1]);
            assert_eq!(ruling.decision == over, starts_over, "{heard:?}: {ruling:?}");
        }
    }
}

#[test]
fn on_lasting_storage_nobody_starts_over() {
    let mut one = node(1, remembers(7, false));
    one.me.bound_to_pod = false;
    let ruling = run(&mut one, round(&[1, 2], &[(2, answer(2, NEW, &[]))]), &[1, 2]);
    assert_eq!(ruling.decision, Decision::Wait);
    assert!(ruling.reasons.contains(&Reason::VoterMayReturn { cluster: ClusterId(7) }));
}

#[test]
fn one_who_remembers_keeps_the_others_from_a_new_cluster() {
    for (ever_voter, word) in [(true, "kubernetes-vault recover"), (false, "start over")] {
        let heard = [(2, answer(2, remembers(7, ever_voter), &[]))];
        let ruling = run(&mut node(1, NEW), round(&[1, 2], &heard), &[1, 2]);
        assert_eq!(ruling.decision, Decision::Wait);
        assert!(lines(&ruling).contains(word), "{}", lines(&ruling));
    }
}

#[test]
fn a_second_peer_needs_an_identity_and_one_replica_needs_none() {
    let no_identity = |of: &[u8], pod| {
        let heard = if of.len() > 1 { vec![(2, Heard::Silent(Silence::NoIdentity, pod))] } else { Vec::new() };
        Round { identity: false, ..round(of, &heard) }
    };
    let alone = run(&mut node(1, NEW), no_identity(&[1], PodState::Gone), &[1]);
    assert_eq!(alone.decision, Decision::Initialise);
    let joining = run(&mut node(1, NEW), no_identity(&[1, 2], PodState::Running), &[1, 2]);
    assert_eq!(joining.decision, Decision::NeedIdentity);
    assert!(lines(&joining).contains("raft.secrets"), "{}", lines(&joining));
    let mut after_the_other = node(1, NEW);
    run(&mut after_the_other, no_identity(&[1, 2], PodState::Gone), &[1, 2]);
    let ruling = run(&mut after_the_other, no_identity(&[1, 2], PodState::Gone), &[1, 2]);
    assert_eq!(ruling.decision, Decision::Initialise);
    let inside = run(&mut node(1, member(7, true, true)), no_identity(&[1, 2], PodState::Running), &[]);
    assert_eq!(inside.decision, Decision::Stay);
    assert!(lines(&inside).contains("raft.secrets"), "one already in a cluster goes on and says so");
}

#[test]
fn a_silence_says_what_it_is() {
    for (silence, words) in [
        (Silence::GoVersion, "migration from the Go version is by Recreate"),
        (Silence::OtherSecret, "certificate is from another secret"),
        (Silence::TimedOut, "no answer in time"),
        (Silence::HandshakeFailed("alert 40".into()), "handshake failed: alert 40"),
    ] {
        let heard = [(2, Heard::Silent(silence, PodState::Running))];
        let ruling = run(&mut node(1, NEW), round(&[1, 2], &heard), &[1, 2]);
        assert!(lines(&ruling).contains("vault-2 (10.0.0.2)") && lines(&ruling).contains(words), "{}", lines(&ruling));
    }
}

#[test]
fn an_address_that_another_pod_has_now_is_silent() {
    let heard = answer(3, NEW, &[1, 2]).of(&uid(2), PodState::Gone);
    assert_eq!(heard, Heard::Silent(Silence::OtherPod, PodState::Gone));
    assert_eq!(answer(2, NEW, &[1]).of(&uid(2), PodState::Running), answer(2, NEW, &[1]));
}

#[test]
fn a_node_that_fails_on_identity_alone_reports_ready_after_a_minute() {
    let other = |silence| (2, Heard::Silent(silence, PodState::Running));
    let minute = READY_WITHOUT_IDENTITY_AFTER;
    let ruling = run(&mut node(1, NEW), round(&[1, 2], &[other(Silence::OtherSecret)]), &[1, 2]);
    assert!(ruling.ready_all_the_same(NEW, minute));
    assert!(!ruling.ready_all_the_same(NEW, minute / 2) && !ruling.ready_all_the_same(remembers(7, false), minute));
    let heard = [other(Silence::OtherSecret), (3, Heard::Silent(Silence::TimedOut, PodState::Running))];
    assert!(!run(&mut node(1, NEW), round(&[1, 2, 3], &heard), &[]).ready_all_the_same(NEW, minute));
}

#[test]
fn whoever_is_not_remembered_gets_no_list_and_so_no_promise() {
    let mut one = node(1, NEW);
    one.begin(&list(&[1]));
    for n in 0..MAX_ASKED {
        let mut asks = probe(2);
        asks.from.uid = PodUid::from(format!("{n}").as_str());
        assert!(one.answer(&asks).list.is_some());
    }
    assert_eq!(one.answer(&probe(2)).list, None);
}
