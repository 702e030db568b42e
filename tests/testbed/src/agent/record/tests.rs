//! The states of section 4 of the recipe: what a real kubelet was seen to report.

use super::*;
use k8s_openapi::jiff::Timestamp;

fn time() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

fn ended(code: i32) -> State {
    State::Terminated(ContainerStateTerminated { exit_code: code, ..ContainerStateTerminated::default() })
}

fn running(mut record: Record, id: &str) -> Record {
    record.state = State::Running { since: time() };
    record.id = Some(id.to_owned());
    record.started = true;
    record.ready = true;
    record
}

fn pod() -> [Record; 2] {
    [Record::new("init", "i", Kind::Init, true), Record::new("app", "a", Kind::Main, true)]
}

fn status(records: &[Record], ips: &[&str]) -> PodStatus {
    let frame = Frame {
        host_ip: "10.76.0.2".parse().unwrap(),
        pod_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        start_time: time(),
        failure: None,
        restart_policy: "Always".into(),
    };
    pod_status(&Pod::default(), &frame, records, &time())
}

#[test]
fn first_status_waits_without_an_address() {
    let status = status(&pod(), &[]);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.pod_ip, None);
    let init = &status.init_container_statuses.unwrap()[0];
    let waiting = init.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    assert_eq!((init.restart_count, init.container_id.as_deref()), (0, None));
}

#[test]
fn a_running_init_container_keeps_the_pod_pending() {
    let [init, app] = pod();
    let status = status(&[running(init, "containerd://a"), app], &["10.77.0.2"]);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.77.0.2"));
    assert_eq!(status.init_container_statuses.unwrap()[0].container_id.as_deref(), Some("containerd://a"));
}

#[test]
fn a_finished_init_container_is_seen_before_the_phase_changes() {
    let [init, app] = pod();
    let mut init = running(init, "containerd://a");
    init.state = ended(0);
    let records = [init, app];
    assert_eq!(phase(&records, "Always"), "Pending");
    let [init, app] = records;
    let records = [init, running(app, "containerd://b")];
    assert_eq!(phase(&records, "Always"), "Running");
    let ready = status(&records, &["10.77.0.2"]);
    assert!(ready.init_container_statuses.unwrap()[0].ready);
    let conditions = ready.conditions.unwrap();
    assert!(conditions.iter().all(|condition| condition.status == "True"), "{conditions:?}");
}

#[test]
fn the_phase_follows_the_restart_policy() {
    let [mut init, app] = pod();
    init.state = ended(1);
    assert_eq!(phase(&[init.clone(), app.clone()], "Always"), "Pending");
    assert_eq!(phase(&[init.clone(), app.clone()], "Never"), "Failed");
    init.state = ended(0);
    let mut app = running(app, "b");
    app.state = ended(1);
    assert_eq!(phase(&[init.clone(), app.clone()], "Always"), "Running");
    assert_eq!(phase(&[init.clone(), app.clone()], "OnFailure"), "Running");
    assert_eq!(phase(&[init.clone(), app.clone()], "Never"), "Failed");
    app.state = ended(0);
    assert_eq!(phase(&[init, app], "OnFailure"), "Succeeded");
}

#[test]
fn a_new_sandbox_brings_a_running_pod_back_to_pending() {
    let [init, app] = pod();
    let init = running(init, "containerd://b");
    let mut app = app;
    // The kubelet forgets the main containers' state with their sandbox.
    app.id = None;
    assert_eq!(phase(&[init, app], "Always"), "Pending");
}

#[test]
fn foreign_conditions_and_transition_times_are_kept() {
    let old = PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(time()),
        ..PodCondition::default()
    };
    let pod_object =
        Pod { status: Some(PodStatus { conditions: Some(vec![old]), ..PodStatus::default() }), ..Pod::default() };
    let frame = Frame {
        host_ip: "10.76.0.2".parse().unwrap(),
        pod_ips: Vec::new(),
        start_time: time(),
        failure: None,
        restart_policy: "Always".into(),
    };
    let status = pod_status(&pod_object, &frame, &pod(), &time());
    assert!(status.conditions.unwrap().iter().any(|condition| condition.type_ == "PodScheduled"));
}
