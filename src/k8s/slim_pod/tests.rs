//! The trace that a real kubelet was seen to write, and what is missing, null or odd.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::pod::{CONTAINER_ANNOTATION, Decision, Fate, ROLE_ANNOTATION, decide, fate};

fn mk_pod(status: &Value) -> Value {
    json!({
        "metadata": {
            "namespace": "team-a", "name": "web-0", "uid": "u-1", "resourceVersion": "41",
            "labels": {"app": "web"},
            "annotations": {ROLE_ANNOTATION: "web", CONTAINER_ANNOTATION: "install", "other": "x"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "nodeName": "node-1", "serviceAccountName": "web", "restartPolicy": "Always",
            "initContainers": [{"name": "first", "image": "a"}, {"name": "install", "image": "b"}],
            "containers": [{"name": "app", "image": "c"}],
        },
        "status": status,
    })
}

fn read(value: Value) -> Pod {
    serde_json::from_value::<SlimPod>(value).unwrap().into_pod().unwrap()
}

fn init_status(pod: &Pod) -> (&ContainerStatus, u32) {
    match &pod.wish.as_ref().unwrap().target {
        Target::Init { status, restarts, .. } => (status, *restarts),
        other => panic!("{other:?}"),
    }
}

fn status_of(ip: &str, init: &Value) -> Value {
    json!({
        "phase": "Pending", "podIP": ip, "podIPs": [{"ip": ip}],
        "initContainerStatuses": [{"name": "first", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, init],
    })
}

#[test]
fn the_trace_of_a_real_kubelet_is_read_as_it_was_meant() {
    let created = read(mk_pod(&json!({"phase": "Pending"})));
    assert_eq!(decide(&created), Decision::Wait);

    let waiting = json!({"name": "install", "containerID": "", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}, "lastState": {}});
    assert_eq!(decide(&read(mk_pod(&json!({"phase": "Pending", "initContainerStatuses": [waiting]})))), Decision::Wait);

    let running = json!({"name": "install", "containerID": "containerd://A", "restartCount": 0, "state": {"running": {"startedAt": "2026-08-01T10:00:00Z"}}, "lastState": {}});
    let pod = read(mk_pod(&status_of("10.244.0.4", &running)));
    let Decision::Deliver(candidate) = decide(&pod) else { panic!("{:?}", decide(&pod)) };
    assert_eq!(candidate.container_id, ContainerId::from("containerd://A"));
    assert_eq!(candidate.running_since, Some(Timestamp(1_785_578_400_000)));
    assert_eq!(pod.ips, ["10.244.0.4".parse::<IpAddr>().unwrap()]);

    let ended = json!({"name": "install", "restartCount": 0, "containerID": "containerd://A", "state": {"terminated": {"exitCode": 0, "containerID": "containerd://A", "finishedAt": "2026-08-01T10:00:05Z", "message": "attempt=x1"}}});
    let after = read(mk_pod(&status_of("10.244.0.4", &ended)));
    let outcome = fate(Some(&after), &pod.reference, &candidate.container_id);
    let at = Some(Timestamp(1_785_578_405_000));
    assert_eq!(outcome, Fate::Exited { code: 0, message: Some("attempt=x1".into()), at, next: None });

    let again = json!({"name": "install", "restartCount": 1, "containerID": "containerd://B", "state": {"running": {"startedAt": "2026-08-01T10:00:09Z"}}, "lastState": {"terminated": {"exitCode": 137, "containerID": "containerd://A", "reason": "Error"}}});
    let again = read(mk_pod(&status_of("10.244.0.5", &again)));
    let replaced = fate(Some(&again), &pod.reference, &candidate.container_id);
    let next = Some(Timestamp(1_785_578_409_000));
    assert_eq!(replaced, Fate::Exited { code: 137, message: None, at: None, next });
    let (status, restarts) = init_status(&again);
    assert_eq!((restarts, status.last.as_ref().map(|end| end.exit_code)), (1, Some(137)));
    assert!(matches!(decide(&again), Decision::Deliver(new) if new.container_id.as_str() == "containerd://B"));
}

#[test]
fn the_annotations_have_the_names_of_the_domain() {
    let pod = read(mk_pod(&Value::Null));
    let wish = pod.wish.unwrap();
    assert_eq!((wish.role.as_deref(), wish.container.as_deref()), (Some("web"), Some("install")));
}

#[test]
fn a_pod_without_our_annotations_has_no_wish_and_one_with_either_has() {
    let mut pod = mk_pod(&Value::Null);
    pod["metadata"]["annotations"] = json!({"other": "x"});
    assert_eq!(read(pod.clone()).wish, None);
    pod["metadata"]["annotations"] = Value::Null;
    assert_eq!(read(pod.clone()).wish, None);
    pod["metadata"]["annotations"] = json!({ROLE_ANNOTATION: "web"});
    assert_eq!(read(pod).wish.unwrap().target, Target::Missing);
}

#[test]
fn the_target_is_found_by_name_in_the_spec() {
    let mut pod = mk_pod(&Value::Null);
    for (name, expected) in [("nobody", Target::Missing), ("app", Target::Ordinary)] {
        pod["metadata"]["annotations"][CONTAINER_ANNOTATION] = json!(name);
        assert_eq!(read(pod.clone()).wish.unwrap().target, expected);
    }
    pod["metadata"]["annotations"][CONTAINER_ANNOTATION] = json!("install");
    pod["spec"]["initContainers"][1]["restartPolicy"] = json!("Always");
    pod["spec"]["restartPolicy"] = json!("Never");
    let target = read(pod).wish.unwrap().target;
    assert!(matches!(target, Target::Init { sidecar: true, never_restarts: true, .. }), "{target:?}");
}

#[test]
fn addresses_that_are_none_are_skipped_and_the_old_field_stands_in() {
    let ips = |status: Value| read(mk_pod(&status)).ips;
    assert_eq!(ips(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "fd00::1"}, {"ip": "x"}, {}]})).len(), 1);
    assert_eq!(ips(json!({"podIP": "10.0.0.1"})), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(ips(json!({"podIP": "", "podIPs": []})), Vec::<IpAddr>::new());
}

