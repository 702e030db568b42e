//! Each row names what a pod's author did, and what is promised for it.

use super::*;
use crate::domain::ids::PodUid;

fn pod(target: Target) -> Pod {
    Pod {
        reference: PodRef { namespace: "apps".into(), name: "web-0".into(), uid: PodUid::from("uid-1") },
        node: "n".into(),
        service_account: "default".into(),
        host_network: false,
        deleting: false,
        phase: Phase::Pending,
        ips: vec!["10.0.0.1".parse().unwrap()],
        wish: Some(Wish { role: Some("web".into()), container: Some("install".into()), target }),
    }
}

fn init(state: ContainerState, last: Option<Termination>) -> Target {
    Target::Init { sidecar: false, never_restarts: false, restarts: 0, status: ContainerStatus { state, last } }
}

fn running(id: &str) -> ContainerState {
    ContainerState::Running { id: Some(ContainerId::from(id)), since: None }
}

fn ended(id: &str, exit_code: i32) -> Termination {
    Termination { id: Some(ContainerId::from(id)), exit_code, at: None, message: None }
}

fn refusal(pod: &Pod) -> Refusal {
    match decide(pod) {
        Decision::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_running_init_container_with_id_and_address_is_delivered_to() {
    let Decision::Deliver(candidate) = decide(&pod(init(running("a"), None))) else { panic!() };
    assert_eq!(candidate.container_id, ContainerId::from("a"));
    assert_eq!(candidate.role.as_str(), "web");
}

#[test]
fn running_without_id_or_without_address_waits() {
    let no_id = ContainerState::Running { id: None, since: None };
    assert_eq!(decide(&pod(init(no_id, None))), Decision::Wait);
    let mut no_ip = pod(init(running("a"), None));
    no_ip.ips.clear();
    assert_eq!(decide(&no_ip), Decision::Wait);
    assert_eq!(decide(&pod(init(ContainerState::Waiting, None))), Decision::Wait);
}

#[test]
fn a_pod_that_is_deleted_or_not_pending_is_left_alone() {
    let mut gone = pod(init(running("a"), None));
    gone.deleting = true;
    assert_eq!(decide(&gone), Decision::NotOurs);
    let mut up = pod(init(running("a"), None));
    up.phase = Phase::Running;
    assert_eq!(decide(&up), Decision::NotOurs);
}

// Bad-input table: annotation naming no init container, an ordinary container, one that ended without success and
// will not restart.
#[test]
fn an_annotation_that_names_no_waiting_init_container_is_refused_with_its_reason() {
    assert!(matches!(refusal(&pod(Target::Missing)), Refusal::NoSuchContainer(_)));
    assert!(matches!(refusal(&pod(Target::Ordinary)), Refusal::OrdinaryContainer(_)));
    let never = Target::Init {
        sidecar: false,
        never_restarts: true,
        restarts: 0,
        status: ContainerStatus { state: ContainerState::Terminated(ended("a", 3)), last: None },
    };
    assert_eq!(refusal(&pod(never)), Refusal::WillNotRestart("install".into(), 3));
    let again = init(ContainerState::Terminated(ended("a", 3)), None);
    assert_eq!(decide(&pod(again)), Decision::Wait);
}

#[test]
fn one_annotation_without_the_other_is_refused() {
    let mut half = pod(init(running("a"), None));
    half.wish.as_mut().unwrap().role = None;
    assert_eq!(refusal(&half), Refusal::AnnotationMissing(ROLE_ANNOTATION));
    half.wish.as_mut().unwrap().role = Some("web".into());
    half.wish.as_mut().unwrap().container = None;
    assert_eq!(refusal(&half), Refusal::AnnotationMissing(CONTAINER_ANNOTATION));
}

// Bad-input table: role with `../`.
#[test]
fn a_role_that_would_leave_its_path_is_refused() {
    let mut bad = pod(init(running("a"), None));
    bad.wish.as_mut().unwrap().role = Some("../../sys/seal".into());
    assert!(matches!(refusal(&bad), Refusal::InvalidRole(_)));
}

#[test]
fn a_native_sidecar_is_served_at_its_first_start_only() {
    let sidecar = |restarts| Target::Init {
        sidecar: true,
        never_restarts: false,
        restarts,
        status: ContainerStatus { state: running("a"), last: None },
    };
    assert!(matches!(decide(&pod(sidecar(0))), Decision::Deliver(_)));
    assert!(matches!(refusal(&pod(sidecar(1))), Refusal::RestartedSidecar(_)));
}

#[test]
fn the_fate_of_a_start_is_read_from_whatever_the_pod_still_says() {
    let a = ContainerId::from("a");
    let fate_in = |state, last| {
        let found = pod(init(state, last));
        fate(Some(&found), &found.reference, &a)
    };
    let exited = |code| Fate::Exited { code, message: None, at: None, next: None };
    let replaced = |code| Fate::Exited { code, message: None, at: None, next: Some(Timestamp::default()) };
    assert_eq!(fate_in(running("a"), None), Fate::Open);
    assert_eq!(fate_in(ContainerState::Terminated(ended("a", 0)), None), exited(0));
    assert_eq!(fate_in(running("b"), Some(ended("a", 1))), replaced(1));
    assert_eq!(fate_in(ContainerState::Terminated(ended("b", 0)), Some(ended("a", 1))), replaced(1));
    assert_eq!(fate_in(ContainerState::Waiting, Some(ended("a", 1))), exited(1));
    assert_eq!(fate_in(running("b"), None), Fate::Lost);
    assert_eq!(fate_in(running("c"), Some(ended("b", 0))), Fate::Lost);
    // A stale read shows what was before: nothing is concluded from it.
    assert_eq!(fate_in(ContainerState::Waiting, None), Fate::Open);
}

#[test]
fn a_pod_whose_containers_run_has_passed_its_init_container() {
    let mut up = pod(init(running("a"), None));
    up.phase = Phase::Running;
    let reference = up.reference.clone();
    assert_eq!(fate(Some(&up), &reference, &ContainerId::from("a")), Fate::Passed);
}

// Bad-input table: a pod deleted and re-created under its name.
#[test]
fn another_pod_of_the_same_name_settles_nothing_in_favour() {
    let found = pod(init(running("a"), None));
    let mut reference = found.reference.clone();
    reference.uid = PodUid::from("uid-0");
    assert_eq!(fate(Some(&found), &reference, &ContainerId::from("a")), Fate::Lost);
    assert_eq!(fate(None, &reference, &ContainerId::from("a")), Fate::Lost);
}
