//! Our own peers: the pods behind our own service, and whether their controller runs.
//!
//! Owns every read of EndpointSlices, Endpoints and of our own pods. What it returns is read anew each time (an unset
//! resourceVersion: never from a cache) and complete, or it is an error: decisions about members are made with it. Must
//! never take a list that was cut short for a whole one, never call a peer absent that it could not read, and never
//! wait without a limit.
//!
//! The rights: `endpointslices` get, list and watch; or `endpoints` get alone, which is all that an installation of the
//! Go version grants. Pods of peers: `pods` list in the service's namespace.

mod own;
mod parse;
mod pods;
#[cfg(test)]
mod tests;
mod watcher;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use self::own::OwnPod;
pub use self::watcher::PeerWatcher;
use crate::causes::with_causes;
use crate::domain::ids::PodUid;

/// One request, connecting included. A decision waits for it, and is made again a few seconds later.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Slices of a service hold up to 100 endpoints each. A list beyond this many is refused as a whole.
const MOST_SLICES: u32 = 50;
/// Once it was forbidden to list slices, Endpoints are read instead for so long: rights are granted while we run, and
/// an API server that has just started may refuse what it allows a second later.
const FORBIDDEN_FOR: Duration = Duration::from_secs(600);
/// What the slices of a service are found by.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One pod behind the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The pod's UID: a pod that was created anew under its name is another peer.
    pub uid: PodUid,
    /// The pod's name.
    pub pod: Arc<str>,
    /// Its addresses, each once, sorted.
    pub addresses: Vec<IpAddr>,
    /// It passes its readiness probe, or the API does not say.
    pub ready: bool,
    /// It is being deleted. Endpoints do not tell.
    pub terminating: bool,
}

/// Whether the controller in a pod runs, by a fresh read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Its container runs, as far as its node has said.
    Running,
    /// Its container does not run.
    NotRunning {
        /// Such as `CrashLoopBackOff`, `ContainerCreating` or `Failed: Evicted`.
        reason: String,
    },
    /// There is no pod of that name, or it has another UID.
    Gone,
    /// We may not look, or its node does not say.
    Unknown,
}

/// The API server did not say who our peers are, or how one is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be read: {cause}{remedy}")]
pub struct PeersError {
    what: String,
    cause: String,
    remedy: &'static str,
    /// The HTTP status, where there was an answer.
    code: Option<u16>,
}

impl PeersError {
    /// Whether the service account lacks the right.
    pub fn is_forbidden(&self) -> bool {
        self.code == Some(403)
    }
}

/// The peers behind one service. Cheap to clone.
#[derive(Clone)]
pub struct PeerDirectory {
    client: kube::Client,
    namespace: Arc<str>,
    service: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Until when slices are not asked for.
    no_slices_until: Mutex<Option<Instant>>,
    warned_slices: AtomicBool,
    warned_pods: AtomicBool,
    changes: watch::Sender<u64>,
    urgent: watch::Sender<bool>,
}

/// The peers at one moment.
struct Listed {
    peers: Vec<Peer>,
    /// From where the slices may be watched; `None`: they were read from Endpoints.
    version: Option<String>,
}

impl PeerDirectory {
    /// The peers behind `service` in `namespace`, and the watcher that somebody has to run for
    /// [`PeerDirectory::changed`]. Asks nothing yet.
    pub fn new(client: kube::Client, namespace: &str, service: &str) -> (Self, PeerWatcher) {
        let shared = Shared {
            no_slices_until: Mutex::new(None),
            warned_slices: AtomicBool::new(false),
            warned_pods: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            urgent: watch::Sender::new(false),
        };
        let directory = Self { client, namespace: namespace.into(), service: service.into(), shared: Arc::new(shared) };
        let watcher = PeerWatcher::new(directory.clone());
        (directory, watcher)
    }

    /// All peers as they are now, ready or not, terminating ones included, ourselves included once we are listed;
    /// sorted by UID. Empty where the service has no pods (or is not there).
    ///
    /// # Errors
    /// What the API server said, in words. Never a part of the list.
    pub async fn list(&self) -> Result<Vec<Peer>, PeersError> {
        Ok(self.read().await?.peers)
    }

