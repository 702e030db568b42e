//! What pods see, and what a watch sees of them.

use anyhow::{Context as _, Result, ensure};
use futures::future::FutureExt as _;
use futures::{TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use testbed::fake_pods::{self, FakePod};
use testbed::{Direction, Signal, Testbed, poll_until};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::bed::{Case, LIMIT, create, pods, shell, wait_for, wait_for_phase};

pub(crate) const ALL: [(&str, Case); 15] = [
    ("statuses_come_in_the_kubelets_order", |bed| statuses(bed).boxed_local()),
    ("a_container_killed_in_place_restarts", |bed| killed_in_place(bed).boxed_local()),
    ("a_new_sandbox_has_a_new_address", |bed| new_sandbox(bed).boxed_local()),
    ("environment_and_volumes", |bed| environment(bed).boxed_local()),
    ("mountinfo_names_the_pod", |bed| mountinfo(bed).boxed_local()),
    ("a_failing_container_backs_off", |bed| back_off(bed).boxed_local()),
    ("sigterm_comes_before_sigkill", |bed| graceful(bed).boxed_local()),
    ("unknown_fields_are_refused", |bed| refused(bed).boxed_local()),
    ("links_can_be_cut", |bed| cut(bed).boxed_local()),
    ("probes_and_sidecars", |bed| probes(bed).boxed_local()),
    ("simulated_pods_take_any_status", |bed| simulated(bed).boxed_local()),
    ("requests_are_audited", |bed| audited(bed).boxed_local()),
    ("services_have_names", |bed| names(bed).boxed_local()),
    ("the_api_server_can_be_restarted", |bed| api_server_restart(bed).boxed_local()),
    ("vault_can_be_sealed", |bed| vault_sealed(bed).boxed_local()),
];

/// One line a change: kind, phase, has an address, the init container's state and restarts.
async fn trace(bed: &Testbed, name: &str, pending_only: bool, until: &str) -> Result<Vec<(String, Value)>> {
    let phase = if pending_only { ",status.phase=Pending" } else { "" };
    let parameters = WatchParams::default().fields(&format!("metadata.name={name}{phase}"));
    let api = pods(bed);
    let stream = api.watch(&parameters, "0").await?;
    pin_mut!(stream);
    let mut seen: Vec<(String, Value)> = Vec::new();
    loop {
        let event = timeout(LIMIT, stream.try_next()).await.with_context(|| format!("{seen:#?}"))??;
        let (kind, pod) = match event.context("the watch ended")? {
            WatchEvent::Added(pod) => ("ADDED", pod),
            WatchEvent::Modified(pod) => ("MODIFIED", pod),
            WatchEvent::Deleted(pod) => ("DELETED", pod),
            _ => continue,
        };
        let status = serde_json::to_value(pod.status)?;
        let line = summary(kind, &status);
        let done = line.starts_with(until);
        // The scheduler's binding changes nothing that is looked at here.
        let news = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
        if kind != "MODIFIED" || seen.last().is_none_or(|(last, _)| news(last) != news(&line)) {
            seen.push((line, status));
        }
        if done {
            return Ok(seen);
        }
    }
}

fn summary(kind: &str, status: &Value) -> String {
    let init = &status["initContainerStatuses"][0];
    let state = init["state"].as_object().and_then(|state| state.keys().next()).map_or("none", String::as_str);
    let ip = if status["podIP"].is_string() { "ip" } else { "no ip" };
    format!("{kind} {} {ip} {state} {}", status["phase"].as_str().unwrap_or_default(), init["restartCount"])
}

async fn statuses(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 0.5; echo bye > /dev/termination-log")],
        "containers": [shell("app", "sleep 1000")]});
    let (watched, created) =
        tokio::join!(trace(bed, "order", true, "DELETED"), async { create(bed, "order", spec).await });
    created?;
    let watched = watched?;
    let lines: Vec<&str> = watched.iter().map(|(line, _)| line.as_str()).collect();
    ensure!(
        lines
            == [
                "ADDED Pending no ip none null",
                "MODIFIED Pending no ip waiting 0",
                "MODIFIED Pending ip running 0",
                "MODIFIED Pending ip terminated 0",
                "DELETED Pending ip terminated 0",
            ],
        "{lines:#?}"
    );
    let (running, ended) = (&watched[2].1["initContainerStatuses"][0], &watched[3].1["initContainerStatuses"][0]);
    let id = running["containerID"].as_str().unwrap_or_default();
    ensure!(id.starts_with("containerd://") && id.len() == 77, "{id}");
    ensure!(ended["containerID"] == running["containerID"], "{ended}");
    let terminated = &ended["state"]["terminated"];
    ensure!(terminated["message"] == "bye\n" && terminated["reason"] == "Completed", "{terminated}");
    wait_for_phase(bed, "order", "Running").await.map(drop)
}