#[test]
fn what_is_absent_null_or_unknown_is_no_error_but_an_identity_is_needed() {
    let bare = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": null, "status": null});
    let pod = read(bare);
    assert_eq!((pod.phase, pod.deleting, &*pod.node), (Phase::Pending, false, ""));
    let mut odd = mk_pod(&json!({"phase": "Sleeping", "initContainerStatuses": null, "podIPs": null}));
    odd["metadata"]["deletionTimestamp"] = json!("2026-08-01T10:00:00Z");
    let pod = read(odd);
    assert_eq!((pod.phase, pod.deleting), (Phase::Unknown, true));
    for missing in ["namespace", "name", "uid"] {
        let mut pod = mk_pod(&Value::Null);
        pod["metadata"][missing] = json!("");
        let slim: SlimPod = serde_json::from_value(pod).unwrap();
        assert_eq!(slim.into_pod(), Err(NoIdentity(missing)));
    }
}

#[test]
fn an_end_without_an_exit_code_is_no_success() {
    let ended = json!({"name": "install", "containerID": "containerd://A", "state": {"terminated": {}}});
    let pod = read(mk_pod(&status_of("10.0.0.1", &ended)));
    let ContainerState::Terminated(end) = &init_status(&pod).0.state else { panic!() };
    assert_eq!((end.exit_code, end.id.as_ref().map(ContainerId::as_str)), (-1, Some("containerd://A")));
}

proptest! {
    #[test]
    fn a_termination_message_is_kept_up_to_its_limit_and_never_splits_a_character(text in "\\PC{0,600}") {
        let ended = json!({"name": "install", "state": {"terminated": {"exitCode": 1, "message": text}}});
        let pod = read(mk_pod(&status_of("10.0.0.1", &ended)));
        let ContainerState::Terminated(end) = &init_status(&pod).0.state else { panic!() };
        let kept = end.message.as_deref().unwrap_or_default();
        prop_assert!(text.starts_with(kept) && kept.len() <= MAX_TERMINATION_MESSAGE_BYTES);
        prop_assert!(kept.len() + 4 > MAX_TERMINATION_MESSAGE_BYTES || kept == text);
    }
}
