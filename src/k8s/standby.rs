//! Warm standby: every replica watches pods all the time, and only the leader delivers.
//!
//! Owns the one watch of this replica and what it has shown: the pods that are starting now. Each leadership gets its
//! own stream, which first replays what is known and then goes on live, so that a new leader need not list the cluster
//! before it can work. Must never let a slow leader hold up the watch, never grow beyond its limits, and never say
//! [`PodEvent::Synced`] of a list that was not complete.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::health::WatchHealth;
use super::watch::Feed;
use crate::deliver::ports::{PodEvent, PodFeed, ReadError};
use crate::domain::ids::{PodUid, Timestamp};
use crate::domain::pod::{Decision, Phase, Pod, decide, is_sidecar};

/// Pods with our annotations that are remembered, and as many without: as many as the workflow watches. A few hundred
/// bytes each. What is beyond is listed anew for a new leader.
const MOST_PODS: usize = 65_536;
/// Events that wait for the workflow, which takes each in microseconds: a burst of 2,000 pods and their next status.
/// Beyond it the workflow is given all anew.
const MOST_WAITING: usize = 4_096;
/// Between two lists that are asked for because not all pods could be remembered.
const LIST_PAUSE: Duration = Duration::from_secs(60);
/// Before a watch is begun again that has ended although none ever does.
const ENDED_PAUSE: Duration = Duration::from_secs(1);

/// The [`PodFeed`] of all leaderships of this replica.
pub struct StandbyFeed {
    inner: Arc<dyn PodFeed>,
    health: Arc<WatchHealth>,
    shared: Arc<Shared>,
}

/// Takes in the watch. Somebody has to run it.
pub struct StandbyWatch {
    inner: Arc<dyn PodFeed>,
    shared: Arc<Shared>,
    most_pods: usize,
}

#[derive(Default)]
struct Shared {
    memory: Mutex<Memory>,
    /// Not all pods are remembered, and somebody needs them all.
    anew: Notify,
}

#[derive(Default)]
struct Memory {
    pods: HashMap<PodUid, Known>,
    /// Of these, without our annotations.
    strangers: usize,
    /// Counts lists, complete or not.
    list: u64,
    /// A list is under way.
    listing: bool,
    /// A list was completed at some time: what is remembered is all that there was then, and what came since.
    complete: bool,
    /// A pod of ours did not fit since the last list began.
    overflowed: bool,
    subscribers: HashMap<u64, Subscriber>,
    subscriptions: u64,
}

struct Known {
    pod: Arc<Pod>,
    /// The list that it was last seen in, or after.
    list: u64,
    need: Need,
}

/// What a pod needs of us, decided when it is seen: whoever counts ten thousand of them must not hold up the watch.
enum Need {
    /// Nothing, or nothing yet.
    Nothing,
    /// A push: its init container runs, since then if that is known.
    Push(Option<Timestamp>),
    /// A correction: it will not be served as it stands.
    Correction,
}

impl Need {
    fn of(pod: &Pod) -> Self {
        match decide(pod) {
            // It goes on running when it has what it waited for, so that its state says nothing.
            Decision::Deliver(_) if is_sidecar(pod) => Self::Nothing,
            Decision::Deliver(candidate) => Self::Push(candidate.running_since),
            Decision::Refuse(_) => Self::Correction,
            Decision::NotOurs | Decision::Wait => Self::Nothing,
        }
    }
}

/// How many pods need what, as the watch shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Pods whose annotated init container runs. Native sidecars are left out: they go on running.
    pub pushes: u64,
    /// Since when the first of these does, by its node's clock.
    pub oldest: Option<Timestamp>,
    /// Pods that will not be served as they stand.
    pub corrections: u64,
}

struct Subscriber {
    waiting: VecDeque<PodEvent>,
    /// It has to be given all anew: it has just begun, or was too slow.
    behind: bool,
    news: Arc<Notify>,
}

/// What a subscriber is to say next.
enum Next {
    One(PodEvent),
    All(VecDeque<PodEvent>),
    Nothing,
}

impl StandbyFeed {
    /// A feed over `feed`, which must have no other user. Asks nothing before its watch is run.
    pub fn new(feed: Feed) -> (Self, StandbyWatch) {
        let health = feed.health();
        Self::over(Arc::new(feed), health, MOST_PODS)
    }

    fn over(inner: Arc<dyn PodFeed>, health: Arc<WatchHealth>, most_pods: usize) -> (Self, StandbyWatch) {
        let shared = Arc::new(Shared::default());
        let watch = StandbyWatch { inner: Arc::clone(&inner), shared: Arc::clone(&shared), most_pods };
        (Self { inner, health, shared }, watch)
    }

    /// How the watch is.
    pub fn health(&self) -> Arc<WatchHealth> {
        Arc::clone(&self.health)
    }

