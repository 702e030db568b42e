//! Events on pods, written to the real API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use kubernetes_vault::clock::{Clock, SystemClock};
use kubernetes_vault::deliver::ports::Announcer as _;
use kubernetes_vault::domain::announcement::Announcement;
use kubernetes_vault::domain::ids::{AttemptId, PodRef};
use kubernetes_vault::k8s::events::EventAnnouncer;
use testbed::fake_pods::FakePod;
use testbed::poll_until;
use tokio_util::sync::CancellationToken;

use crate::controller::{create, namespace};
use crate::kubernetes_watch::watcher_only;
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    an_event_names_the_pod_and_what_to_do,
    the_same_cause_again_is_a_series_of_one_event,
    without_the_right_to_create_events_they_are_dropped_and_counted,
}

async fn pod(world: &World, namespace: &str, name: &str) -> Result<PodRef> {
    let made = create(world, &FakePod::plain(namespace, name)).await?;
    let uid = made.metadata.uid.context("no uid")?;
    Ok(PodRef { namespace: namespace.into(), name: name.into(), uid: uid.as_str().into() })
}

fn announcer(client: kube::Client, stop: &CancellationToken) -> EventAnnouncer {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (announcer, writer) = EventAnnouncer::new(client, "controller-0", clock);
    tokio::spawn(writer.run(stop.clone()));
    announcer
}

async fn events(client: kube::Client, pod: &PodRef) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(client, &pod.namespace);
    Ok(events.list(&ListParams::default()).await?.items)
}

async fn an_event_names_the_pod_and_what_to_do(world: &World) -> Result<()> {
    let namespace = namespace(world, "events").await?;
    let pod = pod(world, &namespace, "told").await?;
    let stop = CancellationToken::new();
    let announcer = announcer(world.bed.client(), &stop);
    let attempt = AttemptId::from("0badcafe");
    announcer.announce(&pod, Announcement::Delivered { attempt, after: Duration::from_millis(12) });
    announcer.announce(&pod, Announcement::VaultUnavailable("Vault is sealed; unseal it".to_owned()));
    let both = || async { Ok(Some(events(world.bed.client(), &pod).await?).filter(|all| all.len() == 2)) };
    for event in poll_until("two Events", LIMIT, both).await? {
        let regarding = event.regarding.context("it names no object")?;
        ensure!(regarding.uid.as_deref() == Some(pod.uid.as_str()) && regarding.kind.as_deref() == Some("Pod"));
        ensure!(event.reporting_controller.as_deref() == Some("kubernetes-vault"));
        ensure!(event.reporting_instance.as_deref() == Some("controller-0"));
        let (kind, reason, note) = (event.type_, event.reason, event.note.unwrap_or_default());
        match reason.as_deref() {
            Some("SecretIdDelivered") => ensure!(kind.as_deref() == Some("Normal") && note.contains("0badcafe")),
            Some("VaultUnavailable") => ensure!(kind.as_deref() == Some("Warning") && note.contains("unseal it")),
            other => anyhow::bail!("{other:?}"),
        }
    }
    // As people see them.
    let shown = world.bed.kubectl(&["describe", "pod", "told", "-n", &namespace]).await?;
    ensure!(shown.contains("SecretIdDelivered") && shown.contains("unseal it"), "{shown}");
    stop.cancel();
    Ok(())
}

/// On a runtime whose time can be moved: a series is written a minute apart.
async fn the_same_cause_again_is_a_series_of_one_event(world: &World) -> Result<()> {
    let namespace = namespace(world, "series").await?;
    let pod = pod(world, &namespace, "again").await?;
    let kubeconfig = world.bed.kubeconfig();
    let plane = world.bed.control_plane();
    let own_time = std::thread::scope(|scope| {
        let own = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(series(plane.client(&kubeconfig), &pod))
        });
        own.join().map_err(|_| anyhow::anyhow!("the case panicked"))
    });
    own_time?
}

async fn series(client: impl Future<Output = Result<kube::Client>>, pod: &PodRef) -> Result<()> {
    let client = client.await?;
    let stop = CancellationToken::new();
    let announcer = announcer(client.clone(), &stop);
    let sealed = || Announcement::VaultUnavailable("Vault is sealed; unseal it".to_owned());
    for _ in 0..5 {
        announcer.announce(pod, sealed());
    }
    let counters = announcer.counters();
    // Time may only be moved while no request is under way.
    let written = || async { Ok((counters.written() == 1).then_some(())) };
    poll_until("the first Event", LIMIT, written).await?;
    let first = || async { Ok(events(client.clone(), pod).await?.pop()) };
    let first = poll_until("an Event", LIMIT, first).await?;
    ensure!(first.series.is_none(), "a first Event is no series");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    announcer.announce(pod, sealed());
    let counted = || async {
        let mut all = events(client.clone(), pod).await?;
        ensure!(all.len() == 1, "{} Events for one cause", all.len());
        Ok(all.pop().and_then(|event| event.series).map(|series| series.count))
    };
    let count = poll_until("a series", LIMIT, counted).await?;
    // The look at what was held back may come before the last announcement, or after it.
    ensure!((5..=6).contains(&count), "counted {count}");
    stop.cancel();
    Ok(())
}

async fn without_the_right_to_create_events_they_are_dropped_and_counted(world: &World) -> Result<()> {
    let namespace = namespace(world, "no-events").await?;
    let pod = pod(world, &namespace, "untold").await?;
    let stop = CancellationToken::new();
    let announcer = announcer(watcher_only(world, &namespace).await?, &stop);
    let counters = announcer.counters();
    announcer.announce(&pod, Announcement::DeliveredEarlier);
    let failed = || async { Ok((counters.failed() == 1).then_some(())) };
    poll_until("a refused Event", LIMIT, failed).await?;
    for _ in 0..20 {
        announcer.announce(&pod, Announcement::Reopened);
    }
    let dropped = || async { Ok((counters.dropped() == 20).then_some(())) };
    poll_until("dropped Events", LIMIT, dropped).await?;
    ensure!(counters.failed() == 1 && counters.written() == 0, "it was tried again");
    ensure!(events(world.bed.client(), &pod).await?.is_empty());
    stop.cancel();
    Ok(())
}
