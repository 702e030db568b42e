//! The watch itself: a list, then a watch from where the list ended, and its recovery from anything.
//!
//! Owns the place in the watch (the last resource version) and the waits between tries. Keeps no pods. Must never
//! list while the place is good, never start two requests without a wait in between, and never end.
//!
//! Not `kube::runtime::watcher`: that one starts again at once, without any wait and without a word to its caller,
//! when a server ends each watch at once, so a storm of such ends is a busy loop.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::super::health::WatchHealth;
use super::super::log_limit::LogLimit;
use super::NamespaceFilter;
use super::trouble::Trouble;
use super::wire::{Found, Line, Lines, Pods, Undecodable};
use crate::deliver::ports::PodEvent;
use crate::domain::backoff::Backoff;
use crate::domain::pod::Pod;

/// Init containers run while a pod is pending, and few pods are: running pods cost neither us nor the network a byte.
const SELECTOR: &str = "status.phase=Pending";
/// How long the server is asked to keep a watch: as kube's and client-go's; less than what proxies cut off at.
const WATCH_LASTS: Duration = Duration::from_secs(290);
/// How much later than its end a silent watch counts as dead.
const END_IS_LATE: Duration = Duration::from_secs(10);
/// As long in all is waited for a streaming list to complete. Servers that do not know streaming lists may take the
/// request for a plain watch, which never says that a list is complete.
const STREAMING_LIMIT: Duration = Duration::from_secs(20);
/// Streaming lists that end before they are complete, one after another, before a plain list is tried.
const STREAMING_TRIES: u32 = 3;
/// A watch that lasted this long was a good one: the next starts at once.
const STEADY: Duration = Duration::from_secs(10);
/// Between tries. The last is short too: a try costs the API server little, and pods wait for its success.
const RETRY: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };
/// The same where each watch brings news before it breaks.
const RETRY_WITH_NEWS: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(1) };
/// Between lists. A list costs the API server more than a watch; but the first after an outage is due at once.
const RELIST: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(30) };
/// Answers in a row that may mean that our place is bad, until it is given up for a new list.
const PLACE_TRIES: u32 = 5;
/// Undecodable pods that are remembered, so that each is logged once. 36 bytes each.
const REMEMBERED: usize = 1_000;

/// One watch. Driven by whoever polls its events: nothing runs, and nothing is stored, while nobody does.
pub(super) struct Session {
    pods: Pods,
    filter: NamespaceFilter,
    health: Arc<WatchHealth>,
    place: Place,
    /// Decoded and not given out: at most a page.
    ready: VecDeque<PodEvent>,
    streaming: bool,
    broken_streaming: u32,
    failures: u32,
    /// Lists that had to be begun anew, with no good watch in between.
    relists: u32,
    /// A failure was told, and nothing was heard since.
    troubled: bool,
    bad_places: u32,
    log: LogLimit,
    undecodable: HashSet<String>,
}

/// Where we are.
enum Place {
    /// Nothing is known.
    Nowhere,
    /// Amid a list.
    Paging { more: String },
    /// A streaming list comes in.
    Streaming { lines: Lines, waited: Duration },
    /// Known up to `version`, and not connected.
    At { version: String },
    /// Known up to `version`, and listening for more.
    Open { version: String, lines: Lines, since: Instant, news: bool },
}

impl Session {
    pub(super) fn new(pods: Pods, filter: NamespaceFilter, health: Arc<WatchHealth>) -> Self {
        Self {
            pods,
            filter,
            health,
            place: Place::Nowhere,
            ready: VecDeque::new(),
            streaming: true,
            broken_streaming: 0,
            failures: 0,
            relists: 0,
            troubled: false,
            bad_places: 0,
            log: LogLimit::default(),
            undecodable: HashSet::new(),
        }
    }

