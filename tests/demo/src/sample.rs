//! The step that everything is for: a pod starts, and holds a token that reads a secret.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testbed::{Testbed, poll_until};

use crate::follow::{Follower, Seen};
use crate::screen::{Screen, millis, table};
use crate::setup::APPLY_SAMPLE;
use crate::shell::Shell;

pub(crate) const NAMESPACE: &str = "default";
pub(crate) const DEPLOYMENT: &str = "sample-app";
/// The name of the container in the manifest.
pub(crate) const CONTAINER: &str = "sample-app";
/// The last line of the application: it has read its secret.
const SHOWN_ALL: &str = "Waiting until this pod is deleted.";
pub(crate) const DELIVERED: &str = "SecretIdDelivered";
const LIMIT: Duration = Duration::from_secs(30);

/// Applies its manifests, and shows what becomes of the pod.
pub(crate) async fn start(bed: &Testbed, shell: &Shell, screen: &Screen, pods: &mut Follower) -> Result<Seen> {
    screen.step("Start the sample application");
    screen.command(APPLY_SAMPLE);
    let first = follow_one(pods, screen, |_| true);
    let (_, seen) = tokio::try_join!(shell.run(APPLY_SAMPLE), first)?;
    let name = seen.name();
    screen.command("kubectl get pods");
    screen.output(&shell.run("kubectl get pods").await?.out);
    let events = delivered_events(bed, &name).await?;
    screen.note("Its Events:");
    screen.output(&events_table(&events));
    screen.note("The application's log (all that it got is what the init container left):");
    let log = log(bed, &name).await?;
    screen.output(log.lines().filter(|line| *line != SHOWN_ALL).collect::<Vec<_>>().join("\n").as_str());
    screen.done(&format!("token {} after the init container ran; secret read", seen.served_in()));
    Ok(seen)
}

/// Follows the one pod that is to start, telling each step of it.
async fn follow_one(pods: &mut Follower, screen: &Screen, is_wanted: impl Fn(&Pod) -> bool) -> Result<Seen> {
    let mut told_of = String::new();
    let seen = pods
        .until_running(1, is_wanted, |before, now| {
            let name = now.name();
            if told_of != name {
                screen.milestone(&format!("pod {name} created"));
                told_of = name;
            }
            if before.waiting.is_none() && now.waiting.is_some() {
                screen.milestone("its init container runs and waits");
            }
            if before.served.is_none() && now.served.is_some() {
                screen.milestone(&format!("{} later: secret_id delivered and unwrapped, logged in", now.served_in()));
            }
            if let (None, Some(running), Some(served)) = (before.running, now.running, now.served) {
                screen.milestone(&format!("{} later: the application runs", millis(running - served)));
            }
            Ok(())
        })
        .await?;
    seen.into_iter().find(|seen| seen.running.is_some()).context("no pod runs")
}

/// All Events on a pod, once the one of the delivery is there.
pub(crate) async fn delivered_events(bed: &Testbed, pod: &str) -> Result<Vec<Event>> {
    let what = format!("Event {DELIVERED} on pod {pod}");
    let found = poll_until(&what, LIMIT, || async {
        let events = events_of(bed, pod).await?;
        let delivered = events.iter().any(|event| event.reason.as_deref() == Some(DELIVERED));
        Ok(delivered.then_some(events))
    });
    found.await.context("the controller's log says why it could not write it")
}

/// All warnings on pods of any namespace.
pub(crate) async fn warnings(bed: &Testbed) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::all(bed.client());
    let mut found = events.list(&ListParams::default()).await?.items;
    found.retain(|event| event.type_.as_deref() == Some("Warning"));
    Ok(found)
}

/// All Events on a pod, oldest first.
async fn events_of(bed: &Testbed, pod: &str) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(bed.client(), NAMESPACE);
    let mut found = events.list(&ListParams::default()).await?.items;
    found.retain(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(pod));
    found.sort_by_key(ResourceExt::creation_timestamp);
    Ok(found)
}

/// As kubectl shows them, without the columns that are the same for all.
pub(crate) fn events_table(events: &[Event]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut rows = vec![["TYPE", "REASON", "MESSAGE"].map(str::to_owned)];
    rows.extend(events.iter().map(|event| [text(&event.type_), text(&event.reason), text(&event.note)]));
    table(&rows)
}

/// What the application printed, once it has read its secret.
pub(crate) async fn log(bed: &Testbed, pod: &str) -> Result<String> {
    let start = Instant::now();
    poll_until(&format!("secret read by pod {pod}"), LIMIT, || async {
        // There is no log before the container has started.
        let log = bed.logs(NAMESPACE, pod, CONTAINER).unwrap_or_default();
        Ok(log.contains(SHOWN_ALL).then_some(log))
    })
    .await
    .with_context(|| format!("the application did not get to its end in {}: see its log", millis(start.elapsed())))
}
