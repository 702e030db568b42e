//! Discovery of peers against the real API server and its real controllers of endpoints.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use kubernetes_vault::domain::ids::PodUid;
use kubernetes_vault::k8s::peers::{OwnPod, Peer, PeerDirectory, PodState};
use serde_json::{Value, json};
use testbed::fake_pods::{self, FakePod};
use testbed::poll_until;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::controller::{create, namespace};
use crate::kubernetes_watch::limited;
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    pods_that_are_not_ready_or_are_ending_are_peers_and_each_change_is_told,
    with_the_references_rights_peers_are_known_and_none_is_ever_absent,
    a_peer_is_absent_while_its_container_does_not_run,
    the_rights_of_our_manifests_are_enough,
}

/// A namespace with a headless service `kv`.
async fn service(world: &World, stem: &str) -> Result<String> {
    let namespace = namespace(world, stem).await?;
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "kv"}, "spec": {
        "clusterIP": "None", "selector": {"app": "kv"}, "publishNotReadyAddresses": true,
    }}))?;
    Api::<Service>::namespaced(world.bed.client(), &namespace).create(&PostParams::default(), &service).await?;
    Ok(namespace)
}

/// A pod behind it whose container runs, at this address.
async fn replica(world: &World, namespace: &str, name: &str) -> Result<(FakePod, IpAddr)> {
    let pod = FakePod::plain(namespace, name);
    create(world, &pod).await?;
    let ip = world.address();
    fake_pods::set_running(&world.bed.client(), &pod, ip, "containerd://a").await?;
    world.bed.kubectl(&["label", "pod", name, "-n", namespace, "app=kv"]).await?;
    Ok((pod, ip))
}

async fn peers_when(directory: &PeerDirectory, what: &str, holds: impl Fn(&[Peer]) -> bool) -> Result<Vec<Peer>> {
    poll_until(what, LIMIT, || async {
        let peers = directory.list().await?;
        Ok(holds(&peers).then_some(peers))
    })
    .await
}

/// What an installation of the Go version may do.
fn reference_rights() -> Value {
    json!([{"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get"]}])
}

async fn pods_that_are_not_ready_or_are_ending_are_peers_and_each_change_is_told(world: &World) -> Result<()> {
    let namespace = service(world, "peers").await?;
    let (directory, watcher) = PeerDirectory::new(world.bed.client(), &namespace, "kv");
    let stop = CancellationToken::new();
    tokio::spawn(watcher.run(stop.clone()));
    let mut changes = directory.changed();
    let (_, first) = replica(world, &namespace, "kv-0").await?;
    replica(world, &namespace, "kv-1").await?;
    let peers = peers_when(&directory, "two peers", |peers| peers.len() == 2).await?;
    let peer = peers.iter().find(|peer| &*peer.pod == "kv-0").context("kv-0 is not listed")?;
    // The simulated pods have no condition Ready.
    ensure!(peer.addresses == [first] && !peer.ready && !peer.terminating, "{peer:?}");
    timeout(LIMIT, changes.wait_for(|count| *count > 0)).await.context("no change was told")??;
    changes.mark_unchanged();
    // Nobody plays its kubelet, so that it stays as it is while it ends.
    world.bed.kubectl(&["delete", "pod", "kv-1", "-n", &namespace, "--wait=false", "--grace-period=600"]).await?;
    timeout(LIMIT, changes.changed()).await.context("its end was not told")??;
    let ending = |peers: &[Peer]| peers.iter().any(|peer| &*peer.pod == "kv-1" && peer.terminating);
    peers_when(&directory, "a peer that is ending", ending).await?;
    let own = OwnPod { name: Some("kv-0".into()), ..OwnPod::default() };
    ensure!(directory.own_pod(&own).await?.as_ref() == Some(&peer.uid), "our own pod is not found by its name");
    stop.cancel();
    Ok(())
}