    /// The next event, however long it takes. Cancel-safe only as a whole: poll it to its end.
    pub(super) async fn next(&mut self) -> PodEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if let Err(trouble) = self.step().await {
                let wait = self.recover(&trouble);
                sleep(wait).await;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Trouble> {
        match &mut self.place {
            Place::Nowhere if self.streaming => {
                let lines = self.pods.watch(SELECTOR, None, WATCH_LASTS).await.map_err(Trouble::into_streaming_list)?;
                self.begin();
                self.place = Place::Streaming { lines, waited: Duration::ZERO };
            }
            Place::Nowhere => self.page(None).await?,
            Place::Paging { more } => {
                let more = std::mem::take(more);
                self.page(Some(more)).await?;
            }
            Place::Streaming { lines, waited } => {
                let asked = Instant::now();
                let line = timeout(STREAMING_LIMIT.saturating_sub(*waited), lines.next()).await;
                *waited += asked.elapsed();
                let line = line.map_err(|_| Trouble::NoStreaming("it does not complete".into()))?;
                self.take(line?);
            }
            Place::At { version } => {
                let lines = self.pods.watch(SELECTOR, Some(version), WATCH_LASTS).await?;
                let version = std::mem::take(version);
                self.place = Place::Open { version, lines, since: Instant::now(), news: false };
                self.health.connected();
            }
            Place::Open { lines, .. } => {
                let line = timeout(WATCH_LASTS + END_IS_LATE, lines.next()).await.map_err(|_| Trouble::Silent)?;
                self.take(line?);
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.health.connected();
        self.health.restarted();
        self.ready.push_back(PodEvent::Restarted);
    }

    async fn page(&mut self, more: Option<String>) -> Result<(), Trouble> {
        let first = more.is_none();
        let page = self.pods.page(SELECTOR, more).await?;
        if first {
            self.begin();
        }
        for found in page.found {
            self.report(found, PodEvent::Seen);
        }
        self.place = match (page.more, page.version) {
            (Some(more), _) => Place::Paging { more },
            (None, Some(version)) => {
                self.complete();
                Place::At { version }
            }
            (None, None) => return Err(Trouble::Garbled("a list without metadata.resourceVersion".into())),
        };
        Ok(())
    }

    fn complete(&mut self) {
        self.health.is_synced();
        self.ready.push_back(PodEvent::Synced);
        self.works();
    }

    /// Only a word in an open watch, or a complete list, is a recovery: that a watch opens says little in a storm.
    fn works(&mut self) {
        if std::mem::take(&mut self.troubled) {
            self.health.recovered();
            if let Some(omitted) = self.log.admit("recovered") {
                tracing::info!(omitted, "the watch of pods works again");
            }
        }
    }

    /// Takes in one line of a watch or of a streaming list.
    fn take(&mut self, line: Line) {
        self.health.heard();
        let (at, completes) = match line {
            Line::Seen { found, version } => {
                self.report(found, PodEvent::Seen);
                (version, false)
            }
            Line::Left { found, version } => {
                self.report(found, PodEvent::Left);
                (version, false)
            }
            Line::Bookmark { version, initial_end } => (version, initial_end),
        };
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Open { version, lines, since, .. } => {
                self.bad_places = 0;
                let version = at.unwrap_or(version);
                self.place = Place::Open { version, lines, since, news: true };
            }
            Place::Streaming { lines, .. } if completes => {
                self.complete();
                self.broken_streaming = 0;
                let version = at.unwrap_or_default();
                self.place = Place::Open { version, lines, since: Instant::now(), news: true };
            }
            other => self.place = other,
        }
        if matches!(self.place, Place::Open { .. }) {
            self.works();
        }
    }

    fn report(&mut self, found: Found, event: fn(Arc<Pod>) -> PodEvent) {
        match found {
            Found::Pod(pod) if self.filter.takes(&pod.reference.namespace) => {
                self.ready.push_back(event(Arc::new(pod)));
            }
            Found::Pod(_) => {}
            Found::Undecodable(pod) => self.undecodable(pod),
        }
    }

    fn undecodable(&mut self, pod: Undecodable) {
        self.health.met_undecodable();
        if self.undecodable.len() >= REMEMBERED {
            self.undecodable.clear();
        }
        let Undecodable { uid, pod, why } = pod;
        if self.undecodable.insert(uid)
            && let Some(omitted) = self.log.admit("undecodable")
        {
            tracing::warn!(%pod, cause = %why, omitted, "a pod cannot be decoded and is left out; the watch goes on without it");
        }
    }

    /// Decides where to go on after `trouble`, and how long to wait before.
    fn recover(&mut self, trouble: &Trouble) -> Duration {
        self.health.disconnected();
        let (mut steady, mut has_news) = (false, false);
        self.place = match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Open { version, since, news, .. } => {
                (steady, has_news) = (since.elapsed() >= STEADY, news);
                Place::At { version }
            }
            Place::At { version } => Place::At { version },
            Place::Streaming { .. } => {
                self.broken_streaming += 1;
                Place::Nowhere
            }
            Place::Nowhere | Place::Paging { .. } => Place::Nowhere,
        };
        if steady {
            (self.failures, self.relists) = (0, 0);
        }
        if steady && matches!(trouble, Trouble::Ended) {
            tracing::debug!("the watch of pods ended after its time; going on from where it was");
            return Duration::ZERO;
        }
        if let Trouble::NoStreaming(why) = trouble {
            tracing::info!(cause = %why, "the API server has no streaming lists; pods are listed, then watched");
            self.streaming = false;
            return Duration::ZERO;
        }
        if self.streaming && self.broken_streaming >= STREAMING_TRIES {
            tracing::info!("streaming lists of the API server do not complete; pods are listed, then watched");
            self.streaming = false;
        }
        self.failures = self.failures.saturating_add(1);
        let random = rand::random();
        let wait = if self.leaves_a_bad_place(trouble) {
            self.relists = self.relists.saturating_add(1);
            RELIST.wait(self.relists, random)
        } else if has_news && matches!(self.place, Place::At { .. }) {
            RETRY_WITH_NEWS.wait(self.failures, random)
        } else {
            RETRY.wait(self.failures, random)
        };
        let wait = wait.max(trouble.retry_after().unwrap_or_default());
        self.tell(trouble, wait);
        wait
    }

    fn leaves_a_bad_place(&mut self, trouble: &Trouble) -> bool {
        self.bad_places = if trouble.may_be_the_place() { self.bad_places + 1 } else { self.bad_places };
        let bad = matches!(trouble, Trouble::Gone(_)) || self.bad_places >= PLACE_TRIES;
        if bad {
            self.place = Place::Nowhere;
            self.bad_places = 0;
        }
        bad
    }

    fn tell(&mut self, trouble: &Trouble, wait: Duration) {
        self.troubled = true;
        self.health.failed(&trouble.to_string());
        if let Some(omitted) = self.log.admit(trouble.cause()) {
            tracing::warn!(
                omitted,
                failures = self.failures,
                next_try_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "the watch of pods was interrupted: {trouble}{}",
                trouble.remedy()
            );
        }
    }
}
