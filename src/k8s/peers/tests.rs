//! Discovery against a scripted API server, under paused time.

use serde_json::{Value, json};

use tokio_util::sync::CancellationToken;

use super::super::fake_api::{Answer, FakeApi, Then, bookmark, line, status};
use super::*;

fn endpoint(name: &str, address: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions,
           "targetRef": {"kind": "Pod", "namespace": "kv", "name": name, "uid": format!("uid-{name}")}})
}

fn serving(yes: bool) -> Value {
    json!({"ready": true, "serving": yes, "terminating": false})
}

fn slice(family: &str, endpoints: &[Value]) -> Value {
    json!({"metadata": {"name": format!("kv-{family}"), "namespace": "kv"}, "addressType": family,
           "endpoints": endpoints, "ports": null})
}

fn slices(items: &[Value]) -> Answer {
    let list = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                      "metadata": {"resourceVersion": "7"}, "items": items});
    Answer::Json(200, list)
}

fn endpoints(ready: &[&str], not_ready: &[&str]) -> Answer {
    let addresses = |names: &[&str]| -> Vec<Value> {
        let address = |(n, name): (usize, &&str)| json!({"ip": format!("10.0.0.{n}"), "targetRef": {"kind": "Pod", "name": name, "uid": format!("uid-{name}")}});
        names.iter().enumerate().map(address).collect()
    };
    let subset = json!({"addresses": addresses(ready), "notReadyAddresses": addresses(not_ready)});
    Answer::Json(200, json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "kv"}, "subsets": [subset]}))
}

fn forbidden(what: &str) -> Answer {
    Answer::Json(403, status(403, "Forbidden", &format!("{what} is forbidden: User cannot list")))
}

fn pods(items: &[Value]) -> Answer {
    Answer::Json(200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn pod(name: &str, status: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "kv", "uid": format!("uid-{name}")}, "status": status})
}

fn directory(api: &Arc<FakeApi>) -> PeerDirectory {
    PeerDirectory::new(api.client(), "kv", "kv").0
}

