//! The leader's loop: what the watch says and what workers report goes in, work comes out.
//!
//! Owns the rows, the queue and the workers of one leadership. It never waits for the world itself: whatever takes
//! time is a worker, and reports when it is done.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::context::{Context, MAX_WORKERS, Ports, permit};
use super::gate::{Admission, Gates};
use super::ports::{Incident, Leadership, PodEvent, ReadError};
use super::queue::Queue;
use super::rows::{Conflict, MAX_ROWS, Row, Rows, Stage};
use super::settle::{self, Held};
use super::worker::{self, Attempted, Job, Progress};
use crate::domain::announcement::Announcement;
use crate::domain::ids::{InstanceKey, PodUid};
use crate::domain::pod::{Decision, Fate, Phase, Pod, decide, fate};

/// How long pushes that are under way may go on when we stop. Kubernetes' grace period is 30 s.
const DRAIN: Duration = Duration::from_secs(10);

/// An init container that has answered that it is done exits at once. One that still runs after this long, by its
/// status and by a handshake, is served again. Doubled with each generation: whatever listens there may never exit.
const SETTLED_BUT_RUNNING: Duration = Duration::from_secs(30);

/// The longest wait between two such looks.
const SETTLED_BUT_RUNNING_MOST: Duration = Duration::from_secs(600);

/// A login takes some milliseconds. A pod that waits longer for ours is told why.
const LOGIN_GRACE: Duration = Duration::from_secs(2);

/// Two live pods show one address for as long as the kubelet takes to report an end.
const ADDRESS_PAUSE: Duration = Duration::from_secs(1);

/// Between two updates of the load metrics.
const LOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Delivers for as long as one leadership lasts.
pub struct Service {
    pub(super) ctx: Arc<Context>,
    pub(super) rows: Rows,
    pub(super) queue: Queue<PodUid>,
    pub(super) gates: Gates,
    /// Pods that a gate keeps waiting; their authors were told why.
    pub(super) held_back: HashSet<PodUid>,
    pub(super) tasks: JoinSet<Report>,
    /// Who an attempt's worker is at work for, and on which addresses: should it die, its report never comes.
    pub(super) attempts: HashMap<task::Id, (PodUid, Vec<IpAddr>)>,
    /// What the ledger had open when this leadership began, by pod, until the pod is seen or read.
    earlier: HashMap<PodUid, Vec<InstanceKey>>,
    /// Counts complete lists.
    list: u64,
    load_told: Instant,
    /// The checks of our Vault token have passed: work may be claimed.
    usable: bool,
    begun: Instant,
}

/// What a worker has to say.
pub(super) enum Report {
    /// An attempt ended.
    Attempted { uid: PodUid, key: InstanceKey, progress: Box<Progress>, attempted: Attempted, addresses: Vec<IpAddr> },
    /// A pod was read by name.
    Read { uid: PodUid, found: Result<Option<Pod>, ReadError> },
    /// An init container that should be done was dialled.
    Alive { uid: PodUid, key: InstanceKey, answers: bool },
    /// The end of an instance was recorded.
    Recorded,
}

impl Service {
    /// A service for `leadership`.
    pub fn new(ports: Ports, leadership: Leadership) -> Self {
        let now = Instant::now();
        Self {
            ctx: Arc::new(Context::new(ports, leadership)),
            rows: Rows::default(),
            queue: Queue::new(),
            gates: Gates::new(now),
            held_back: HashSet::new(),
            tasks: JoinSet::new(),
            attempts: HashMap::new(),
            earlier: HashMap::new(),
            list: 0,
            load_told: now,
            usable: false,
            begun: now,
        }
    }

    /// Works until the leadership ends; then stops claiming, lets pushes that are under way end, and returns.
    pub async fn run(mut self) {
        let ended = self.ctx.leadership.ended.clone();
        let issuer = self.ctx.ports.issuer.clone();
        let usable = issuer.usable();
        tokio::pin!(usable);
        for (key, _) in self.ctx.ports.ledger.open() {
            self.earlier.entry(key.pod.clone()).or_default().push(key);
        }
        let mut events = self.ctx.ports.feed.events();
        loop {
            let has_hands = self.tasks.len() < MAX_WORKERS;
            let due = self.queue.next_due();
            tokio::select! {
                () = ended.cancelled() => break,
                () = &mut usable, if !self.usable => {
                    self.usable = true;
                    self.wake_held_back(Instant::now());
                }
                event = events.next() => match event {
                    Some(event) => self.observe(event),
                    None => break,
                },
                Some(report) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => match report {
                    Ok((id, report)) => {
                        self.attempts.remove(&id);
                        self.finish(report);
                    }
                    Err(error) => self.worker_died(&error),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if has_hands && due.is_some() => {}
            }
            self.start_due();
            self.tell_load();
        }
        drop(events);
        self.drain().await;
    }

    async fn drain(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DRAIN, all).await.is_err() {
            tracing::warn!("stopped with pushes under way; their init containers settle them");
        }
        self.ctx.ports.meter.load(0, 0);
    }

