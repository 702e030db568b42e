//! The Events that were written on a pod, by us: what `explain` repeats where the service account may list them.
//!
//! None of our manifests grants that right, and nothing but `explain` wants it.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tokio::time::timeout;

use super::CONTROLLER;
use crate::causes::with_causes;
use crate::domain::ids::Timestamp;
use crate::domain::pod_name::PodName;

/// Somebody waits for it at a terminal.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// A pod has a few Events of each of a dozen causes. The API server keeps them for an hour.
const MOST_EVENTS: u32 = 100;

/// An Event on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEvent {
    /// The UID of the pod that it is about.
    pub uid: String,
    /// Its reason.
    pub reason: String,
    /// What it says.
    pub note: String,
    /// How often that was said.
    pub count: u64,
    /// When it was last said.
    pub last: Option<Timestamp>,
}

/// The Events of ours on all pods that ever had that name, oldest first.
///
/// # Errors
/// Why they cannot be told, in words.
pub async fn past_events(client: &kube::Client, pod: &PodName) -> Result<Vec<PastEvent>, String> {
    let events: Api<Event> = Api::namespaced(client.clone(), pod.namespace());
    let selected = format!("regarding.kind=Pod,regarding.name={},reportingController={CONTROLLER}", pod.name());
    let params = ListParams::default().fields(&selected).limit(MOST_EVENTS);
    let listed = timeout(READ_LIMIT, events.list(&params)).await;
    let listed = listed.map_err(|_| format!("the API server did not answer within {} s", READ_LIMIT.as_secs()))?;
    let listed = listed.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => {
            "the service account may not list events.events.k8s.io, which it needs for this alone".to_owned()
        }
        kube::Error::Api(status) => status.message,
        error => with_causes(&error),
    })?;
    let mut past: Vec<PastEvent> = listed.items.into_iter().filter_map(|event| of_ours(event, pod)).collect();
    past.sort_by_key(|event| event.last);
    Ok(past)
}

fn of_ours(event: Event, pod: &PodName) -> Option<PastEvent> {
    let regarding = event.regarding?;
    // A server that overlooks the selector must not have us repeat another pod's.
    let ours = event.reporting_controller.as_deref() == Some(CONTROLLER)
        && regarding.name.as_deref() == Some(pod.name())
        && regarding.namespace.as_deref() == Some(pod.namespace());
    let series = event.series;
    let last = series.as_ref().map(|series| series.last_observed_time.0).or(event.event_time.map(|time| time.0));
    ours.then(|| PastEvent {
        uid: regarding.uid.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        note: event.note.unwrap_or_default(),
        count: series.and_then(|series| u64::try_from(series.count).ok()).unwrap_or(1),
        last: last.and_then(|time| u64::try_from(time.as_millisecond()).ok()).map(Timestamp),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::k8s::fake_api::{Answer, FakeApi, status};

    fn event(pod: &str, controller: &str, reason: &str, at: &str, series: &Value) -> Value {
        json!({
            "metadata": {"name": "x", "namespace": "team-a"}, "eventTime": at, "reason": reason, "note": "because",
            "reportingController": controller, "series": series,
            "regarding": {"kind": "Pod", "name": pod, "namespace": "team-a", "uid": "uid-1"},
        })
    }

    #[tokio::test]
    async fn only_our_events_on_that_pod_are_told_oldest_first() {
        let again = json!({"count": 7, "lastObservedTime": "2026-01-01T00:00:09.000000Z"});
        let items = [
            event("web", "kubernetes-vault", "VaultUnavailable", "2026-01-01T00:00:00.000000Z", &again),
            event("web", "kubernetes-vault", "SecretIdRetrying", "2026-01-01T00:00:05.000000Z", &Value::Null),
            event("web", "kubelet", "Pulled", "2026-01-01T00:00:01.000000Z", &Value::Null),
            event("web-2", "kubernetes-vault", "LedgerFull", "2026-01-01T00:00:01.000000Z", &Value::Null),
        ];
        let list = json!({"kind": "EventList", "apiVersion": "events.k8s.io/v1", "metadata": {}, "items": items});
        let api = FakeApi::new([], Answer::Json(200, list));
        let past = past_events(&api.client(), &"team-a/web".parse().unwrap()).await.unwrap();
        let told: Vec<(&str, u64)> = past.iter().map(|event| (event.reason.as_str(), event.count)).collect();
        assert_eq!(told, [("SecretIdRetrying", 1), ("VaultUnavailable", 7)]);
        let asked = &api.asked()[0];
        assert_eq!(asked.path, "/apis/events.k8s.io/v1/namespaces/team-a/events");
        assert!(asked.query.contains("regarding.name%3Dweb"), "{}", asked.query);
    }

    #[tokio::test]
    async fn without_the_right_the_missing_one_is_named() {
        let api = FakeApi::new([], Answer::Json(403, status(403, "Forbidden", "no")));
        let why = past_events(&api.client(), &"team-a/web".parse().unwrap()).await.unwrap_err();
        assert!(why.contains("may not list events.events.k8s.io"), "{why}");
    }
}
