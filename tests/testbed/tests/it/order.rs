//! What a watch sees of pods: the order of their states.

use anyhow::{Context as _, Result, ensure};
use futures::{TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use testbed::{Signal, Testbed, poll_until};
use tokio::time::timeout;

use super::bed::{LIMIT, create, pods, shell, wait_for, wait_for_phase};

/// What a watch that begins at `since` sees, up to the line that starts with `until`. One line a change: kind, phase, has an address, the init container's state and restarts.
async fn trace(bed: &Testbed, name: &str, since: &str, until: &str) -> Result<Vec<(String, Value)>> {
    let parameters = WatchParams::default().fields(&format!("metadata.name={name},status.phase=Pending"));
    let api = pods(bed);
    let stream = api.watch(&parameters, since).await?;
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

pub(super) fn summary(kind: &str, status: &Value) -> String {
    let init = &status["initContainerStatuses"][0];
    let state = init["state"].as_object().and_then(|state| state.keys().next()).map_or("none", String::as_str);
    let ip = if status["podIP"].is_string() { "ip" } else { "no ip" };
    format!("{kind} {} {ip} {state} {}", status["phase"].as_str().unwrap_or_default(), init["restartCount"])
}

/// From here on a watch misses nothing.
fn version(pod: &Value) -> &str {
    pod["metadata"]["resourceVersion"].as_str().unwrap_or("0")
}

pub(super) fn init(pod: &Value) -> &Value {
    &pod["status"]["initContainerStatuses"][0]
}

pub(super) async fn statuses(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 0.5; echo bye > /dev/termination-log")],
        "containers": [shell("app", "sleep 1000")]});
    let list = pods(bed).list(&ListParams::default()).await?;
    let since = list.metadata.resource_version.unwrap_or_default();
    let (watched, created) =
        tokio::join!(trace(bed, "order", &since, "DELETED"), async { create(bed, "order", spec).await });
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

pub(super) async fn killed_in_place(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 1000")], "containers": [shell("app", "sleep 1000")]});
    create(bed, "killed", spec).await?;
    let before = wait_for(bed, "killed", "running", |pod| init(pod)["state"]["running"].is_object()).await?;
    let kill = async { bed.node_of("default", "killed")?.signal("default", "killed", "init", Signal::KILL) };
    let (watched, killed) = tokio::join!(trace(bed, "killed", version(&before), "MODIFIED Pending ip running 1"), kill);
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

pub(super) async fn new_sandbox(bed: &Testbed) -> Result<()> {
    let spec = json!({"initContainers": [shell("init", "sleep 0.3")], "containers": [shell("app", "sleep 1000")]});
    create(bed, "sandbox", spec).await?;
    let before = wait_for_phase(bed, "sandbox", "Running").await?;
    let node = bed.node_of("default", "sandbox")?;
    let restart = node.restart_sandbox("default", "sandbox", None);
    // The pod is Running at first, so the watch begins when it comes back to Pending.
    let (watched, restarted) = tokio::join!(trace(bed, "sandbox", version(&before), "DELETED"), restart);
    restarted?;
    let watched = watched?;
    ensure!(watched[0].0 == "ADDED Pending ip running 1", "{watched:#?}");
    let status = &watched[0].1;
    ensure!(status["podIP"] != before["status"]["podIP"], "{status}");
    ensure!(status["initContainerStatuses"][0]["containerID"] != init(&before)["containerID"], "{status}");
    wait_for_phase(bed, "sandbox", "Running").await.map(drop)
}

pub(super) async fn back_off(bed: &Testbed) -> Result<()> {
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

pub(super) async fn graceful(bed: &Testbed) -> Result<()> {
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

pub(super) async fn refused(bed: &Testbed) -> Result<()> {
    create(bed, "refused", json!({"hostPID": true, "containers": [shell("app", "true")]})).await?;
    wait_for_phase(bed, "refused", "Failed").await?;
    let events: Api<Event> = Api::namespaced(bed.client(), "default");
    let list = events.list(&ListParams::default().fields("involvedObject.name=refused")).await?;
    let named = list.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("spec.hostPID")));
    ensure!(named, "no Event names the field");
    Ok(())
}
