//! The watch of pods against the real API server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use kubernetes_vault::deliver::ports::{PodEvent, PodFeed as _};
use kubernetes_vault::domain::pod::{ContainerState, Decision, Phase, Pod as Seen, Target, decide};
use kubernetes_vault::k8s::watch::{Feed, NamespaceFilter};
use serde_json::json;
use testbed::fake_pods::{self, FakePod};
use tokio::time::timeout;

use crate::controller::{Pod, create, namespace};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    a_pod_is_seen_through_its_whole_start,
    running_pods_are_neither_listed_nor_watched,
    one_namespace_needs_a_role_only,
    without_the_right_to_watch_the_remedy_is_told,
    a_pod_is_read_by_name_in_any_phase,
    other_namespaces_are_left_out_of_a_wide_watch,
    hundreds_of_pods_come_in_one_complete_list,
}

cases! { ALONE:
    a_restart_of_the_api_server_loses_nothing,
}

struct Watch {
    feed: Feed,
    events: BoxStream<'static, PodEvent>,
}

impl Watch {
    fn start(client: kube::Client, filter: NamespaceFilter) -> Self {
        let feed = Feed::new(client, filter);
        let events = feed.events();
        Self { feed, events }
    }

    fn of(world: &World, namespace: &str) -> Self {
        Self::start(world.bed.client(), NamespaceFilter::One(namespace.into()))
    }

    async fn next(&mut self) -> Result<PodEvent> {
        timeout(LIMIT, self.events.next()).await.context("the watch is silent")?.context("the watch has ended")
    }

    /// The names in the first complete list.
    async fn list(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            match self.next().await? {
                PodEvent::Synced => return Ok(names),
                PodEvent::Seen(pod) => names.push(pod.reference.name.to_string()),
                PodEvent::Restarted => names.clear(),
                PodEvent::Left(pod) => bail!("{} left amid a list", pod.reference),
            }
        }
    }

    async fn seen(&mut self) -> Result<Seen> {
        match self.next().await? {
            PodEvent::Seen(pod) => Ok(Arc::unwrap_or_clone(pod)),
            other => bail!("not seen: {other:?}"),
        }
    }
}

fn state(pod: &Seen) -> Option<&ContainerState> {
    match pod.wish.as_ref().map(|wish| &wish.target) {
        Some(Target::Init { status, .. }) => Some(&status.state),
        _ => None,
    }
}

async fn a_pod_is_seen_through_its_whole_start(world: &World) -> Result<()> {
    let namespace = namespace(world, "trace").await?;
    let mut watch = Watch::of(world, &namespace);
    ensure!(watch.list().await?.is_empty());
    let pod = Pod::pending(world, &namespace, "trace").await?;

    let pending = watch.seen().await?;
    ensure!(decide(&pending) == Decision::Wait && pending.ips.is_empty(), "{pending:?}");
    ensure!(&*pending.node == fake_pods::NODE && &*pending.service_account == "default", "{pending:?}");

    pod.run(world).await?;
    let running = watch.seen().await?;
    // Id and address come in one update.
    ensure!(running.ips == [pod.ip], "{running:?}");
    let Decision::Deliver(candidate) = decide(&running) else { bail!("no candidate: {running:?}") };
    ensure!(candidate.container_id.as_str() == pod.id && candidate.running_since.is_some());

    pod.exit(world, 0, "attempt=abc").await?;
    let ended = watch.seen().await?;
    let Some(ContainerState::Terminated(end)) = state(&ended) else { bail!("not ended: {ended:?}") };
    ensure!(end.exit_code == 0 && end.message.as_deref() == Some("attempt=abc"), "{end:?}");

    fake_pods::set_running(&world.bed.client(), &pod.fake, pod.ip, &pod.id).await?;
    match watch.next().await? {
        // It carries the state before it left the selection.
        PodEvent::Left(left) => ensure!(left.reference == ended.reference && left.phase == Phase::Pending, "{left:?}"),
        other => bail!("{other:?}"),
    }
    Ok(())
}

