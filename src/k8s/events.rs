//! Kubernetes Events on pods: [`EventAnnouncer`], the [`Announcer`] of the workflow.
//!
//! Owns the queue of announcements, their rate, and the aggregation of repeated ones. Needs `create` and `patch` on
//! `events.k8s.io` events; without that it says so once and goes on without. Must never wait in the workflow, never
//! fail it, and never grow with the cluster.
//!
//! Not `kube::runtime::events::Recorder`: that one keeps a whole Event (about 2 kB) for every pod that was announced
//! in the last six minutes, without a limit, and writes each repetition at once.

mod bucket;
mod past;
mod series;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use self::past::{PastEvent, past_events};

use self::bucket::Bucket;
use self::series::{SeriesTable, Write};
use super::cut;
use super::log_limit::LogLimit;
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::deliver::ports::Announcer;
use crate::domain::announcement::Announcement;
use crate::domain::ids::PodRef;

/// Announcements that wait to be written: a burst of 2,000 pods and its second thoughts. Some 200 bytes each.
const QUEUE: usize = 4_096;
/// Of these, kept free for warnings: good news must not crowd them out.
const KEPT_FOR_WARNINGS: usize = QUEUE / 4;
/// Writes at once ...
const BURST: u32 = 50;
/// ... and then each second. Each is a write to etcd, which has enough to do when so many pods start that this is a
/// limit at all: what is said of 2,000 pods takes a minute and a half.
const PER_SECOND: u32 = 20;
/// How often repeated announcements that were held back are looked through.
const SWEEP: Duration = Duration::from_secs(30);
/// One write, connecting included.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Before the second and last try of a write that the API server could not take.
const SECOND_TRY: Duration = Duration::from_secs(2);
/// Once it was forbidden, a namespace is tried again after so long: permissions are granted while we run.
const FORBIDDEN_FOR: Duration = Duration::from_secs(600);
/// Namespaces that are remembered as forbidden; beyond that all are forgotten and tried again.
const FORBIDDEN_NAMESPACES: usize = 1_024;
/// At the end, for what is still queued, without a rate: this is over at once, and nobody would say it later.
const FAREWELL: Duration = Duration::from_secs(2);
/// `reportingController`.
const CONTROLLER: &str = "kubernetes-vault";
/// `action`: what we were at, whatever came of it.
const ACTION: &str = "DeliverSecretId";
/// The API server's limit of `note`.
const NOTE_BYTES: usize = 1_024;
/// The API server's limit of `reportingInstance`.
const INSTANCE_BYTES: usize = 128;

/// What became of announcements.
#[derive(Debug, Default)]
pub struct EventCounters {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl EventCounters {
    /// Events created, or counted up.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Announcements that were never tried: the queue was full, or the namespace is forbidden to us.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Writes that the API server did not take.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
}

struct Notice {
    pod: PodRef,
    what: Announcement,
}

/// Takes announcements. Cheap to clone; never waits.
#[derive(Clone)]
pub struct EventAnnouncer {
    queue: mpsc::Sender<Notice>,
    counters: Arc<EventCounters>,
}

impl EventAnnouncer {
    /// An announcer, and the writer that somebody has to run. `instance` is our own pod's name.
    pub fn new(client: kube::Client, instance: &str, clock: Arc<dyn Clock>) -> (Self, EventWriter) {
        let (queue, notices) = mpsc::channel(QUEUE);
        let counters = Arc::new(EventCounters::default());
        let writer = EventWriter {
            client,
            instance: cut(instance, INSTANCE_BYTES).to_owned(),
            clock,
            notices,
            counters: Arc::clone(&counters),
            series: SeriesTable::default(),
            bucket: Bucket::new(BURST, PER_SECOND),
            forbidden: HashMap::new(),
            warned: false,
            log: LogLimit::default(),
            stop: CancellationToken::new(),
        };
        (Self { queue, counters }, writer)
    }

