//! Golden texts.

use super::super::fixtures;
use super::*;
use crate::print::{WIDTH, chars};

fn text(answer: &Answer) -> String {
    let text = report(answer, View::Text(Paint::PLAIN)).text;
    for line in text.lines() {
        assert!(chars(line) <= WIDTH, "{} columns: {line}", chars(line));
    }
    text
}

#[test]
fn a_leader_shows_everybody() {
    let text = text(&Answer::Status(Box::new(fixtures::status())));
    let golden = "\
version  0.1.0
node     a1b2c3d4e5f60718, pod kubernetes-vault-7d9c5b7f4-x2k8p
cluster  00c0ffee00c0ffee, epoch 1
role     leader, term 7
leader   a1b2c3d4e5f60718
log      committed 8120, applied 8120, last 8121, snapshot none
ledger   42 entries: 1 open, 41 tombstones
storage  /var/lib/kubernetes-vault/, 12.3 MiB, goes with the pod
identity a key derived from vault.token

NODE      KIND    LAG  ACKED  UP   ADDRESS     POD
a1b2c3d4  voter     0      -  yes  10.88.0.10  kubernetes-vault-7d9c5b7f4-x2k8p
0f1e2d3c  voter     1   12ms  yes  10.88.0.11  kubernetes-vault-7d9c5b7f4-9wq4z
77665544  voter  8121     1m  no   10.88.0.12  kubernetes-vault-7d9c5b7f4-mm7rt
";
    assert_eq!(text, golden);
}

#[test]
fn what_a_follower_does_not_know_is_a_question_mark_and_long_names_are_cut_at_their_start() {
    let mut status = fixtures::status();
    status.role = Role::Follower;
    status.members.truncate(1);
    let member = &mut status.members[0];
    (member.progress, member.reachable, member.kind) = (None, None, MemberKind::Learner);
    member.address = "[2001:db8:1111:2222:3333:4444:5555:6666]:45679".to_owned();
    member.pod = Some("a-release-of-a-chart-with-a-long-name-kubernetes-vault-0".to_owned());
    let text = text(&Answer::Status(Box::new(status)));
    let golden = "
NODE      KIND     LAG  ACKED  UP  ADDRESS                POD
a1b2c3d4  learner    ?      ?  ?   …33:4444:5555:6666     …me-kubernetes-vault-0

? is known to the leader only.
";
    let table: String = text.lines().skip(9).map(|line| line.to_owned() + "\n").collect();
    let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(squeezed(&table)[..7], squeezed(golden)[..7]);
    assert!(table.contains("  …") && table.contains(":6666  ") && table.contains("kubernetes-vault-0\n"), "{table}");
    assert!(table.ends_with("\n? is known to the leader only.\n"));
}

#[test]
fn trouble_comes_first() {
    let mut status = fixtures::status();
    (status.role, status.leader, status.cluster) = (Role::Forming, None, None);
    status.members.clear();
    status.forming = Some(vec![
        "10.88.0.11 (pod kubernetes-vault-1) does not answer: connection refused; its container is running, so it is waited for"
            .to_owned(),
    ]);
    let report = report(&Answer::Status(Box::new(status.clone())), View::Text(Paint::PLAIN));
    assert!(!report.well);
    let golden = "\
! this replica is in no cluster yet
! 10.88.0.11 (pod kubernetes-vault-1) does not answer: connection refused; its
  container is running, so it is waited for

version  0.1.0
";
    assert!(text(&Answer::Status(Box::new(status))).starts_with(golden), "{}", report.text);
}

fn peers() -> Vec<Peer> {
    let peer = |host: u8, node: Option<&str>, last_log: Option<LogPosition>, trouble: Option<&str>| Peer {
        address: format!("10.88.0.{host}:45679"),
        pod: Some(format!("kubernetes-vault-{}", host - 10)),
        node: node.map(str::to_owned),
        epoch: node.map(|_| 0),
        last_log,
        trouble: trouble.map(str::to_owned),
    };
    vec![
        peer(10, Some("a1b2c3d4e5f60718"), Some(LogPosition { term: 7, index: 812 }), None),
        peer(11, None, None, Some("connection refused")),
        peer(12, Some("77665544332211ff"), None, None),
    ]
}

const TABLE: &str = "\
NODE      EPOCH   LAST LOG  ADDRESS     POD
a1b2c3d4      0      7/812  10.88.0.10  kubernetes-vault-0
-             -  no answer  10.88.0.11  kubernetes-vault-1
77665544      0      empty  10.88.0.12  kubernetes-vault-2
! 10.88.0.11: connection refused

";

#[test]
fn a_recovery_that_is_refused_says_why() {
    let reasons = vec!["two of three voters answer: they elect a leader by themselves".to_owned()];
    let answer = Answer::Recovery(Recovery { peers: peers(), verdict: Verdict::Refused { reasons } });
    assert!(!report(&answer, View::Text(Paint::PLAIN)).well);
    let golden = "\
Nothing was changed: the cluster cannot be formed anew.
- two of three voters answer: they elect a leader by themselves
";
    assert_eq!(text(&answer), format!("{TABLE}{golden}"));
}

#[test]
fn a_recovery_that_is_possible_says_what_it_would_do_and_cost() {
    let plan =
        Plan { survivor: "a1b2c3d4e5f60718".to_owned(), epoch: 1, unaccounted: vec!["0f1e2d3c4b5a6978".to_owned()] };
    let possible = Answer::Recovery(Recovery { peers: peers(), verdict: Verdict::Possible(plan.clone()) });
    assert!(report(&possible, View::Text(Paint::PLAIN)).well);
    let golden = "\
Nothing was changed yet.
No quorum can answer any more. With --yes, node a1b2c3d4e5f60718, whose log is
the longest (term 7, index 812), forms the cluster anew under epoch 1, with the
ledger that it has. Nothing is known of the voters 0f1e2d3c4b5a6978: what only
they have acknowledged is lost for good, and they are refused should they come
back. Make sure that they are gone before you go on.
";
    assert_eq!(text(&possible), format!("{TABLE}{golden}"));
    let done = Answer::Recovery(Recovery { peers: peers(), verdict: Verdict::Done(plan) });
    let golden = "\
Node a1b2c3d4e5f60718 has formed the cluster anew, under epoch 1. The others
join it by themselves.
";
    assert_eq!(text(&done), format!("{TABLE}{golden}"));
}

#[test]
fn json_is_the_answer_itself() {
    let report = report(&Answer::Status(Box::new(fixtures::status())), View::Json);
    assert!(report.well);
    assert_eq!(serde_json::from_str::<Status>(&report.text).unwrap(), fixtures::status());
}

#[test]
fn sizes_are_short() {
    let sizes = [None, Some(0), Some(1_025), Some(1 << 20), Some(u64::MAX)].map(size);
    assert_eq!(sizes, ["of unknown size", "0 KiB", "2 KiB", "1.0 MiB", "17592186044415.9 MiB"]);
}
