//! A scripted API server for tests: answers in order, then one answer for ever; keeps every request and its time.
//!
//! It is the client's own service, without a socket, so that tests run under paused time.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What follows the lines of a watch.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Close,
    CloseAfter(Duration),
    Break,
    Hang,
}

/// One answer.
#[derive(Clone)]
pub(super) enum Answer {
    Json(u16, Value),
    Lines(Vec<String>, Then),
    /// Accepts the request and never answers.
    Never,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Value,
}

impl Asked {
    pub(super) fn is_list(&self) -> bool {
        !self.query.contains("watch=true")
    }
}

pub(super) struct FakeApi {
    script: Mutex<VecDeque<Answer>>,
    afterwards: Answer,
    asked: Mutex<Vec<Asked>>,
}

impl FakeApi {
    pub(super) fn new(script: impl IntoIterator<Item = Answer>, afterwards: Answer) -> Arc<Self> {
        let script = Mutex::new(script.into_iter().collect());
        Arc::new(Self { script, afterwards, asked: Mutex::default() })
    }

    pub(super) fn client(self: &Arc<Self>) -> kube::Client {
        let api = Arc::clone(self);
        let router = Router::new().fallback(move |request: Request| {
            let api = Arc::clone(&api);
            async move { api.answer(request).await }
        });
        kube::Client::new(router, "default")
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        self.asked.lock().unwrap().push(Asked {
            at: Instant::now(),
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        });
        let answer = self.script.lock().unwrap().pop_front().unwrap_or_else(|| self.afterwards.clone());
        match answer {
            Answer::Never => pending().await,
            Answer::Json(code, value) => Response::builder().status(code).body(Body::from(value.to_string())).unwrap(),
            Answer::Lines(lines, then) => {
                let lines = stream::iter(lines.into_iter().map(|line| Ok(line + "\n")));
                let end = stream::once(async move {
                    match then {
                        Then::Close => None,
                        Then::CloseAfter(wait) => {
                            tokio::time::sleep(wait).await;
                            None
                        }
                        Then::Break => Some(Err(std::io::Error::other("connection reset by peer"))),
                        Then::Hang => pending().await,
                    }
                });
                let end = end.filter_map(|end: Option<Result<String, _>>| async move { end });
                Response::new(Body::from_stream(lines.chain(end)))
            }
        }
    }
}

/// A watch line.
pub(super) fn line(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string()
}

/// A bookmark; with `initial_end` the one that completes a streaming list.
pub(super) fn bookmark(version: &str, initial_end: bool) -> String {
    let annotations = if initial_end { json!({"k8s.io/initial-events-end": "true"}) } else { Value::Null };
    let metadata = json!({"resourceVersion": version, "creationTimestamp": null, "annotations": annotations});
    line("BOOKMARK", &json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}))
}

/// An error as the API server writes it.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// A page of a list.
pub(super) fn page(version: &str, more: &str, items: &[Value]) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": more}, "items": items})
}

/// A pending annotated pod whose init container runs.
pub(super) fn pod(namespace: &str, name: &str, version: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"), "resourceVersion": version,
            "annotations": {
                "pod.boostport.com/vault-approle": "sample", "pod.boostport.com/vault-init-container": "install",
            },
        },
        "spec": {"initContainers": [{"name": "install"}], "containers": [{"name": "app"}]},
        "status": {"phase": "Pending", "podIP": "10.0.0.7", "initContainerStatuses": [
            {"name": "install", "containerID": "containerd://a", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
        ]},
    })
}