    /// What became of announcements.
    pub fn counters(&self) -> Arc<EventCounters> {
        Arc::clone(&self.counters)
    }
}

impl Announcer for EventAnnouncer {
    fn announce(&self, pod: &PodRef, what: Announcement) {
        let crowded = !what.is_warning() && self.queue.capacity() <= KEPT_FOR_WARNINGS;
        if crowded || self.queue.try_send(Notice { pod: pod.clone(), what }).is_err() {
            self.counters.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Writes what was announced.
pub struct EventWriter {
    client: kube::Client,
    instance: String,
    clock: Arc<dyn Clock>,
    notices: mpsc::Receiver<Notice>,
    counters: Arc<EventCounters>,
    series: SeriesTable,
    bucket: Bucket,
    forbidden: HashMap<Arc<str>, Instant>,
    warned: bool,
    log: LogLimit,
    /// From then on there is no rate.
    stop: CancellationToken,
}

impl EventWriter {
    /// Runs until `stop`, or until every announcer is gone; then writes what is queued, as far as a moment suffices.
    pub async fn run(mut self, stop: CancellationToken) {
        self.stop = stop.clone();
        let moment_after = async {
            stop.cancelled().await;
            sleep(FAREWELL).await;
        };
        // What does not make it is good news of the last seconds, or is announced again by whoever leads next.
        tokio::select! {
            () = self.serve(&stop) => {}
            () = moment_after => {}
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.notices.close();
                }
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.announce(notice).await,
                    None => return,
                },
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn announce(&mut self, notice: Notice) {
        let Notice { pod, what } = notice;
        if self.is_forbidden(&pod.namespace) {
            self.counters.dropped.fetch_add(1, Relaxed);
            return;
        }
        let note = what.note();
        let note = cut(&note, NOTE_BYTES);
        match self.series.note(&pod, what.reason(), note, rand::random()) {
            None => {}
            Some(Write::New { name }) => {
                let event = self.event(name, &pod, &what, note);
                if !self.create(&pod, &event).await {
                    self.series.forget(&pod, Some(what.reason()));
                }
            }
            Some(Write::Again { pod, name, count }) => self.count_up(&pod, &name, count).await,
        }
    }

    async fn sweep(&mut self) {
        for write in self.series.due() {
            if let Write::Again { pod, name, count } = write
                && !self.is_forbidden(&pod.namespace)
            {
                self.count_up(&pod, &name, count).await;
            }
        }
    }

    async fn create(&mut self, pod: &PodRef, event: &Event) -> bool {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        let params = PostParams::default();
        self.write(pod, || events.create(&params, event)).await
    }

    /// Only the series may be changed in an Event.
    async fn count_up(&mut self, pod: &PodRef, name: &str, count: i32) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        let patch = Patch::Merge(json!({"series": {"count": count, "lastObservedTime": self.now()}}));
        let params = PatchParams::default();
        if !self.write(pod, || events.patch(name, &params, &patch)).await {
            self.series.forget(pod, None);
        }
    }

    async fn write<F>(&mut self, pod: &PodRef, request: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<Event, kube::Error>>,
    {
        for last in [false, true] {
            self.wait_for_the_rate().await;
            let (code, why) = match timeout(WRITE_LIMIT, request()).await {
                Ok(Ok(_)) => {
                    self.counters.written.fetch_add(1, Relaxed);
                    return true;
                }
                Ok(Err(kube::Error::Api(status))) => (status.code, status.message),
                Ok(Err(error)) => (0, with_causes(&error)),
                Err(_) => (0, format!("no answer within {} s", WRITE_LIMIT.as_secs())),
            };
            if code == 403 && !why.contains("being terminated") {
                self.forbid(pod, &why);
                break;
            }
            // The first try got through and its answer was lost: names are ours alone, and a patch conflicts with nobody.
            if last && code == 409 {
                self.counters.written.fetch_add(1, Relaxed);
                return true;
            }
            // Nothing is wrong where the namespace or the Event went away; a second try would not help either.
            if matches!(code, 403 | 404 | 409) {
                break;
            }
            if last || matches!(code, 400 | 422) {
                if let Some(omitted) = self.log.admit("events") {
                    tracing::warn!(%pod, pod.uid = %pod.uid, code, cause = why, omitted, "an Event could not be written");
                }
                break;
            }
            sleep(SECOND_TRY).await;
        }
        self.counters.failed.fetch_add(1, Relaxed);
        false
    }

    async fn wait_for_the_rate(&mut self) {
        if !self.stop.is_cancelled() {
            let wait = self.bucket.take();
            let _cut_short = self.stop.run_until_cancelled(sleep(wait)).await;
        }
    }

    fn forbid(&mut self, pod: &PodRef, why: &str) {
        if self.forbidden.len() >= FORBIDDEN_NAMESPACES {
            self.forbidden.clear();
        }
        self.forbidden.insert(Arc::clone(&pod.namespace), Instant::now() + FORBIDDEN_FOR);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                namespace = %pod.namespace, cause = why,
                "Events cannot be written; grant the service account create and patch on events of events.k8s.io. \
                 Deliveries go on without; this is not said again"
            );
        }
    }

    fn is_forbidden(&mut self, namespace: &str) -> bool {
        let Some(until) = self.forbidden.get(namespace) else { return false };
        let forbidden = Instant::now() < *until;
        if !forbidden {
            self.forbidden.remove(namespace);
        }
        forbidden
    }

    fn event(&self, name: String, pod: &PodRef, what: &Announcement, note: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                namespace: Some(pod.namespace.to_string()),
                name: Some(name),
                ..ObjectMeta::default()
            },
            event_time: Some(self.now()),
            reporting_controller: Some(CONTROLLER.into()),
            reporting_instance: Some(self.instance.clone()),
            action: Some(ACTION.into()),
            reason: Some(what.reason().into()),
            type_: Some(if what.is_warning() { "Warning" } else { "Normal" }.into()),
            note: Some(note.into()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                namespace: Some(pod.namespace.to_string()),
                name: Some(pod.name.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }

    fn now(&self) -> MicroTime {
        let millis = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX);
        MicroTime(jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests;
