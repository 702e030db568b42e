//! Each cause, from facts alone.

use super::*;
use crate::domain::ids::{BootId, PodRef, PodUid, RoleName, Term, Timestamp};
use crate::domain::ledger::{Attempt, Author};
use crate::domain::pod::{Termination, Wish};

fn name() -> PodName {
    "team-a/web".parse().unwrap()
}

fn running() -> ContainerState {
    ContainerState::Running { id: Some("containerd://a".into()), since: Some(Timestamp(1_000)) }
}

fn ended(code: i32) -> Termination {
    Termination { id: Some("containerd://a".into()), exit_code: code, at: Some(Timestamp(5_000)), message: None }
}

/// A pod whose init container is in `state`, after a start that ended as `last`.
fn pod(state: ContainerState, last: Option<Termination>) -> Pod {
    Pod {
        reference: PodRef { namespace: "team-a".into(), name: "web".into(), uid: PodUid::from("uid-1") },
        node: "node-1".into(),
        service_account: "default".into(),
        host_network: false,
        deleting: false,
        phase: Phase::Pending,
        ips: vec!["10.0.0.7".parse().unwrap()],
        wish: Some(Wish {
            role: Some("web".into()),
            container: Some("install".into()),
            target: Target::Init {
                sidecar: false,
                never_restarts: false,
                restarts: 0,
                status: ContainerStatus { state, last },
            },
        }),
    }
}

fn entry(state: AttemptState, closed: bool) -> (InstanceKey, Entry) {
    let key = InstanceKey {
        pod: PodUid::from("uid-1"),
        container: "install".into(),
        container_id: "containerd://a".into(),
        generation: 0,
    };
    let attempt = Attempt {
        id: AttemptId::from("0a"),
        by: Author { term: Term(7), boot: BootId(1) },
        state,
        accessors: None,
        pushed_until: None,
    };
    let entry = Entry {
        pod: PodRef { namespace: "team-a".into(), name: "web".into(), uid: PodUid::from("uid-1") },
        role: RoleName::parse("web").unwrap(),
        attempts: vec![attempt],
        closed: closed.then_some(Timestamp(6_000)),
    };
    (key, entry)
}

const ACCEPTED: AttemptState = AttemptState::Over(Verdict::Accepted);

fn work() -> Work {
    Work {
        stage: Some(Stage::Waiting),
        at_work: false,
        next: Some(Duration::from_secs(2)),
        seen_for: Some(Duration::from_secs(9)),
        dial_failures: 0,
        attempt_failures: 0,
        crashes: 0,
        gate: None,
        address: None,
        limit: None,
        wrong_pod: false,
    }
}

/// What a leader knows that is well, of a pod that waits.
struct Case {
    name: PodName,
    pod: Option<Pod>,
    watched: bool,
    ledger: Vec<(InstanceKey, Entry)>,
    replica: Replica,
    vault: Option<String>,
    watch: Option<String>,
    work: Option<Work>,
    told: Option<Announcement>,
}

fn case() -> Case {
    Case {
        name: name(),
        pod: Some(pod(running(), None)),
        watched: true,
        ledger: Vec::new(),
        replica: Replica::Leads,
        vault: None,
        watch: None,
        work: Some(work()),
        told: None,
    }
}

impl Case {
    fn facts(&self) -> Facts<'_> {
        Facts {
            name: &self.name,
            watched: self.watched,
            found: self.pod.as_ref().map_or(Found::Missing, Found::Pod),
            ledger: &self.ledger,
            replica: self.replica.clone(),
            vault: self.vault.clone(),
            watch: self.watch.clone(),
            work: self.work.clone(),
            told: self.told.clone(),
        }
    }

    fn concludes(&self) -> Conclusion {
        conclude(&self.facts())
    }
}

/// The conclusion of the usual case, changed.
fn with(change: impl FnOnce(&mut Case)) -> Conclusion {
    let mut case = case();
    change(&mut case);
    case.concludes()
}

/// The same with another pod.
fn of(change: impl FnOnce(&mut Pod)) -> Conclusion {
    with(|case| change(case.pod.as_mut().unwrap()))
}