    fn observe(&mut self, event: PodEvent) {
        match event {
            PodEvent::Restarted => self.list += 1,
            PodEvent::Seen(pod) => self.seen(pod),
            PodEvent::Left(pod) => self.left(&pod.reference.uid),
            PodEvent::Synced => {
                for uid in self.rows.missing_from(self.list) {
                    self.left(&uid);
                }
                self.adopt_orphans();
            }
        }
    }

    /// A pod as it is now.
    pub(super) fn seen(&mut self, pod: Pod) {
        let uid = pod.reference.uid.clone();
        self.rows.show(&pod, self.list);
        let known = self.rows.by_uid.contains_key(&uid);
        if pod.wish.is_none() && !known {
            return;
        }
        if !known && self.rows.by_uid.len() >= MAX_ROWS {
            self.ctx.ports.meter.happened(Incident::TooManyPods, 1);
            return;
        }
        let pod = Arc::new(pod);
        let row = self.rows.by_uid.entry(uid.clone()).or_insert_with(|| Row::new(pod.clone(), self.list));
        row.pod = pod;
        row.list = self.list;
        row.left = false;
        if let Some(keys) = self.earlier.remove(&uid) {
            row.over.extend(keys);
        }
        self.evaluate(&uid);
    }

    /// A pod that is not in the selection any more.
    pub(super) fn left(&mut self, uid: &PodUid) {
        self.rows.forget(uid);
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        row.left = true;
        if row.working {
            return;
        }
        self.queue.remove(uid);
        let ledger = &self.ctx.ports.ledger;
        let served = row.instance.as_ref().filter(|instance| instance.touched).map(|instance| &instance.key);
        let unsettled = |key: &&InstanceKey| {
            ledger.read(key).is_some_and(|entry| entry.closed.is_none() || entry.unsettled().next().is_some())
        };
        if served.into_iter().chain(&row.over).any(|key| unsettled(&key)) {
            self.queue.put(uid.clone(), Instant::now());
        } else {
            self.rows.by_uid.remove(uid);
            self.held_back.remove(uid);
        }
    }

    /// What the ledger has open for pods that the complete list lacks: their rows are read by name, a few at once.
    fn adopt_orphans(&mut self) {
        for (uid, keys) in std::mem::take(&mut self.earlier) {
            let entry = keys.iter().find_map(|key| self.ctx.ports.ledger.read(key));
            let Some(entry) = entry else { continue };
            let pod = Pod {
                reference: entry.pod,
                node: "".into(),
                service_account: "".into(),
                host_network: false,
                deleting: false,
                phase: Phase::Unknown,
                ips: Vec::new(),
                wish: None,
            };
            let mut row = Row::new(Arc::new(pod), self.list);
            row.over = keys;
            self.rows.by_uid.insert(uid.clone(), row);
            self.left(&uid);
        }
    }

    /// Brings a row in line with its pod. Nothing happens while a worker is at it: it is evaluated afterwards.
    pub(super) fn evaluate(&mut self, uid: &PodUid) {
        let Some(row) = self.rows.by_uid.get_mut(uid).filter(|row| !row.working) else { return };
        let pod = row.pod.clone();
        let fate_of = |key: &InstanceKey| fate(Some(&pod), &pod.reference, &key.container_id);
        let mut ended: Vec<(InstanceKey, Fate, Vec<Held>)> = Vec::new();
        if let Some(instance) = row.instance.take_if(|instance| fate_of(&instance.key) != Fate::Open) {
            let fate = fate_of(&instance.key);
            row.crashes = if matches!(fate, Fate::Exited { code, .. } if code != 0) { row.crashes + 1 } else { 0 };
            let held = instance.progress.map(|progress| progress.held).unwrap_or_default();
            if instance.touched {
                ended.push((instance.key, fate, held));
            }
            self.queue.remove(uid);
            self.held_back.remove(uid);
        }
        let decision = decide(&pod);
        if let Decision::Deliver(candidate) = &decision
            && !row.serves(&candidate.container_id)
        {
            let due = row.begin(candidate, self.ctx.jitter());
            self.queue.put(uid.clone(), due);
            if pod.host_network {
                self.ctx.ports.announcer.announce(&pod.reference, Announcement::HostNetwork);
            }
        }
        let serves = |key: &InstanceKey| row.instance.as_ref().is_some_and(|i| i.key.container_id == key.container_id);
        let over = std::mem::take(&mut row.over);
        let (open, gone): (Vec<_>, Vec<_>) =
            over.into_iter().partition(|key| serves(key) || fate_of(key) == Fate::Open);
        row.over = open;
        ended.extend(gone.into_iter().map(|key| (key.clone(), fate_of(&key), Vec::new())));
        if let Decision::Refuse(refusal) = decision
            && row.refusal.as_ref() != Some(&refusal)
        {
            tracing::warn!(pod = %pod.reference, "no secret_id is delivered: {refusal}");
            self.ctx.ports.announcer.announce(&pod.reference, Announcement::PodRefused(refusal.clone()));
            row.refusal = Some(refusal);
        }
        for (key, fate, held) in ended {
            self.record_end(key, fate, held);
        }
    }