    /// Counts up whenever the peers may have changed: a reason for a fresh [`PeerDirectory::list`], and no more.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Whether a change is waited for: while a cluster forms, or a peer is lost. Where slices may not be watched,
    /// Endpoints are then read every 2 s instead of every 15 s.
    pub fn urgent(&self, urgent: bool) {
        self.shared.urgent.send_if_modified(|now| std::mem::replace(now, urgent) != urgent);
    }

    async fn read(&self) -> Result<Listed, PeersError> {
        if self.may_list_slices() {
            match self.slices().await {
                Err(error) if matches!(error.code, Some(403 | 404)) => self.without_slices(&error),
                other => return other,
            }
        }
        self.endpoints().await
    }

    fn may_list_slices(&self) -> bool {
        let until = self.shared.no_slices_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() >= until)
    }

    fn without_slices(&self, error: &PeersError) {
        let until = Instant::now() + FORBIDDEN_FOR;
        *self.shared.no_slices_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        if !self.shared.warned_slices.swap(true, Relaxed) {
            tracing::warn!(
                namespace = &*self.namespace,
                "{error}; peers are read from Endpoints every few seconds instead, where terminating ones cannot be told \
                 (grant get, list and watch on endpointslices.discovery.k8s.io in this namespace)"
            );
        }
    }

    async fn slices(&self) -> Result<Listed, PeersError> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = || format!("the EndpointSlices of the service {}/{}", self.namespace, self.service);
        let list = self.ask(what, api.list(&self.slices_of_ours().limit(MOST_SLICES))).await?;
        if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
            return Err(failed(what(), format!("there are more than {MOST_SLICES}")));
        }
        let version = list.metadata.resource_version.filter(|version| !version.is_empty());
        let version = version.ok_or_else(|| failed(what(), "the list has no resourceVersion"))?;
        Ok(Listed { peers: parse::from_slices(&list.items), version: Some(version) })
    }

    fn slices_of_ours(&self) -> ListParams {
        ListParams::default().labels(&format!("{SERVICE_LABEL}={}", self.service))
    }

    async fn endpoints(&self) -> Result<Listed, PeersError> {
        let peers = match self.endpoints_as_they_are().await {
            Ok(found) => parse::from_endpoints(&found),
            Err(error) if error.code == Some(404) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Listed { peers, version: None })
    }

    async fn endpoints_as_they_are(&self) -> Result<Endpoints, PeersError> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = || format!("the Endpoints {}/{}", self.namespace, self.service);
        let found = self.ask(what, api.get(&self.service)).await?;
        if parse::is_truncated(&found) {
            return Err(failed(what(), "the list was cut off at 1,000 addresses"));
        }
        Ok(found)
    }

    /// How many addresses the service has now, those of no pod included: the reference's gauge. Needs `endpoints` get
    /// alone.
    ///
    /// # Errors
    /// What the API server said, in words; that the service is not there is one of them.
    pub async fn count(&self) -> Result<usize, PeersError> {
        Ok(parse::count(&self.endpoints_as_they_are().await?))
    }

    /// One request with its limit, and its failure in words.
    async fn ask<T>(
        &self,
        what: impl Fn() -> String,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, PeersError> {
        let Ok(answer) = timeout(REQUEST_LIMIT, request).await else {
            return Err(failed(what(), format!("no answer within {} s", REQUEST_LIMIT.as_secs())));
        };
        answer.map_err(|error| match error {
            // The library would print all fields of the answer.
            kube::Error::Api(status) => PeersError {
                what: what(),
                remedy: if status.code == 401 { " (is the service account's token mounted and valid?)" } else { "" },
                code: Some(status.code),
                cause: status.message,
            },
            error => failed(what(), with_causes(&error)),
        })
    }
}

fn failed(what: String, cause: impl Into<String>) -> PeersError {
    PeersError { what, cause: cause.into(), remedy: "", code: None }
}

/// [`PeerDirectory::count`], for who needs nothing else of it.
///
/// # Errors
/// The cause alone: the caller says what could not be read.
pub async fn count(client: &kube::Client, namespace: &str, service: &str) -> Result<usize, String> {
    let (directory, _) = PeerDirectory::new(client.clone(), namespace, service);
    directory.count().await.map_err(|error| error.cause + error.remedy)
}