/// That its sentence is one, names the pod and the cause.
fn says(conclusion: &Conclusion, words: &[&str]) {
    let sentence = conclusion.sentence(&name());
    assert!(sentence.contains("team-a/web") && sentence.ends_with('.') && !sentence.contains('\n'), "{sentence}");
    assert_eq!(sentence.matches(". ").count(), 0, "more than one sentence: {sentence}");
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

#[test]
fn a_pod_that_is_not_there() {
    let conclusion = with(|case| (case.pod, case.work) = (None, None));
    assert_eq!(conclusion, Conclusion::NotFound);
    says(&conclusion, &["There is no pod"]);
    let deleted = with(|case| {
        (case.pod, case.work) = (None, None);
        case.ledger = vec![entry(ACCEPTED, true)];
    });
    says(&deleted, &["was deleted", "attempt 0a was taken"]);
    let lost = with(|case| {
        case.pod = None;
        case.ledger = vec![entry(AttemptState::Over(Verdict::Lost), true)];
    });
    says(&lost, &["was deleted", "without a word"]);
    says(&of(|pod| pod.deleting = true), &["being deleted"]);
}

#[test]
fn a_pod_that_cannot_be_read() {
    let unreadable = |watched| {
        let case = Case { watched, ..case() };
        let found = Found::Unreadable("the API server answered 403: no".to_owned());
        conclude(&Facts { found, ..case.facts() })
    };
    says(&unreadable(true), &["cannot be told", "403"]);
    assert_eq!(unreadable(false), Conclusion::NotWatched, "where one namespace is watched, others are not readable");
    assert_eq!(unreadable(true).outlook(), Outlook::Unknown);
}

#[test]
fn a_pod_that_does_not_ask_or_asks_wrongly() {
    says(&of(|pod| pod.wish = None), &["carries none of our annotations"]);
    let wish = |change: fn(&mut Wish)| of(|pod| change(pod.wish.as_mut().unwrap()));
    says(&wish(|wish| wish.container = None), &["vault-init-container is missing"]);
    says(&wish(|wish| wish.role = None), &["vault-approle is missing"]);
    says(&wish(|wish| wish.role = Some("../x".into())), &["no AppRole name"]);
    says(&wish(|wish| wish.target = Target::Missing), &["no init container of that name"]);
    says(&wish(|wish| wish.target = Target::Ordinary), &["an ordinary container"]);
    let never = wish(|wish| {
        let status = ContainerStatus { state: ContainerState::Terminated(ended(1)), last: None };
        wish.target = Target::Init { sidecar: false, never_restarts: true, restarts: 0, status };
    });
    says(&never, &["restartPolicy is Never"]);
}

#[test]
fn a_namespace_that_is_not_watched() {
    let conclusion = with(|case| case.watched = false);
    says(&conclusion, &["kubernetes.watchNamespace", "team-a"]);
    assert!(conclusion.advice(&name())[0].contains("kubernetes.watchNamespace"));
}

#[test]
fn a_pod_that_is_past_its_init_container() {
    let served = |phase, ledger: Vec<(InstanceKey, Entry)>| {
        with(|case| {
            case.pod.as_mut().unwrap().phase = phase;
            (case.ledger, case.work) = (ledger, None);
        })
    };
    for phase in [Phase::Running, Phase::Succeeded] {
        let known = served(phase, vec![entry(ACCEPTED, true)]);
        assert_eq!((known.clone(), known.outlook()), (Conclusion::Delivered(Some("0a".into())), Outlook::Served));
        says(&known, &["has its token", "attempt 0a"]);
        says(&served(phase, vec![]), &["passed its init container", "10 minutes"]);
    }
    says(&served(Phase::Failed, vec![]), &["failed"]);
    says(&served(Phase::Unknown, vec![]), &["node does not say"]);
    let done = with(|case| {
        case.pod = Some(pod(ContainerState::Terminated(ended(0)), None));
        case.ledger = vec![entry(ACCEPTED, true)];
    });
    assert_eq!(done, Conclusion::Delivered(Some("0a".into())), "done, and not Running yet");
}

#[test]
fn an_init_container_that_does_not_run() {
    let state = |state, last| with(|case| case.pod = Some(pod(state, last)));
    assert_eq!(state(ContainerState::Waiting, None), Conclusion::InitWaiting);
    says(&state(ContainerState::Waiting, None), &["has not been started"]);
    for (code, words) in [
        (2, "environment variables"),
        (3, "within its TIMEOUT"),
        (4, "CREDENTIALS_PATH"),
        (5, "port 50000"),
        (6, "VAULT_ROLE_ID"),
        (137, "killed"),
    ] {
        let conclusion = state(ContainerState::Terminated(ended(code)), None);
        says(&conclusion, &[&format!("exit code {code}"), words]);
        assert_eq!(state(ContainerState::Waiting, Some(ended(code))), conclusion, "it waits for its next start");
        assert!(!conclusion.advice(&name()).is_empty());
    }
    says(&state(ContainerState::Terminated(ended(99)), None), &["exit code 99"]);
    says(&of(|pod| pod.ips.clear()), &["no address"]);
    let nameless = ContainerState::Running { id: None, since: None };
    says(&state(nameless, None), &["no id"]);
}

#[test]
fn a_cluster_that_cannot_deliver() {
    let replica = |replica: Replica| with(|case| (case.replica, case.work) = (replica, None));
    let forming = replica(Replica::Forming(vec!["peer a is silent; it is waited for".to_owned(), "b".to_owned()]));
    says(&forming, &["no cluster yet", "peer a is silent"]);
    assert_eq!(forming.advice(&name()).len(), 2, "the other reasons, and where to read on");
    says(&replica(Replica::Leaderless), &["no replica leads"]);
    says(&replica(Replica::WithoutQuorum), &["lost its quorum"]);
    // A sealed Vault is not the cause while nobody would ask it.
    let both = with(|case| (case.replica, case.vault) = (Replica::Leaderless, Some("Vault is sealed".to_owned())));
    assert_eq!(both, Conclusion::NoLeader);
}

#[test]
fn a_vault_that_issues_nothing() {
    for (cause, word) in [
        ("Vault is sealed; unseal it", "sealed"),
        ("Vault is a standby that does not forward requests; point vault.addr at the active node", "standby"),
        ("the controller is not logged in to Vault: our token is not valid any more", "not logged in"),
    ] {
        for replica in [Replica::Leads, Replica::Follows("pod kv-1".to_owned())] {
            let conclusion = with(|case| (case.vault, case.replica) = (Some(cause.to_owned()), replica));
            says(&conclusion, &["Vault issues nothing now", word]);
        }
    }
    let gate = |why: Announcement| with(|case| case.work.as_mut().unwrap().gate = Some((why, Duration::from_secs(3))));
    let sealed = gate(Announcement::VaultUnavailable("Vault is sealed; unseal it".to_owned()));
    says(&sealed, &["Vault is sealed."]);
    assert_eq!(sealed.advice(&name())[0], "Unseal it.", "what follows the cause is what to do");
    for (cause, word) in [
        ("the AppRole does not exist; create it", "does not exist"),
        ("Vault denies permission (403); the policy needs more", "denies permission"),
        ("Vault refuses the request with 400: bad", "400"),
    ] {
        let conclusion = gate(Announcement::RoleRefused(cause.to_owned()));
        says(&conclusion, &["Vault issues nothing for its AppRole", word]);
        assert!(conclusion.advice(&name()).last().unwrap().contains("kubernetes-vault check"));
    }
}

#[test]
fn a_pod_that_a_limit_keeps_waiting() {
    for (limit, word) in [(Limit::Namespace, "limits.perNamespacePerSecond"), (Limit::InFlight, "limits.inFlight")] {
        let conclusion = with(|case| case.work.as_mut().unwrap().limit = Some(limit));
        says(&conclusion, &["waits for its turn", word]);
        assert!(conclusion.advice(&name())[0].contains("section limits"));
    }
}

#[test]
fn a_delivery_that_goes_wrong() {
    let told = |what: Announcement| with(|case| case.told = Some(what));
    says(
        &told(Announcement::TokenUsedByAnother("0a".into())),
        &["somebody else used the wrapping token of attempt 0a"],
    );
    says(&told(Announcement::LedgerFull), &["ledger is full"]);
    let retrying = told(Announcement::Retrying("it answered 503: Vault is down.".to_owned()));
    says(&retrying, &["came to nothing", "it answered 503"]);
    says(&with(|case| case.work.as_mut().unwrap().attempt_failures = 2), &["came to nothing"]);
    let silent = |change: fn(&mut Case)| {
        with(|case| {
            case.told = Some(Announcement::Unreachable("connection refused".to_owned()));
            case.work.as_mut().unwrap().dial_failures = 12;
            change(case);
        })
    };
    says(&silent(|_| ()), &["does not answer on port 50000", "connection refused"]);
    says(&silent(|case| case.told = None), &["does not answer on port 50000."]);
    let clash = silent(|case| case.pod.as_mut().unwrap().host_network = true);
    says(&clash, &["port 50000 of its node"]);
    let stale = with(|case| case.told = Some(Announcement::Unreachable("connection refused".to_owned())));
    assert_eq!(stale, Conclusion::Queued, "it has answered since");
    let shared = with(|case| case.work.as_mut().unwrap().address = Some(AddressTaken::Shared("10.0.0.7".to_owned())));
    says(&shared, &["shows its address 10.0.0.7 too"]);
    let busy = with(|case| {
        case.pod.as_mut().unwrap().host_network = true;
        case.work.as_mut().unwrap().address = Some(AddressTaken::Busy);
    });
    assert_eq!(busy, Conclusion::HostNetworkClash);
}

#[test]
fn a_push_that_was_refused_for_good() {
    let refused = with(|case| {
        case.ledger = vec![entry(AttemptState::Over(Verdict::Refused), true)];
        case.work.as_mut().unwrap().stage = Some(Stage::Closed);
        case.told = Some(Announcement::PushRefused("it answered 412: Vault does not know VAULT_ROLE_ID.".to_owned()));
    });
    says(&refused, &["refused the push for good", "it answered 412"]);
    // Another replica knows it from the ledger alone.
    let elsewhere = with(|case| {
        case.ledger = vec![entry(AttemptState::Over(Verdict::Refused), true)];
        (case.replica, case.work) = (Replica::Follows("pod kv-1".to_owned()), None);
    });
    assert_eq!(elsewhere, Conclusion::RefusedForGood(None));
}

#[test]
fn answers_that_end_or_delay_it_without_being_a_refusal() {
    let earlier = with(|case| {
        case.ledger = vec![entry(AttemptState::Over(Verdict::Refused), true)];
        case.work.as_mut().unwrap().stage = Some(Stage::Settled);
        case.told = Some(Announcement::DeliveredEarlier);
    });
    assert_eq!((earlier.clone(), earlier.outlook()), (Conclusion::DoneEarlier, Outlook::Served));
    let elsewhere = with(|case| case.work.as_mut().unwrap().wrong_pod = true);
    assert_eq!(elsewhere.outlook(), Outlook::Stuck);
    says(&elsewhere, &["belongs to another pod"]);
}

#[test]
fn a_delivery_that_goes_on() {
    let still = with(|case| {
        case.ledger = vec![entry(ACCEPTED, true)];
        case.work.as_mut().unwrap().stage = Some(Stage::Settled);
    });
    assert_eq!((still.clone(), still.outlook()), (Conclusion::DeliveredStillRuns("0a".into()), Outlook::Served));
    says(&still, &["attempt 0a", "not ended yet"]);
    let again = with(|case| {
        case.ledger = vec![entry(ACCEPTED, true)];
        case.told = Some(Announcement::Reopened);
    });
    says(&again, &["served again"]);
    says(&with(|case| case.work.as_mut().unwrap().at_work = true), &["being served now"]);
    says(&case().concludes(), &["in the queue"]);
    let claimed = with(|case| case.ledger = vec![entry(AttemptState::Claimed, false)]);
    assert_eq!(claimed, Conclusion::Queued, "claimed, and dialled again soon");
    says(&with(|case| case.work.as_mut().unwrap().crashes = 4), &["4 starts of its init container"]);
    for conclusion in [again, claimed] {
        assert_eq!(conclusion.outlook(), Outlook::OnItsWay);
    }
}

#[test]
fn what_only_the_leader_knows_is_asked_there() {
    let follower = with(|case| {
        (case.replica, case.work) = (Replica::Follows("pod kv-1 at 10.0.0.2".to_owned()), None);
        case.ledger = vec![entry(AttemptState::Unknown, false)];
    });
    says(&follower, &["the leader, pod kv-1", "no complete answer came"]);
    let advice = follower.advice(&name());
    assert!(advice[0].contains("kubernetes-vault explain pod team-a/web in pod kv-1"), "{advice:?}");
    assert_eq!(follower.outlook(), Outlook::Unknown);
}

#[test]
fn a_leader_whose_watch_has_not_shown_the_pod() {
    let unseen = with(|case| (case.work, case.watch) = (None, Some("the API server answered 403: no".to_owned())));
    says(&unseen, &["has not seen it running", "403"]);
    assert_eq!(unseen.outlook(), Outlook::Stuck);
}

#[test]
fn facts_are_told_without_accessors_and_without_what_is_not_known() {
    let mut case = case();
    let (key, mut known) = entry(AttemptState::Issued, false);
    known.attempts[0].accessors =
        Some(crate::domain::ledger::Accessors { wrapping: "accessor-canary".into(), secret_id: None });
    case.ledger = vec![(key, known)];
    let told = facts(&case.facts(), Timestamp(10_000));
    let text = |name: &str| told.iter().find(|fact| fact.name == name).map(|fact| fact.text.as_str());
    assert_eq!(text("pod"), Some("uid uid-1, Pending, node node-1, address 10.0.0.7"));
    assert_eq!(text("annotations"), Some("AppRole \"web\", init container \"install\""));
    assert_eq!(text("initContainer"), Some("running for 9 s, containerd://a"));
    assert_eq!(text("ledger"), Some("install containerd://a: open; attempt 0a issued in term 7"));
    assert_eq!(text("replica"), Some("leads"));
    assert_eq!(text("work"), Some("waits for its next attempt, seen running for 9 s, its turn comes in 2 s"));
    assert_eq!((text("vault"), text("watch")), (Some("usable"), None));
    assert!(!format!("{told:?}").contains("accessor-canary"));
}

#[test]
fn a_crash_loop_or_many_attempts_stay_a_short_list() {
    let mut case = case();
    let many = |n: u32| {
        let (mut key, mut one) = entry(AttemptState::Over(Verdict::Refused), true);
        key.generation = n;
        one.attempts = vec![one.attempts[0].clone(); 64];
        (key, one)
    };
    case.ledger = (0..40).map(many).collect();
    let told = facts(&case.facts(), Timestamp(10_000));
    let ledger: Vec<&Fact> = told.iter().filter(|fact| fact.name == "ledger").collect();
    assert_eq!(ledger.len(), 5);
    assert!(ledger[0].text.contains("59 earlier attempts") && ledger[0].text.len() < 500, "{}", ledger[0].text);
}

#[test]
fn every_kind_is_named_once_and_is_in_the_documents() {
    let text = || "words".to_owned();
    let all = [
        Conclusion::NotFound,
        Conclusion::Deleted(None),
        Conclusion::Unreadable(text()),
        Conclusion::NotWatched,
        Conclusion::NotAnnotated,
        Conclusion::Refused(Refusal::NoSuchContainer("x".into())),
        Conclusion::Deleting,
        Conclusion::Delivered(None),
        Conclusion::PodFailed(Phase::Failed),
        Conclusion::InitWaiting,
        Conclusion::InitFailed(1),
        Conclusion::NoAddress,
        Conclusion::NoContainerId,
        Conclusion::NoCluster(vec![]),
        Conclusion::NoLeader,
        Conclusion::NoQuorum,
        Conclusion::DeliveredStillRuns("0a".into()),
        Conclusion::Reopened,
        Conclusion::DoneEarlier,
        Conclusion::WrongPod,
        Conclusion::RefusedForGood(None),
        Conclusion::RoleRefused(text()),
        Conclusion::VaultUnavailable(text()),
        Conclusion::LedgerFull,
        Conclusion::AddressShared(text()),
        Conclusion::TokenUsedByAnother("0a".into()),
        Conclusion::HostNetworkClash,
        Conclusion::Unreachable(None),
        Conclusion::Retrying(None),
        Conclusion::CrashLoop(2),
        Conclusion::Limited(Limit::Role),
        Conclusion::Delivering,
        Conclusion::Queued,
        Conclusion::NotSeen(None),
        Conclusion::AskTheLeader(text(), None),
    ];
    let kinds: std::collections::BTreeSet<&str> = all.iter().map(Conclusion::kind).collect();
    assert_eq!(kinds.len(), all.len());
    let page = include_str!("../../../docs/troubleshooting.md");
    for conclusion in &all {
        says(conclusion, &[]);
        let kind = conclusion.kind();
        assert!(page.contains(&format!("`{kind}`")), "docs/troubleshooting.md says nothing of {kind}");
    }
}