fn names(peers: &[Peer]) -> Vec<&str> {
    peers.iter().map(|peer| &*peer.pod).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_one_peer_whatever_slices_it_is_in() {
    let going = json!({"ready": false, "serving": true, "terminating": true});
    let api = FakeApi::new(
        [slices(&[
            slice("IPv4", &[endpoint("a", "10.0.0.1", &serving(false)), endpoint("b", "10.0.0.2", &going)]),
            // The second family, and the same endpoint once more on its way from one slice to another.
            slice("IPv6", &[endpoint("a", "fd00::1", &serving(false)), endpoint("b", "fd00::2", &json!({}))]),
            slice("IPv4", &[endpoint("a", "10.0.0.1", &serving(true))]),
        ])],
        Answer::Never,
    );
    let peers = directory(&api).list().await.unwrap();
    let peer = |name: &str, last: u8, terminating| Peer {
        uid: PodUid::from(format!("uid-{name}").as_str()),
        pod: name.into(),
        addresses: vec![format!("10.0.0.{last}").parse().unwrap(), format!("fd00::{last}").parse().unwrap()],
        ready: true,
        terminating,
    };
    assert_eq!(peers, [peer("a", 1, false), peer("b", 2, true)]);
    let asked = &api.asked()[0];
    assert_eq!(asked.path, "/apis/discovery.k8s.io/v1/namespaces/kv/endpointslices");
    assert!(asked.query.contains("labelSelector=kubernetes.io%2Fservice-name%3Dkv"), "{asked:?}");
    assert!(!asked.query.contains("resourceVersion"), "an unset version is a consistent read: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_not_ready_are_listed_and_what_is_no_pod_is_not() {
    let by_hand = json!({"addresses": ["10.0.0.9"], "conditions": {}});
    let node = json!({"addresses": ["10.0.0.8"], "targetRef": {"kind": "Node", "name": "n", "uid": "u"}});
    let api = FakeApi::new(
        [slices(&[slice("IPv4", &[endpoint("a", "10.0.0.1", &serving(false)), by_hand, node])])],
        Answer::Never,
    );
    let peers = directory(&api).list().await.unwrap();
    assert_eq!(names(&peers), ["a"]);
    assert!(!peers[0].ready, "`ready` is always true where unready addresses are published; `serving` is not");
}

#[tokio::test(start_paused = true)]
async fn with_the_references_rights_endpoints_are_read_and_that_is_remembered() {
    let script = [forbidden("endpointslices"), endpoints(&["a"], &["b"]), endpoints(&["a"], &[])];
    let api = FakeApi::new(script, slices(&[]));
    let directory = directory(&api);
    let peers = directory.list().await.unwrap();
    assert_eq!(names(&peers), ["a", "b"]);
    assert!(peers[0].ready && !peers[1].ready);
    assert_eq!(names(&directory.list().await.unwrap()), ["a"]);
    let paths: Vec<String> = api.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths[1..], ["/api/v1/namespaces/kv/endpoints/kv", "/api/v1/namespaces/kv/endpoints/kv"]);
    // Rights may have been granted.
    tokio::time::advance(FORBIDDEN_FOR).await;
    directory.list().await.unwrap();
    assert!(api.asked()[3].path.ends_with("endpointslices"));
}

#[tokio::test(start_paused = true)]
async fn a_list_is_whole_or_an_error() {
    let more = json!({"metadata": {"resourceVersion": "7", "continue": "more"}, "items": []});
    let cut = json!({"metadata": {"annotations": {"endpoints.kubernetes.io/over-capacity": "truncated"}}});
    let down = Answer::Json(503, status(503, "ServiceUnavailable", "etcd is down"));
    let script = [Answer::Json(200, more), down, forbidden("endpointslices"), Answer::Json(200, cut)];
    let api = FakeApi::new(script, Answer::Never);
    let directory = directory(&api);
    let told = |error: PeersError| error.to_string();
    assert!(told(directory.list().await.unwrap_err()).contains("more than 50"));
    assert!(told(directory.list().await.unwrap_err()).contains("etcd is down"));
    assert!(told(directory.list().await.unwrap_err()).contains("cut off"));
    let asked = Instant::now();
    assert!(told(directory.list().await.unwrap_err()).contains("no answer within 10 s"));
    assert_eq!(asked.elapsed(), REQUEST_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_there_has_no_peers() {
    let missing = Answer::Json(404, status(404, "NotFound", "endpoints \"kv\" not found"));
    let api = FakeApi::new([forbidden("endpointslices"), missing], Answer::Never);
    assert_eq!(directory(&api).list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn the_references_gauge_counts_addresses_of_pods_or_not_by_the_references_right() {
    let by_hand = json!({"metadata": {}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]});
    let missing = Answer::Json(404, status(404, "NotFound", "endpoints \"kv\" not found"));
    let script = [endpoints(&["a"], &["b"]), Answer::Json(200, by_hand), missing];
    let api = FakeApi::new(script, Answer::Never);
    let directory = directory(&api);
    assert_eq!(directory.count().await, Ok(2));
    assert_eq!(directory.count().await, Ok(1));
    assert!(directory.count().await.unwrap_err().to_string().contains("\"kv\" not found"));
    assert!(api.asked().iter().all(|asked| asked.path.ends_with("/endpoints/kv")));
}

/// Whether `changes` says something within `limit`.
async fn changes(changes: &mut watch::Receiver<u64>, limit: Duration) -> bool {
    timeout(limit, changes.changed()).await.is_ok()
}

const SHORTLY: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn each_change_of_the_slices_is_told_and_silence_is_silence() {
    let first = slice("IPv4", &[endpoint("a", "10.0.0.1", &serving(true))]);
    let lines = vec![line("MODIFIED", &first), bookmark("9", true), line("DELETED", &first)];
    let list = || slices(std::slice::from_ref(&first));
    let script = [list(), Answer::Lines(lines, Then::CloseAfter(Duration::from_secs(290))), list()];
    let api = FakeApi::new(script, Answer::Lines(Vec::new(), Then::Hang));
    let (directory, watcher) = PeerDirectory::new(api.client(), "kv", "kv");
    let mut told = directory.changed();
    tokio::spawn(watcher.run(CancellationToken::new()));
    assert!(changes(&mut told, SHORTLY).await);
    tokio::time::sleep(SHORTLY).await;
    told.mark_unchanged();
    assert_eq!(*told.borrow(), 3, "the first list and two changes");
    // After its end comes a list, which tells what was missed meanwhile.
    assert!(!changes(&mut told, Duration::from_secs(280)).await);
    assert!(changes(&mut told, Duration::from_secs(20)).await);
    assert!(!changes(&mut told, Duration::from_secs(200)).await);
    assert!(api.asked()[1].query.contains("watch=true") && api.asked()[1].query.contains("resourceVersion=7"));
}

#[tokio::test(start_paused = true)]
async fn without_slices_endpoints_are_polled_faster_while_it_is_urgent() {
    let api = FakeApi::new([forbidden("endpointslices")], endpoints(&["a"], &[]));
    let (directory, watcher) = PeerDirectory::new(api.client(), "kv", "kv");
    let mut told = directory.changed();
    let polls = || api.asked().len() - 1;
    tokio::spawn(watcher.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(polls(), 4, "each 15 s");
    directory.urgent(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!((13..=15).contains(&polls()), "each 2 s, the first at once: {}", polls());
    assert_eq!(*told.borrow_and_update(), 1, "the first list is a change, the same again is none");
    directory.urgent(false);
    let before = polls();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(polls() - before <= 5);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_is_not_asked_in_a_loop_by_the_watcher() {
    for answer in [Answer::Json(500, status(500, "InternalError", "etcd")), slices(&[]), Answer::Never] {
        let api = FakeApi::new([], answer);
        let (_, watcher) = PeerDirectory::new(api.client(), "kv", "kv");
        tokio::spawn(watcher.run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!((20..500).contains(&api.asked().len()), "{} requests in ten minutes", api.asked().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_absent_only_by_what_its_node_says() {
    let container = |state: Value| {
        json!({"phase": "Running", "containerStatuses": [{"name": "kv", "state": state,
        "image": "", "imageID": "", "ready": false, "restartCount": 0}]})
    };
    let not_running = |reason: &str| PodState::NotRunning { reason: reason.into() };
    for (status, expected) in [
        (container(json!({"running": {}})), PodState::Running),
        (container(json!({"waiting": {"reason": "CrashLoopBackOff"}})), not_running("CrashLoopBackOff")),
        (container(json!({"terminated": {"exitCode": 2, "reason": "Error"}})), not_running("Error, exit code 2")),
        (container(json!({})), not_running("Waiting")),
        (json!({"phase": "Pending"}), not_running("Pending")),
        (json!({"phase": "Failed", "reason": "Evicted"}), not_running("Failed: Evicted")),
        (json!({"phase": "Running"}), PodState::Unknown),
        (json!({}), PodState::Unknown),
        (Value::Null, PodState::Unknown),
    ] {
        let api = FakeApi::new([pods(&[pod("a", &status)])], Answer::Never);
        let state = directory(&api).pod_state("a", &"uid-a".into()).await.unwrap();
        assert_eq!(state, expected, "{status}");
        assert_eq!(api.asked()[0].query, "&fieldSelector=metadata.name%3Da");
    }
}

#[tokio::test(start_paused = true)]
async fn beside_other_containers_ours_is_known_by_its_name() {
    let one = |name: &str, state: Value| json!({"name": name, "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0});
    let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let mesh = one("istio-proxy", json!({"running": {}}));
    for (ours, runs) in [("kubernetes-vault", false), ("controller", true)] {
        let status = json!({"phase": "Running", "containerStatuses": [mesh, one(ours, waits.clone())]});
        let api = FakeApi::new([pods(&[pod("a", &status)])], Answer::Never);
        let state = directory(&api).pod_state("a", &"uid-a".into()).await.unwrap();
        assert_eq!(state == PodState::Running, runs, "{ours}: {state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_created_anew_under_its_name_is_not_the_one_that_was_asked_for() {
    let api = FakeApi::new([], pods(&[pod("a", &json!({"phase": "Running"}))]));
    let directory = directory(&api);
    assert_eq!(directory.pod_state("a", &"another".into()).await.unwrap(), PodState::Gone);
    assert_eq!(directory.pod_state("b", &"uid-a".into()).await.unwrap(), PodState::Gone);
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_list_pods_no_peer_is_absent_and_trouble_is_no_absence() {
    let list = slices(&[slice(
        "IPv4",
        &[endpoint("a", "10.0.0.1", &serving(true)), endpoint("b", "10.0.0.2", &serving(true))],
    )]);
    let down = Answer::Json(500, status(500, "InternalError", "etcd"));
    let api = FakeApi::new([list, forbidden("pods"), forbidden("pods"), down], Answer::Never);
    let directory = directory(&api);
    let peers = directory.list().await.unwrap();
    let states = directory.pod_states(&peers).await.unwrap();
    assert_eq!(states.len(), 2);
    assert!(states.values().all(|state| *state == PodState::Unknown), "{states:?}");
    assert!(directory.pod_states(&peers).await.is_err());
}

fn own(uid: Option<&str>, name: Option<&str>) -> OwnPod {
    OwnPod { uid: uid.map(PodUid::from), name: name.map(Into::into), namespace: None }
}

#[tokio::test(start_paused = true)]
async fn our_own_pod_is_found_by_its_uid_its_name_or_its_address() {
    let list = || {
        slices(&[slice(
            "IPv4",
            &[endpoint("a", "10.0.0.1", &serving(true)), endpoint("b", "10.0.0.2", &serving(true))],
        )])
    };
    let api = FakeApi::new(
        [list(), list(), pods(&[pod("c", &Value::Null)]), list(), forbidden("pods"), list(), pods(&[]), list()],
        Answer::Never,
    );
    let directory = directory(&api);
    let nowhere = |_: IpAddr| false;
    let second = |ip: IpAddr| ip == "10.0.0.2".parse::<IpAddr>().unwrap();
    let uid = |uid: &str| Some(PodUid::from(uid));
    assert_eq!(directory.own_pod_with(&own(Some("known"), None), nowhere).await.unwrap(), uid("known"));
    assert_eq!(directory.own_pod_with(&own(None, Some("a")), nowhere).await.unwrap(), uid("uid-a"));
    // Not listed yet.
    assert_eq!(directory.own_pod_with(&own(None, Some("c")), nowhere).await.unwrap(), uid("uid-c"));
    // On the node's network the name is the node's.
    assert_eq!(directory.own_pod_with(&own(None, Some("node-1")), second).await.unwrap(), uid("uid-b"));
    assert_eq!(directory.own_pod_with(&own(None, Some("laptop")), nowhere).await.unwrap(), None);
    assert_eq!(directory.own_pod_with(&own(None, None), |_| true).await.unwrap(), None, "two are ours: none is");
    let elsewhere = OwnPod { namespace: Some("other".into()), ..own(None, Some("a")) };
    assert_eq!(directory.own_pod_with(&elsewhere, nowhere).await.unwrap(), None);
}

#[test]
fn only_an_address_of_this_machine_is_local() {
    let is_local = |ip: &str| super::own::is_local(ip.parse().unwrap());
    assert!(is_local("127.0.0.1"));
    assert!(!is_local("192.0.2.1"));
}