async fn with_the_references_rights_peers_are_known_and_none_is_ever_absent(world: &World) -> Result<()> {
    let namespace = service(world, "peers-old").await?;
    let client = limited(world, &namespace, reference_rights()).await?;
    let (directory, _) = PeerDirectory::new(client, &namespace, "kv");
    ensure!(directory.list().await?.is_empty(), "a service without pods has peers");
    let (pod, ip) = replica(world, &namespace, "kv-0").await?;
    let peers = peers_when(&directory, "one peer", |peers| peers.len() == 1).await?;
    ensure!(peers[0].addresses == [ip], "{peers:?}");
    fake_pods::delete(&world.bed.client(), &pod).await?;
    let states = directory.pod_states(&peers).await?;
    ensure!(states.get(&peers[0].uid) == Some(&PodState::Unknown), "{states:?}");
    peers_when(&directory, "no peer", <[Peer]>::is_empty).await?;
    Ok(())
}

async fn a_peer_is_absent_while_its_container_does_not_run(world: &World) -> Result<()> {
    let namespace = service(world, "peers-down").await?;
    let (directory, _) = PeerDirectory::new(world.bed.client(), &namespace, "kv");
    let (pod, _) = replica(world, &namespace, "kv-0").await?;
    let peers = peers_when(&directory, "one peer", |peers| peers.len() == 1).await?;
    let uid: PodUid = peers[0].uid.clone();
    ensure!(directory.pod_state("kv-0", &uid).await? == PodState::Running);
    let waiting = json!({"status": {"containerStatuses": [{"name": "app", "image": "i", "imageID": "", "ready": false,
        "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    let patch = waiting.to_string();
    let arguments = ["patch", "pod", "kv-0", "-n", &namespace, "--subresource=status", "--type=merge", "-p", &patch];
    world.bed.kubectl(&arguments).await?;
    let state = directory.pod_state("kv-0", &uid).await?;
    ensure!(state == PodState::NotRunning { reason: "CrashLoopBackOff".into() }, "{state:?}");
    fake_pods::delete(&world.bed.client(), &pod).await?;
    create(world, &pod).await?;
    ensure!(directory.pod_state("kv-0", &uid).await? == PodState::Gone, "another pod of its name was taken for it");
    Ok(())
}

/// The Role of our manifests, in another namespace and for another service.
async fn the_rights_of_our_manifests_are_enough(world: &World) -> Result<()> {
    let namespace = service(world, "peers-role").await?;
    let rules = include_str!("../../deploy/base/rbac.yaml");
    let rules = serde_yaml::Deserializer::from_str(rules)
        .map(<Value as serde::Deserialize>::deserialize)
        .collect::<Result<Vec<_>, _>>()?;
    let role = rules.iter().find(|object| object["kind"] == "Role").context("the base has no Role")?;
    let mut rules = role["rules"].clone();
    for rule in rules.as_array_mut().into_iter().flatten().filter(|rule| rule["resourceNames"].is_array()) {
        rule["resourceNames"] = json!(["kv"]);
    }
    let client = limited(world, &namespace, rules).await?;
    let (directory, watcher) = PeerDirectory::new(client, &namespace, "kv");
    let stop = CancellationToken::new();
    tokio::spawn(watcher.run(stop.clone()));
    let mut changes = directory.changed();
    replica(world, &namespace, "kv-0").await?;
    let peers = peers_when(&directory, "one peer", |peers| peers.len() == 1).await?;
    ensure!(directory.pod_states(&peers).await?.into_values().all(|state| state == PodState::Running));
    changes.mark_unchanged();
    // Endpoints would be looked at again in 15 s at the latest, too; what tells them apart is that this one ends.
    world.bed.kubectl(&["delete", "pod", "kv-0", "-n", &namespace, "--wait=false", "--grace-period=600"]).await?;
    timeout(LIMIT, changes.changed()).await.context("its end was not told")??;
    peers_when(&directory, "a peer that is ending", |peers| peers.iter().any(|peer| peer.terminating)).await?;
    stop.cancel();
    Ok(())
}
