//! What happens to pods, with the time at which it was seen: a watch, as any client may have.

use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};

use crate::screen::millis;

/// Long enough for two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// Once may be an accident.
const CRASHES: i32 = 2;

type Pods = Pin<Box<dyn Stream<Item = watcher::Result<Pod>> + Send>>;

/// Follows the pods of one namespace.
pub(crate) struct Follower {
    pods: Pods,
}

/// What was seen of one pod, and when.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) pod: Pod,
    pub(crate) created: Instant,
    /// The init container runs.
    pub(crate) waiting: Option<Instant>,
    /// It ended with success.
    pub(crate) served: Option<Instant>,
    /// The application runs.
    pub(crate) running: Option<Instant>,
}

impl Seen {
    fn new(pod: Pod) -> Self {
        Self { pod, created: Instant::now(), waiting: None, served: None, running: None }
    }

    pub(crate) fn name(&self) -> String {
        self.pod.name_any()
    }

    /// From the init container's start to its end.
    pub(crate) fn served_in(&self) -> String {
        // Both statuses may arrive in one: then it took no time that could be seen.
        let served = self.served.unwrap_or(self.created);
        millis(served - self.waiting.unwrap_or(served))
    }

    /// Takes in a newer status; an error where the pod cannot get to run any more.
    fn update(&mut self, pod: Pod) -> Result<()> {
        self.pod = pod;
        let Some(status) = &self.pod.status else { return Ok(()) };
        let state = |statuses: &Option<Vec<ContainerStatus>>| -> Option<ContainerState> {
            statuses.as_ref()?.first()?.state.clone()
        };
        if status.phase.as_deref() == Some("Failed") {
            bail!("pod {} failed: {}", self.name(), status.message.as_deref().unwrap_or("its status does not say why"));
        }
        if let Some(state) = state(&status.init_container_statuses) {
            if state.running.is_some() {
                self.waiting.get_or_insert_with(Instant::now);
            }
            if let Some(end) = state.terminated {
                if end.exit_code != 0 {
                    let message = end.message.unwrap_or_else(|| "it left no message".to_owned());
                    let name = self.name();
                    bail!(
                        "the init container of pod {name} ended with exit code {}: {}",
                        end.exit_code,
                        message.trim()
                    );
                }
                self.served.get_or_insert_with(Instant::now);
            }
        }
        if state(&status.container_statuses).is_some_and(|state| state.running.is_some()) {
            self.running.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

impl Follower {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let events = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
        Self { pods: Box::pin(events) }
    }

    /// Follows until `count` pods that `is_wanted` run; `tell` is called at each change of one of them.
    pub(crate) async fn until_running(
        &mut self,
        count: usize,
        is_wanted: impl Fn(&Pod) -> bool,
        mut tell: impl FnMut(&Seen, &Seen) -> Result<()>,
    ) -> Result<Vec<Seen>> {
        let mut seen: Vec<Seen> = Vec::new();
        let follow = async {
            while seen.iter().filter(|seen| seen.running.is_some()).count() < count {
                let pod = self.pods.next().await.context("the watch of pods ended")?;
                // The watch goes on by itself: what lasts ends at the limit.
                let Ok(pod) = pod else { continue };
                if !is_wanted(&pod) {
                    continue;
                }
                let index = seen.iter().position(|known| known.pod.uid() == pod.uid()).unwrap_or_else(|| {
                    seen.push(Seen::new(pod.clone()));
                    seen.len() - 1
                });
                let before = seen[index].clone();
                seen[index].update(pod)?;
                tell(&before, &seen[index])?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(LIMIT, follow).await {
            Ok(result) => result?,
            Err(_) => bail!("after {} s there are not {count} running pods: {}", LIMIT.as_secs(), phases(&seen)),
        }
        Ok(seen)
    }
}

fn phases(seen: &[Seen]) -> String {
    let phase = |seen: &Seen| {
        let what = match (seen.waiting, seen.served) {
            (None, _) => "its init container has not started",
            (_, None) => "its init container waits for a secret_id",
            _ => "its application has not started",
        };
        format!("{}: {what}", seen.name())
    };
    if seen.is_empty() {
        "no pod was created".to_owned()
    } else {
        seen.iter().map(phase).collect::<Vec<_>>().join("; ")
    }
}

/// The exit code of a pod's container that does not stay alive.
pub(crate) fn crashes(pod: &Pod) -> Option<i32> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let crashing = statuses.iter().find(|status| status.restart_count >= CRASHES)?;
    Some(crashing.last_state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Whether all containers of a pod are ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(init: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"initContainerStatuses":
            [{"name": "i", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": init}]}}))
        .unwrap()
    }

    #[test]
    fn times_are_those_of_the_first_sight() {
        let mut seen = Seen::new(Pod::default());
        let running = json!({"running": {}});
        seen.update(pod(&running)).unwrap();
        let first = seen.waiting;
        seen.update(pod(&running)).unwrap();
        assert!(first.is_some() && seen.waiting == first && seen.served.is_none());
        seen.update(pod(&json!({"terminated": {"exitCode": 0}}))).unwrap();
        assert!(seen.served.is_some() && seen.running.is_none());
    }

    #[test]
    fn an_init_container_that_fails_is_an_error_with_its_message() {
        let end = json!({"terminated": {"exitCode": 4, "message": "no role_id"}});
        let error = Seen::new(Pod::default()).update(pod(&end)).unwrap_err().to_string();
        assert_eq!(error, "the init container of pod p ended with exit code 4: no role_id");
    }
}