async fn killed_in_place(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 1000")], "containers": [shell("app", "sleep 1000")]});
    create(bed, "killed", spec).await?;
    let before = wait_for(bed, "killed", "running", |pod| init(pod)["state"]["running"].is_object()).await?;
    let kill = async { bed.node_of("default", "killed")?.signal("default", "killed", "init", Signal::KILL) };
    let (watched, killed) = tokio::join!(trace(bed, "killed", true, "MODIFIED Pending ip running 1"), kill);
    killed?;
    let watched = watched?;
    let lines: Vec<&str> = watched.iter().map(|(line, _)| line.as_str()).collect();
    ensure!(
        lines[lines.len() - 2..] == ["MODIFIED Pending ip terminated 0", "MODIFIED Pending ip running 1"],
        "{lines:?}"
    );
    let after = &watched[watched.len() - 1].1;
    ensure!(after["podIP"] == before["status"]["podIP"], "the address changed");
    let container = &after["initContainerStatuses"][0];
    ensure!(container["containerID"] != init(&before)["containerID"], "the id did not change");
    ensure!(container["lastState"]["terminated"]["exitCode"] == 137, "{container}");
    ensure!(container["lastState"]["terminated"]["containerID"] == init(&before)["containerID"], "{container}");
    Ok(())
}

async fn new_sandbox(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 0.3")], "containers": [shell("app", "sleep 1000")]});
    create(bed, "sandbox", spec).await?;
    let before = wait_for_phase(bed, "sandbox", "Running").await?;
    let node = bed.node_of("default", "sandbox")?;
    let restart = node.restart_sandbox("default", "sandbox", None);
    // The pod is Running at first, so the watch begins when it comes back to Pending.
    let (watched, restarted) = tokio::join!(trace(bed, "sandbox", true, "DELETED"), restart);
    restarted?;
    let watched = watched?;
    ensure!(watched[0].0 == "ADDED Pending ip running 1", "{watched:#?}");
    let status = &watched[0].1;
    ensure!(status["podIP"] != before["status"]["podIP"], "{status}");
    ensure!(status["initContainerStatuses"][0]["containerID"] != init(&before)["containerID"], "{status}");
    wait_for_phase(bed, "sandbox", "Running").await.map(drop)
}

fn init(pod: &Value) -> &Value {
    &pod["status"]["initContainerStatuses"][0]
}

async fn environment(bed: &Testbed) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(bed.client(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"COLOUR": "green"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let script = "echo name=$POD_NAME host=$HOSTNAME/$(hostname) ip=$POD_IP colour=$COLOUR twice=$TWICE; \
        cat /settings/COLOUR; cat /tokens/token | wc -c; ls /var/run/secrets/kubernetes.io/serviceaccount; \
        touch /settings/x || echo read-only; grep $POD_NAME /etc/hosts; cat /labels/app";
    let mut app = shell("app", script);
    app["env"] = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "TWICE", "value": "$(POD_NAME)-$(POD_NAME)"},
    ]);
    app["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    app["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings", "readOnly": true},
        {"name": "tokens", "mountPath": "/tokens"},
        {"name": "labels", "mountPath": "/labels"},
    ]);
    let token = json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
    let spec = json!({"restartPolicy": "Never", "containers": [app], "volumes": [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "tokens", "projected": {"sources": [token]}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
    ]});
    create(bed, "env", spec).await?;
    let pod = wait_for_phase(bed, "env", "Succeeded").await?;
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    let log = bed.logs("default", "env", "app")?;
    for wanted in [
        &format!("name=env host=env/env ip={ip} colour=green twice=env-env"),
        "\ngreen",
        "ca.crt\nnamespace\ntoken\n",
        "read-only\n",
        &format!("{ip} env\n"),
    ] {
        ensure!(log.contains(wanted), "{wanted:?} is not in:\n{log}");
    }
    ensure!(log.ends_with("env"), "{log}");
    Ok(())
}

async fn mountinfo(bed: &Testbed) -> Result<()> {
    let spec = json!({"restartPolicy": "Never", "containers": [shell("app", "cat /proc/self/mountinfo")]});
    let pod = create(bed, "mounts", spec).await?;
    wait_for_phase(bed, "mounts", "Succeeded").await?;
    let log = bed.logs("default", "mounts", "app")?;
    let uid = pod.metadata.uid.unwrap_or_default();
    ensure!(log.contains(&format!("pods/{uid}/etc-hosts /etc/hosts ")), "{log}");
    Ok(())
}

