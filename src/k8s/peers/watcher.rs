//! Notices that peers have changed: a watch of slices, or a poll of Endpoints where slices are forbidden.
//!
//! Owns its waits. It tells that there is a reason to look, and nothing else: what it read is used by nobody. Must
//! never end, and never ask twice without a wait.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Peer, PeerDirectory, PeersError, SERVICE_LABEL};
use crate::causes::with_causes;
use crate::domain::backoff::Backoff;
use crate::k8s::log_limit::LogLimit;

/// Between two reads of Endpoints while a change is waited for, and otherwise. One small object each time.
const POLL_URGENT: Duration = Duration::from_secs(2);
const POLL_IDLE: Duration = Duration::from_secs(15);
/// How long the server is asked to keep a watch; less than what proxies cut off at.
const WATCH_LASTS: u32 = 290;
/// How much later than its end a silent watch counts as dead.
const END_IS_LATE: Duration = Duration::from_secs(10);
/// A watch that lasted this long was a good one: the next starts at once.
const STEADY: Duration = Duration::from_secs(10);
/// Between tries.
const RETRY: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };

/// Notices changes for [`PeerDirectory::changed`].
pub struct PeerWatcher {
    directory: PeerDirectory,
    known: Option<Vec<Peer>>,
    log: LogLimit,
}

impl PeerWatcher {
    pub(super) fn new(directory: PeerDirectory) -> Self {
        Self { directory, known: None, log: LogLimit::default() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.go_on()).await;
    }

    async fn go_on(&mut self) {
        let mut failures = 0;
        loop {
            match self.round().await {
                Ok(()) => failures = 0,
                Err(cause) => {
                    failures += 1;
                    if let Some(omitted) = self.log.admit("peers") {
                        tracing::warn!(omitted, failures, "peers are not watched: {cause}");
                    }
                    sleep(RETRY.wait(failures, rand::random())).await;
                }
            }
        }
    }

    /// One list, and a watch from there to its end; or one poll and its wait.
    async fn round(&mut self) -> Result<(), String> {
        let mut urgent = self.directory.shared.urgent.subscribe();
        let listed = self.directory.read().await.map_err(|error: PeersError| error.to_string())?;
        self.note(listed.peers);
        let Some(version) = listed.version else {
            let pause = if *urgent.borrow_and_update() { POLL_URGENT } else { POLL_IDLE };
            let asked = Instant::now();
            // Who calls it urgent need not wait for the end of a long pause; nobody makes it a busy loop.
            let becomes_urgent = async {
                // The sender lives as long as the directory, so that this can only say that it is urgent now.
                let _ = urgent.wait_for(|urgent| *urgent).await;
            };
            if pause == POLL_URGENT || timeout(pause, becomes_urgent).await.is_ok() {
                sleep_until(asked + POLL_URGENT).await;
            }
            return Ok(());
        };
        let begun = Instant::now();
        match self.watch(&version).await {
            _ if begun.elapsed() >= STEADY => Ok(()),
            Ok(()) => Err("the API server ended the watch at once".to_owned()),
            Err(cause) => Err(cause),
        }
    }

    fn note(&mut self, peers: Vec<Peer>) {
        if self.known.as_ref() != Some(&peers) {
            self.known = Some(peers);
            self.tell();
        }
    }

    fn tell(&self) {
        self.directory.shared.changes.send_modify(|count| *count += 1);
    }

    async fn watch(&mut self, version: &str) -> Result<(), String> {
        let api: Api<EndpointSlice> = Api::namespaced(self.directory.client.clone(), &self.directory.namespace);
        let selector = format!("{SERVICE_LABEL}={}", self.directory.service);
        let params = WatchParams::default().labels(&selector).timeout(WATCH_LASTS);
        let what = || format!("the EndpointSlices of {}", self.directory.service);
        let events = self.directory.ask(what, api.watch(&params, version)).await.map_err(|error| error.to_string())?;
        let mut events = pin!(events);
        let silence = Duration::from_secs(WATCH_LASTS.into()) + END_IS_LATE;
        loop {
            match timeout(silence, events.next()).await {
                Err(_) => return Err("the connection of the watch seems dead: nothing was heard".to_owned()),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(with_causes(&error)),
                Ok(Some(Ok(WatchEvent::Error(status)))) => return Err(status.message),
                Ok(Some(Ok(WatchEvent::Bookmark(_)))) => {}
                Ok(Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_)))) => {
                    // Of what is known now nothing is true any more.
                    self.known = None;
                    self.tell();
                }
            }
        }
    }
}