    /// Records the end of an instance, in a worker.
    pub(super) fn record_end(&mut self, key: InstanceKey, fate: Fate, mut held: Vec<Held>) {
        let ctx = self.ctx.clone();
        self.tasks.spawn(async move {
            settle::by_fate(&ctx, &key, &fate, &mut held).await;
            Report::Recorded
        });
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while self.tasks.len() < MAX_WORKERS {
            let Some(uid) = self.queue.pop(now) else { return };
            let Some(row) = self.rows.by_uid.get(&uid).filter(|row| !row.working) else { continue };
            if row.left {
                self.start_read(uid);
                continue;
            }
            match row.instance.as_ref().map(|instance| instance.stage) {
                Some(Stage::Waiting) => self.start_attempt(uid, now),
                Some(Stage::Settled(_)) => self.start_alive(uid),
                Some(Stage::Closed) | None => {}
            }
        }
    }

    fn start_attempt(&mut self, uid: PodUid, now: Instant) {
        let Some(row) = self.rows.by_uid.get(&uid) else { return };
        let pod = row.pod.clone();
        if !self.usable {
            self.held_back.insert(uid.clone());
            if now < self.begun + LOGIN_GRACE {
                self.queue.put(uid, self.begun + LOGIN_GRACE);
            } else {
                let told = Announcement::VaultUnavailable(self.ctx.ports.issuer.unusable_because());
                self.ctx.ports.announcer.announce(&pod.reference, told);
            }
            return;
        }
        let Some(role) = row.instance.as_ref().map(|instance| instance.role.clone()) else { return };
        if let Err(conflict) = self.rows.occupy(&pod) {
            if let Conflict::Shared(ip) = conflict {
                self.ctx.ports.announcer.announce(&pod.reference, Announcement::AddressShared(ip.to_string()));
            }
            self.queue.put(uid, now + ADDRESS_PAUSE);
            return;
        }
        if let Admission::Wait(until, why) = self.gates.admit(&role, now) {
            self.rows.release(&pod.ips);
            if self.held_back.insert(uid.clone()) {
                self.ctx.ports.announcer.announce(&pod.reference, why);
            }
            self.queue.put(uid, until);
            return;
        }
        let wall = self.ctx.ports.clock.now();
        let Some(row) = self.rows.by_uid.get_mut(&uid) else { return };
        let Some(instance) = row.instance.as_mut() else { return };
        row.working = true;
        instance.touched = true;
        let mut progress = instance.progress.take().unwrap_or_default();
        let job = Job {
            key: instance.key.clone(),
            pod: pod.reference.clone(),
            role,
            node: pod.node.clone(),
            service_account: pod.service_account.clone(),
            addresses: pod.ips.clone(),
            waited: instance.waited(wall, now),
            made_at: now,
        };
        let ctx = self.ctx.clone();
        let at_work = (uid.clone(), job.addresses.clone());
        let task = self.tasks.spawn(async move {
            let attempted = worker::attempt(&ctx, &job, &mut progress).await;
            Report::Attempted { uid, key: job.key, progress, attempted, addresses: job.addresses }
        });
        self.attempts.insert(task.id(), at_work);
    }

    /// Dials an init container that says it is done, but is still seen running.
    fn start_alive(&mut self, uid: PodUid) {
        let Some(row) = self.rows.by_uid.get(&uid) else { return };
        let Some(key) = row.instance.as_ref().map(|instance| instance.key.clone()) else { return };
        let (ctx, addresses) = (self.ctx.clone(), row.pod.ips.clone());
        self.tasks.spawn(async move {
            let _permit = permit(&ctx.dials).await;
            let answers = ctx.ports.courier.dial(&addresses).await.is_ok();
            Report::Alive { uid, key, answers }
        });
    }

    /// Reads a pod by name.
    pub(super) fn start_read(&mut self, uid: PodUid) {
        let Some(row) = self.rows.by_uid.get(&uid) else { return };
        let (ctx, reference) = (self.ctx.clone(), row.pod.reference.clone());
        self.tasks.spawn(async move {
            let _permit = permit(&ctx.reads).await;
            let found = ctx.ports.feed.read(&reference.namespace, &reference.name).await;
            Report::Read { uid, found }
        });
    }

    fn tell_load(&mut self) {
        let now = Instant::now();
        let idle = self.tasks.is_empty() && self.queue.next_due().is_none_or(|due| due > now);
        if idle || now.duration_since(self.load_told) >= LOAD_INTERVAL {
            self.load_told = now;
            self.ctx.ports.meter.load(self.queue.backlog(now), self.tasks.len());
        }
    }
}

/// When to look whether an instance that is settled still runs.
pub(super) fn look_again_after(generation: u32) -> Duration {
    SETTLED_BUT_RUNNING.saturating_mul(1 << generation.min(10)).min(SETTLED_BUT_RUNNING_MOST)
}