async fn back_off(bed: &Testbed) -> Result<()> {
    let mut failing = shell("init", "echo reason; exit 3");
    failing["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    create(bed, "failing", json!({"initContainers": [failing], "containers": [shell("app", "true")]})).await?;
    let waits = |pod: &Value| init(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = wait_for(bed, "failing", "CrashLoopBackOff", waits).await?;
    let last = &init(&pod)["lastState"]["terminated"];
    ensure!(last["exitCode"] == 3 && last["message"] == "reason\n", "{last}");
    wait_for(bed, "failing", "third restart", |pod| init(pod)["restartCount"] == 3).await?;
    let missing = json!({"containers": [{"name": "app", "image": "nobody/knows:1"}]});
    create(bed, "missing", missing).await?;
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull";
    wait_for(bed, "missing", "ErrImagePull", waits).await.map(drop)
}

async fn graceful(bed: &Testbed) -> Result<()> {
    let polite = shell("polite", "trap 'echo TERM; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    let stubborn = shell("stubborn", "trap '' TERM; while :; do sleep 0.05; done");
    create(bed, "ending", json!({"terminationGracePeriodSeconds": 1, "containers": [polite, stubborn]})).await?;
    wait_for_phase(bed, "ending", "Running").await?;
    poll_until("up", LIMIT, || async { Ok(bed.logs("default", "ending", "polite")?.contains("up").then_some(())) })
        .await?;
    pods(bed).delete("ending", &DeleteParams::default()).await?;
    poll_until("end of the pod", LIMIT, || async { Ok(pods(bed).get_opt("ending").await?.is_none().then_some(())) })
        .await?;
    ensure!(bed.logs("default", "ending", "polite")?.contains("TERM"), "the polite one got no SIGTERM");
    Ok(())
}

async fn refused(bed: &Testbed) -> Result<()> {
    create(bed, "refused", json!({"hostPID": true, "containers": [shell("app", "true")]})).await?;
    wait_for_phase(bed, "refused", "Failed").await?;
    let events: Api<Event> = Api::namespaced(bed.client(), "default");
    let list = events.list(&ListParams::default().fields("involvedObject.name=refused")).await?;
    let named = list.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("spec.hostPID")));
    ensure!(named, "no Event names the field");
    Ok(())
}

async fn cut(bed: &Testbed) -> Result<()> {
    create(bed, "network", json!({"containers": [shell("app", "sleep 1000")]})).await?;
    wait_for_phase(bed, "network", "Running").await?;
    let node = bed.node_of("default", "network")?;
    let network = node.network("default", "network")?;
    let listener = TcpListener::bind((node.ip(), 0)).await?;
    let port = listener.local_addr()?.port();
    let url = format!("echo > /dev/tcp/{}/{port}", node.ip());
    let reaches = || async {
        let answer = node.exec("default", "network", "app", &["timeout", "0.5", "bash", "-c", &url]).await?;
        anyhow::Ok(answer.status.success())
    };
    ensure!(reaches().await?, "the pod does not reach its node");
    network.cut().await?;
    ensure!(!reaches().await?, "the cut link still works");
    network.mend().await?;
    // The kernel takes up to a second to believe that the link is back.
    poll_until("way through the mended link", LIMIT, || async { Ok(reaches().await?.then_some(())) }).await?;
    network.drop_packets(Direction::In, Some(node.ip())).await?;
    ensure!(!reaches().await?, "answers are not dropped");
    network.let_packets_through().await?;
    ensure!(reaches().await?, "answers are still dropped");
    // One process listens on all simulated addresses.
    let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
    let port = listener.local_addr()?.port();
    for index in [0, 77, 60_000] {
        TcpStream::connect((fake_pods::simulated_ip(index), port)).await?;
    }
    Ok(())
}

async fn probes(bed: &Testbed) -> Result<()> {
    let mut side = shell("side", "sleep 0.3; touch /shared/side; sleep 1000");
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({"exec": {"command": ["/bin/sh", "-c", "test -e /shared/side"]}, "periodSeconds": 1});
    let mut app = shell("app", "test -e /shared/side && touch /shared/app && sleep 1000");
    app["readinessProbe"] = json!({"exec": {"command": ["/bin/ls", "/shared/app"]}, "periodSeconds": 1});
    for container in [&mut side, &mut app] {
        container["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    let volumes = json!([{"name": "shared", "emptyDir": {}}]);
    create(bed, "probes", json!({"initContainers": [side], "containers": [app], "volumes": volumes})).await?;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let pod = wait_for(bed, "probes", "ready", ready).await?;
    ensure!(init(&pod)["started"] == true && init(&pod)["state"]["running"].is_object(), "{pod}");
    Ok(())
}

async fn simulated(bed: &Testbed) -> Result<()> {
    let client = bed.client();
    fake_pods::create_namespace(&client, "simulated").await?;
    let all: Vec<FakePod> =
        (0..50).map(|index| FakePod::asking_for("simulated", &format!("fake-{index}"), "web")).collect();
    fake_pods::for_all(&all, |_, pod| fake_pods::create_pending(&client, pod)).await?;
    let running = |index: usize, pod| {
        let (client, id) = (&client, format!("containerd://{index:064x}"));
        let ip = fake_pods::simulated_ip(u16::try_from(index).unwrap_or_default());
        async move { fake_pods::set_init_running(client, pod, ip, &id, 0).await }
    };
    fake_pods::for_all(&all, running).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "simulated");
    let pending = ListParams::default().fields("status.phase=Pending");
    ensure!(pods.list(&pending).await?.items.len() == 50, "not all are pending");
    let status = serde_json::to_value(pods.get("fake-7").await?.status)?;
    ensure!(summary("ADDED", &status) == "ADDED Pending ip running 0", "{status}");
    fake_pods::set_init_terminated(&client, &all[0], "containerd://a", 0, "attempt=1").await?;
    fake_pods::set_running(&client, &all[1], fake_pods::simulated_ip(1), "containerd://b").await?;
    ensure!(pods.list(&pending).await?.items.len() == 49, "one has left Pending");
    fake_pods::for_all(&all, |_, pod| fake_pods::delete(&client, pod)).await?;
    ensure!(pods.list(&ListParams::default()).await?.items.is_empty(), "some are left");
    Ok(())
}

async fn audited(bed: &Testbed) -> Result<()> {
    let lists = || async {
        let requests = bed.control_plane().audited()?;
        anyhow::Ok(requests.iter().filter(|r| r.user == "counted" && r.verb == "list" && r.resource == "pods").count())
    };
    let kubeconfig = bed.control_plane().kubeconfig_for("counted")?;
    let client = bed.control_plane().client(&kubeconfig).await?;
    let pods: Api<Pod> = Api::all(client);
    pods.list(&ListParams::default()).await?;
    poll_until("the request in the audit log", LIMIT, || async { Ok((lists().await? == 1).then_some(())) }).await
}

async fn names(bed: &Testbed) -> Result<()> {
    let service = serde_json::from_value(json!({"metadata": {"name": "front"},
        "spec": {"clusterIP": "None", "selector": {"app": "named"}, "ports": [{"port": 80}]}}))?;
    let services: Api<Service> = Api::namespaced(bed.client(), "default");
    services.create(&PostParams::default(), &service).await?;
    create(bed, "named", json!({"containers": [shell("app", "sleep 1000")]})).await?;
    let ip = wait_for_phase(bed, "named", "Running").await?["status"]["podIP"].clone();
    let node = bed.node_of("default", "named")?;
    poll_until("name of the service", LIMIT, || async {
        let answer = node.exec("default", "named", "app", &["getent", "ahostsv4", "front.default.svc"]).await?;
        Ok(String::from_utf8_lossy(&answer.stdout).starts_with(ip.as_str().unwrap_or("no address")).then_some(()))
    })
    .await
}

async fn api_server_restart(bed: &Testbed) -> Result<()> {
    bed.control_plane().kill_api_server().await;
    bed.control_plane().start_api_server().await?;
    create(bed, "later", json!({"restartPolicy": "Never", "containers": [shell("app", "true")]})).await?;
    wait_for_phase(bed, "later", "Succeeded").await.map(drop)
}

async fn vault_sealed(bed: &Testbed) -> Result<()> {
    let vault = bed.vault()?;
    let role_id = vault.set_up_app("web").await?;
    ensure!(!role_id.is_empty(), "no role_id");
    let token = vault.create_controller_token(testbed::ControllerPolicy::Ours, &testbed::TokenRole::default()).await?;
    let path = "auth/approle/role/web/secret-id";
    let answer = vault.call(http::Method::POST, path, Some(&token), Some(&json!({}))).await?;
    ensure!(answer["data"]["secret_id"].is_string(), "no secret_id");
    ensure!(vault.list(path).await?.len() == 1, "one accessor");
    vault.seal().await?;
    ensure!(vault.read("secret/data/web/greeting").await.is_err(), "a sealed Vault answers");
    vault.unseal().await?;
    let secret = vault.read("secret/data/web/greeting").await?;
    ensure!(secret["data"]["data"]["message"] == "hello web", "{secret}");
    Ok(())
}