async fn running_pods_are_neither_listed_nor_watched(world: &World) -> Result<()> {
    let namespace = namespace(world, "busy").await?;
    let running = Pod::pending(world, &namespace, "running").await?;
    fake_pods::set_running(&world.bed.client(), &running.fake, running.ip, &running.id).await?;
    Pod::pending(world, &namespace, "waiting").await?;
    let mut watch = Watch::of(world, &namespace);
    ensure!(watch.list().await? == ["waiting"]);
    // A change of the running one is not seen; the next word is about the new one.
    fake_pods::set_running(&world.bed.client(), &running.fake, world.address(), &running.id).await?;
    Pod::pending(world, &namespace, "new").await?;
    ensure!(&*watch.seen().await?.reference.name == "new");
    Ok(())
}

/// A token that may do what `rules` say in `namespace`, and nothing else.
async fn token(world: &World, namespace: &str, rules: serde_json::Value) -> Result<String> {
    let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "limited", "namespace": namespace}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "limited", "namespace": namespace}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "limited", "namespace": namespace},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"},
         "subjects": [{"kind": "ServiceAccount", "name": "limited", "namespace": namespace}]},
    ]});
    let path = world.bed.directory().join(world.name("limited"));
    std::fs::write(&path, manifest.to_string())?;
    world.bed.kubectl(&["apply", "-f", &path.display().to_string()]).await?;
    let token = world.bed.kubectl(&["create", "token", "limited", "-n", namespace]).await?;
    Ok(token.trim().to_owned())
}

/// A client that may do what `rules` say in `namespace`, and nothing else.
pub(crate) async fn limited(world: &World, namespace: &str, rules: serde_json::Value) -> Result<kube::Client> {
    let token = token(world, namespace, rules).await?;
    let plane = world.bed.control_plane();
    let mut config = kube::Config::new(plane.url().parse()?);
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(plane.ca().as_bytes());
    let ca: rustls::pki_types::CertificateDer<'_> = ca?;
    config.root_cert = Some(vec![ca.to_vec()]);
    config.auth_info.token = Some(token.into());
    Ok(kube::Client::try_from(config)?)
}

/// What the reference asks for in the namespace that it watches.
fn watch_pods() -> serde_json::Value {
    json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}])
}

/// A client that may list and watch pods.
pub(crate) async fn watcher_only(world: &World, namespace: &str) -> Result<kube::Client> {
    limited(world, namespace, watch_pods()).await
}

/// The same, as a kubeconfig.
pub(crate) async fn watcher_kubeconfig(world: &World, namespace: &str) -> Result<PathBuf> {
    let token = token(world, namespace, watch_pods()).await?;
    kubeconfig(world, &world.bed.control_plane().url(), &token)
}

/// A kubeconfig of whoever has this token, at this API server.
pub(crate) fn kubeconfig(world: &World, server: &str, token: &str) -> Result<PathBuf> {
    let (plane, directory) = (world.bed.control_plane(), world.bed.directory());
    let (ca, path) = (directory.join(world.name("ca")), directory.join(world.name("kubeconfig")));
    std::fs::write(&ca, plane.ca())?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    });
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

async fn one_namespace_needs_a_role_only(world: &World) -> Result<()> {
    let namespace = namespace(world, "role").await?;
    let client = watcher_only(world, &namespace).await?;
    let mut watch = Watch::start(client, NamespaceFilter::One(namespace.as_str().into()));
    ensure!(watch.list().await?.is_empty());
    Pod::pending(world, &namespace, "mine").await?;
    ensure!(&*watch.seen().await?.reference.name == "mine");
    let read = watch.feed.read(&namespace, "mine").await?;
    ensure!(read.is_some(), "it cannot be read by name");
    Ok(())
}

async fn without_the_right_to_watch_the_remedy_is_told(world: &World) -> Result<()> {
    let namespace = namespace(world, "forbidden").await?;
    let client = limited(world, &namespace, json!([])).await?;
    let mut watch = Watch::start(client, NamespaceFilter::One(namespace.as_str().into()));
    let health = watch.feed.health();
    let silent = timeout(Duration::from_secs(3), watch.events.next()).await;
    ensure!(silent.is_err(), "a forbidden watch said {silent:?}");
    let told = health.last_error().context("nothing is told")?;
    ensure!(!health.fresh() && told.contains("forbidden"), "{told}");
    Ok(())
}