    /// What the pods that are known need of us, whoever leads. Cheap: asked for each page of metrics.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for known in self.shared.memory().pods.values() {
            match known.need {
                Need::Nothing => {}
                Need::Push(since) => {
                    needs.pushes += 1;
                    needs.oldest = needs.oldest.into_iter().chain(since).min();
                }
                Need::Correction => needs.corrections += 1,
            }
        }
        needs
    }

    /// How many pods are remembered.
    pub fn len(&self) -> usize {
        self.shared.memory().pods.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl PodFeed for StandbyFeed {
    /// What is known, at once, then what happens. `Synced` comes with the replay if a list was ever completed, however
    /// long ago: whoever misses a pod in it reads that pod anew before it believes that it is gone. A list that is
    /// under way, or begins later, corrects the replay.
    fn events(&self) -> BoxStream<'static, PodEvent> {
        let subscription = Subscription::new(Arc::clone(&self.shared));
        stream::unfold(subscription, |mut subscription| async move {
            let event = subscription.next().await;
            Some((event, subscription))
        })
        .boxed()
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ReadError> {
        self.inner.read(namespace, name).await
    }
}

impl StandbyWatch {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.go_on()).await;
    }

    async fn go_on(&self) {
        let mut events = self.inner.events();
        let (mut listed_anew, mut due) = (None::<Instant>, None::<Instant>);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.shared.take(&event, self.most_pods),
                    None => {
                        sleep(ENDED_PAUSE).await;
                        events = self.inner.events();
                    }
                },
                () = self.shared.anew.notified(), if due.is_none() => {
                    let now = Instant::now();
                    due = Some(listed_anew.map_or(now, |last| now.max(last + LIST_PAUSE)));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    tracing::warn!("more pods are starting than a replica remembers; listing them anew for the leader");
                    (listed_anew, due) = (Some(Instant::now()), None);
                    events = self.inner.events();
                }
            }
        }
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whoever panicked in between left a memory that the next list corrects.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one event of the watch, and passes it on. Never waits.
    fn take(&self, event: &PodEvent, most_pods: usize) {
        let mut memory = self.memory();
        memory.learn(event, most_pods);
        for subscriber in memory.subscribers.values_mut().filter(|subscriber| !subscriber.behind) {
            if subscriber.waiting.len() >= MOST_WAITING {
                subscriber.waiting = VecDeque::new();
                subscriber.behind = true;
            } else {
                subscriber.waiting.push_back(event.clone());
            }
            subscriber.news.notify_one();
        }
    }

    /// What the subscriber `id` is to say next.
    fn next(&self, id: u64) -> Next {
        let memory = &mut *self.memory();
        let Some(subscriber) = memory.subscribers.get_mut(&id) else { return Next::Nothing };
        if !subscriber.behind {
            return subscriber.waiting.pop_front().map_or(Next::Nothing, Next::One);
        }
        subscriber.behind = false;
        if memory.overflowed {
            self.anew.notify_one();
        }
        Next::All(memory.replay())
    }
}

impl Memory {
    fn learn(&mut self, event: &PodEvent, most_pods: usize) {
        match event {
            PodEvent::Restarted => {
                self.list += 1;
                (self.listing, self.overflowed) = (true, false);
            }
            PodEvent::Seen(pod) => self.remember(pod, most_pods),
            PodEvent::Left(pod) => self.forget(&pod.reference.uid),
            PodEvent::Synced => {
                let list = self.list;
                self.pods.retain(|_, known| known.list == list);
                self.strangers = self.pods.values().filter(|known| known.pod.wish.is_none()).count();
                (self.listing, self.complete) = (false, true);
            }
        }
    }

    fn remember(&mut self, pod: &Arc<Pod>, most_pods: usize) {
        let uid = &pod.reference.uid;
        self.forget(uid);
        let stranger = pod.wish.is_none();
        // Of the others only the address matters, as long as they may be reached there.
        let matters = !stranger || !(pod.host_network || pod.deleting || pod.ips.is_empty());
        if pod.phase != Phase::Pending || !matters {
            return;
        }
        let kept = if stranger { self.strangers } else { self.pods.len() - self.strangers };
        if kept >= most_pods {
            // A stranger that is left out is one that the workflow has no room for either.
            self.overflowed |= !stranger;
            return;
        }
        self.strangers += usize::from(stranger);
        self.pods.insert(uid.clone(), Known { pod: Arc::clone(pod), list: self.list, need: Need::of(pod) });
    }

    fn forget(&mut self, uid: &PodUid) {
        if self.pods.remove(uid).is_some_and(|known| known.pod.wish.is_none()) {
            self.strangers -= 1;
        }
    }

    /// All that is known as a list of its own; and that much of the list that is under way.
    fn replay(&self) -> VecDeque<PodEvent> {
        let mut replay = VecDeque::new();
        if self.complete {
            replay.push_back(PodEvent::Restarted);
            replay.extend(self.pods.values().map(|known| PodEvent::Seen(Arc::clone(&known.pod))));
            if !self.overflowed {
                replay.push_back(PodEvent::Synced);
            }
        }
        if self.listing {
            replay.push_back(PodEvent::Restarted);
            let current = self.pods.values().filter(|known| known.list == self.list);
            replay.extend(current.map(|known| PodEvent::Seen(Arc::clone(&known.pod))));
        }
        replay
    }
}

/// One leadership's view. It goes with its stream.
struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    news: Arc<Notify>,
    replay: VecDeque<PodEvent>,
}

impl Subscription {
    fn new(shared: Arc<Shared>) -> Self {
        let news = Arc::new(Notify::new());
        let subscriber = Subscriber { waiting: VecDeque::new(), behind: true, news: Arc::clone(&news) };
        let id = {
            let mut memory = shared.memory();
            memory.subscriptions += 1;
            let id = memory.subscriptions;
            memory.subscribers.insert(id, subscriber);
            id
        };
        Self { shared, id, news, replay: VecDeque::new() }
    }

    async fn next(&mut self) -> PodEvent {
        loop {
            if let Some(event) = self.replay.pop_front() {
                return event;
            }
            match self.shared.next(self.id) {
                Next::One(event) => return event,
                Next::All(replay) => self.replay = replay,
                Next::Nothing => self.news.notified().await,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.memory().subscribers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