async fn a_pod_is_read_by_name_in_any_phase(world: &World) -> Result<()> {
    let namespace = namespace(world, "read").await?;
    let pod = Pod::pending(world, &namespace, "read").await?;
    create(world, &FakePod::plain(&namespace, "read-too")).await?;
    let feed = Feed::new(world.bed.client(), NamespaceFilter::One(namespace.as_str().into()));
    let read = feed.read(&namespace, "read").await?.context("not found")?;
    ensure!(read.phase == Phase::Pending && &*read.reference.name == "read", "{read:?}");
    fake_pods::set_running(&world.bed.client(), &pod.fake, pod.ip, &pod.id).await?;
    let read = feed.read(&namespace, "read").await?.context("not found")?;
    ensure!(read.phase == Phase::Running, "{read:?}");
    let Some(ContainerState::Terminated(end)) = state(&read) else { bail!("{read:?}") };
    ensure!(end.id.as_ref().is_some_and(|id| id.as_str() == pod.id));
    fake_pods::delete(&world.bed.client(), &pod.fake).await?;
    ensure!(feed.read(&namespace, "read").await?.is_none());
    Ok(())
}

async fn other_namespaces_are_left_out_of_a_wide_watch(world: &World) -> Result<()> {
    let (ours, theirs) = (namespace(world, "wide-ours").await?, namespace(world, "wide-theirs").await?);
    let mine: Arc<str> = ours.as_str().into();
    let filter = NamespaceFilter::Matching(Arc::new(move |namespace| *namespace == *mine));
    let mut watch = Watch::start(world.bed.client(), filter);
    ensure!(watch.list().await?.is_empty(), "pods of other namespaces are in the list");
    create(world, &FakePod::plain(&theirs, "theirs")).await?;
    create(world, &FakePod::plain(&ours, "ours")).await?;
    ensure!(&*watch.seen().await?.reference.namespace == ours.as_str());
    Ok(())
}

async fn hundreds_of_pods_come_in_one_complete_list(world: &World) -> Result<()> {
    let namespace = namespace(world, "many").await?;
    create(world, &FakePod::plain(&namespace, "many-000")).await?;
    let pods: Vec<FakePod> = (1..250).map(|n| FakePod::plain(&namespace, &format!("many-{n:03}"))).collect();
    let client = world.bed.client();
    fake_pods::for_all(&pods, |_, pod| fake_pods::create_pending(&client, pod)).await?;
    let mut names = Watch::of(world, &namespace).list().await?;
    names.sort();
    names.dedup();
    ensure!(names.len() == 250, "{} pods", names.len());
    Ok(())
}

// Bad-input table: 410; API server restart: service continues, nothing missed.
async fn a_restart_of_the_api_server_loses_nothing(world: &World) -> Result<()> {
    let namespace = namespace(world, "outage").await?;
    let pods = [Pod::pending(world, &namespace, "stays").await?, Pod::pending(world, &namespace, "goes").await?];
    let mut watch = Watch::of(world, &namespace);
    ensure!(watch.list().await?.len() == 2);
    let health = watch.feed.health();
    let plane = world.bed.control_plane();
    // What is written elsewhere moves the revision on: our place is older than all that the new server remembers.
    for index in 0..5 {
        create(world, &FakePod::plain("default", &world.name(&format!("elsewhere-{index}")))).await?;
    }
    plane.kill_api_server().await;
    let silent = timeout(Duration::from_secs(1), watch.events.next()).await;
    plane.start_api_server().await?;
    ensure!(silent.is_err(), "an outage said {silent:?}");
    // While the watch is not polled nothing is lost either.
    pods[0].run(world).await?;
    fake_pods::delete(&world.bed.client(), &pods[1].fake).await?;
    let ip: IpAddr = pods[0].ip;
    let (mut ran, mut gone, mut anew) = (false, false, false);
    while !(ran && gone && anew) {
        match watch.next().await? {
            PodEvent::Seen(pod) => ran |= &*pod.reference.name == "stays" && pod.ips == [ip],
            PodEvent::Left(pod) => gone |= &*pod.reference.name == "goes",
            // A new list: who is not in it has gone.
            PodEvent::Restarted => (gone, anew) = (true, true),
            PodEvent::Synced => {}
        }
    }
    ensure!(health.counts().undecodable == 0);
    Ok(())
}
