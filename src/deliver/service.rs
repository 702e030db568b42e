//! The leader's loop: what the watch says and what workers report goes in, work comes out.
//!
//! Owns the rows, the queue and the workers of one leadership. It never waits for the world itself: whatever takes
//! time is a worker, and reports when it is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::context::{Context, MAX_READS, Ports};
use super::explain::{self, Questions};
use super::gate::{Admission, Gates};
use super::ports::{Incident, Leadership, PodEvent, ReadError};
use super::queue::Queue;
use super::rows::{Conflict, MAX_ROWS, Row, Rows, Stage};
use super::settle::{self, Held};
use super::turns::{Errand, Hands, Turns};
use super::worker::{self, Attempted, Job, Progress};
use crate::domain::announcement::Announcement;
use crate::domain::ids::{InstanceKey, PodUid};
use crate::domain::limits::{Limit, Limits};
use crate::domain::pod::{Decision, Fate, Pod, decide, fate};

/// How long pushes that are under way may go on when we stop. Kubernetes' grace period is 30 s.
const DRAIN: Duration = Duration::from_secs(10);

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
    pub(super) turns: Turns,
    /// Pods that a limit keeps waiting, and when their authors are told.
    pub(super) delays: VecDeque<(Instant, PodUid)>,
    pub(super) gates: Gates,
    /// Pods that a gate keeps waiting; their authors were told why.
    pub(super) held_back: BTreeSet<PodUid>,
    pub(super) tasks: JoinSet<Report>,
    /// Who an attempt's worker is at work for, and on which addresses: should it die, its report never comes.
    pub(super) attempts: HashMap<task::Id, (PodUid, Vec<IpAddr>)>,
    /// Pods that are to be read by name, and when. Apart from `turns`, so that thousands of them delay no delivery.
    pub(super) reads: Queue<PodUid>,
    /// Reads that are under way.
    pub(super) readers: HashSet<task::Id>,
    pub(super) next_read: Instant,
    /// What the ledger had open when this leadership began, by pod, until the pod is seen or read.
    pub(super) earlier: BTreeMap<PodUid, Vec<InstanceKey>>,
    /// Counts complete lists.
    pub(super) list: u64,
    load_told: Instant,
    /// When it was logged last that the ledger is full.
    pub(super) told_full: Option<Instant>,
    /// Of `explain`, where anybody may ask.
    pub(super) questions: Option<Questions>,
    /// The checks of our Vault token have passed: work may be claimed.
    usable: bool,
    begun: Instant,
}

/// What a worker has to say.
pub(super) enum Report {
    /// An attempt ended.
    Attempted {
        uid: PodUid,
        key: InstanceKey,
        progress: Box<Progress>,
        attempted: Attempted,
        addresses: Vec<IpAddr>,
        errand: Errand,
    },
    /// A pod was read by name.
    Read { uid: PodUid, found: Result<Option<Pod>, ReadError> },
    /// An init container that should be done was dialled.
    Alive { uid: PodUid, key: InstanceKey, answers: bool },
    /// The end of an instance was recorded.
    Recorded,
}

impl Service {
    /// A service for `leadership`, within `limits`.
    pub fn new(ports: Ports, leadership: Leadership, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            ctx: Arc::new(Context::new(ports, leadership, limits.in_flight)),
            rows: Rows::default(),
            turns: Turns::new(&limits, now),
            delays: VecDeque::new(),
            gates: Gates::new(now),
            held_back: BTreeSet::new(),
            tasks: JoinSet::new(),
            attempts: HashMap::new(),
            reads: Queue::new(),
            readers: HashSet::new(),
            next_read: now,
            earlier: BTreeMap::new(),
            list: 0,
            load_told: now,
            told_full: None,
            questions: None,
            usable: false,
            begun: now,
        }
    }

    /// Works until the leadership ends; then stops claiming, lets pushes that are under way end, and returns.
    pub async fn run(mut self) {
        let ended = self.ctx.leadership.ended.clone();
        let (ctx, issuer) = (self.ctx.clone(), self.ctx.ports.issuer.clone());
        let usable = issuer.usable();
        tokio::pin!(usable);
        for (key, _) in self.ctx.ports.ledger.open() {
            self.earlier.entry(key.pod.clone()).or_default().push(key);
        }
        let mut events = self.ctx.ports.feed.events();
        let mut questions = self.questions.take();
        loop {
            let due = self.next_due();
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
                        self.readers.remove(&id);
                        self.finish(report);
                    }
                    Err(error) => {
                        self.readers.remove(&error.id());
                        self.worker_died(&error);
                    }
                },
                () = ctx.room.notified() => {}
                Some(question) = explain::next(&mut questions) => self.answer(question),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.start_due();
            self.tell_delays();
            self.start_reads();
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
    pub(super) fn seen(&mut self, pod: Arc<Pod>) {
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
        let row = self.rows.by_uid.entry(uid.clone()).or_insert_with(|| Row::new(pod.clone(), self.list));
        row.pod = pod;
        row.list = self.list;
        if std::mem::take(&mut row.left) {
            self.back(&uid);
        }
        let Some(row) = self.rows.by_uid.get_mut(&uid) else { return };
        if let Some(keys) = self.earlier.remove(&uid) {
            row.over.extend(keys);
        }
        self.evaluate(&uid);
    }

    /// Brings a row in line with its pod. Nothing happens while a worker is at it: it is evaluated afterwards.
    pub(super) fn evaluate(&mut self, uid: &PodUid) {
        let Some(row) = self.rows.by_uid.get_mut(uid).filter(|row| !row.working) else { return };
        let pod = row.pod.clone();
        let fate_of = |key: &InstanceKey| fate(Some(&pod), &pod.reference, &key.container_id);
        let mut ended: Vec<(InstanceKey, Fate, Vec<Held>)> = Vec::new();
        if let Some(instance) = row.instance.take_if(|instance| fate_of(&instance.key) != Fate::Open) {
            let fate = fate_of(&instance.key);
            row.crashes = match fate {
                Fate::Exited { code: 0, .. } | Fate::Passed => 0,
                Fate::Exited { .. } => row.crashes + 1,
                // A start that no status tells of: of one that loops fast, some are missed.
                Fate::Lost | Fate::Open => row.crashes,
            };
            let held = instance.progress.map(|progress| progress.held).unwrap_or_default();
            if instance.touched {
                ended.push((instance.key, fate, held));
            }
            self.turns.remove(uid);
            self.held_back.remove(uid);
        }
        let mut crash_loops = false;
        let decision = decide(&pod);
        if let Decision::Deliver(candidate) = &decision
            && !row.serves(&candidate.container_id)
        {
            let wait = row.begin(candidate, self.ctx.jitter());
            crash_loops = !wait.is_zero();
            self.turns.put(uid.clone(), row.errand(), Instant::now() + wait);
            if pod.host_network {
                self.ctx.ports.announcer.announce(&pod.reference, Announcement::HostNetwork);
            }
        }
        let serves = |key: &InstanceKey| row.instance.as_ref().is_some_and(|i| i.key.container_id == key.container_id);
        let mut in_doubt = false;
        for key in std::mem::take(&mut row.over) {
            match fate_of(&key) {
                fate if serves(&key) || fate == Fate::Open => row.over.push(key),
                // An earlier leader may have seen more of this pod than our watch has: then a start that we do not
                // know of is not lost, but yet to come. A fresh read tells.
                Fate::Lost => {
                    row.over.push(key);
                    in_doubt = true;
                }
                fate => ended.push((key, fate, Vec::new())),
            }
        }
        if in_doubt {
            self.reads.put(uid.clone(), Instant::now());
        }
        if let Decision::Refuse(refusal) = decision
            && row.refusal.as_ref() != Some(&refusal)
        {
            tracing::warn!(pod = %pod.reference, pod.uid = %uid, "no secret_id is delivered: {refusal}");
            self.ctx.ports.announcer.announce(&pod.reference, Announcement::PodRefused(refusal.clone()));
            row.refusal = Some(refusal);
        }
        for (key, fate, held) in ended {
            self.record_end(key, fate, held);
        }
        if crash_loops {
            self.delayed(uid, Limit::Pod);
        }
    }

    /// Makes a pod due at `at`, for what its instance needs next.
    pub(super) fn schedule(&mut self, uid: &PodUid, at: Instant) {
        if let Some(row) = self.rows.by_uid.get(uid) {
            self.turns.put(uid.clone(), row.errand(), at);
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
        while let Some((uid, errand)) = self.turns.next(now, self.hands()) {
            let row = self.rows.by_uid.get(&uid).filter(|row| !row.working && !row.left);
            let stage = row.and_then(|row| row.instance.as_ref()).map(|instance| instance.stage);
            match (stage, &errand.role) {
                (Some(Stage::Waiting), Some(_)) => self.start_attempt(uid, errand, now),
                (Some(Stage::Settled(_)), None) => self.start_alive(uid),
                // Its report will say what it needs next.
                _ => self.turns.give_back(&errand),
            }
        }
    }

    fn hands(&self) -> Hands {
        match (self.ctx.before_push.are_taken(), self.ctx.in_flight.are_taken()) {
            (true, _) => Hands::Busy,
            (false, true) => Hands::InFlight,
            (false, false) => Hands::Free,
        }
    }

    /// Starts an attempt, or says why not and gives back what the turn has cost.
    fn start_attempt(&mut self, uid: PodUid, errand: Errand, now: Instant) {
        let Some(row) = self.rows.by_uid.get_mut(&uid) else { return };
        if let Some(instance) = row.instance.as_mut() {
            instance.delay = None;
        }
        match self.may_start(&uid, now) {
            Ok(()) => self.spawn_attempt(uid, errand, now),
            Err(again) => {
                self.turns.give_back(&errand);
                if let Some(at) = again {
                    self.turns.put(uid, errand, at);
                }
            }
        }
    }

    /// Whether an attempt may be made now; else when it may be asked for again, if not by a later event. The pod's
    /// addresses are taken where it may.
    fn may_start(&mut self, uid: &PodUid, now: Instant) -> Result<(), Option<Instant>> {
        let Some(row) = self.rows.by_uid.get(uid) else { return Err(None) };
        let pod = row.pod.clone();
        if !self.usable {
            self.held_back.insert(uid.clone());
            if now < self.begun + LOGIN_GRACE {
                return Err(Some(self.begun + LOGIN_GRACE));
            }
            let told = Announcement::VaultUnavailable(self.ctx.ports.issuer.unusable_because());
            self.ctx.ports.announcer.announce(&pod.reference, told);
            return Err(None);
        }
        let Some(role) = row.instance.as_ref().map(|instance| instance.role.clone()) else { return Err(None) };
        if let Err(conflict) = self.rows.occupy(&pod) {
            if let Conflict::Shared(ip) = conflict {
                self.ctx.ports.announcer.announce(&pod.reference, Announcement::AddressShared(ip.to_string()));
            }
            return Err(Some(now + ADDRESS_PAUSE));
        }
        if let Admission::Wait(until, why) = self.gates.admit(&role, now) {
            self.rows.release(&pod.ips);
            if self.held_back.insert(uid.clone()) {
                self.ctx.ports.announcer.announce(&pod.reference, why);
            }
            return Err(Some(until));
        }
        Ok(())
    }

    fn spawn_attempt(&mut self, uid: PodUid, errand: Errand, now: Instant) {
        let wall = self.ctx.ports.clock.now();
        let Some(row) = self.rows.by_uid.get_mut(&uid) else { return };
        let pod = row.pod.clone();
        let Some(instance) = row.instance.as_mut() else { return };
        row.working = true;
        instance.touched = true;
        let mut progress = instance.progress.take().unwrap_or_default();
        let job = Job {
            key: instance.key.clone(),
            pod: pod.reference.clone(),
            role: instance.role.clone(),
            node: pod.node.clone(),
            service_account: pod.service_account.clone(),
            addresses: pod.ips.clone(),
            waited: instance.waited(wall, now),
            made_at: now,
        };
        let ctx = self.ctx.clone();
        let (before_push, in_flight) = (ctx.before_push.take(), ctx.in_flight.take());
        let at_work = (uid.clone(), job.addresses.clone());
        let task = self.tasks.spawn(async move {
            let attempted = worker::attempt(&ctx, &job, &mut progress, before_push).await;
            drop(in_flight);
            Report::Attempted { uid, key: job.key, progress, attempted, addresses: job.addresses, errand }
        });
        self.attempts.insert(task.id(), at_work);
    }

    /// When there is something to start.
    fn next_due(&mut self) -> Option<Instant> {
        let work = self.turns.next_due(Instant::now(), self.hands());
        let read = self.reads.next_due().filter(|_| self.readers.len() < MAX_READS);
        let told = self.delays.front().map(|(due, _)| *due);
        [work, read.map(|due| due.max(self.next_read)), told].into_iter().flatten().min()
    }

    fn tell_load(&mut self) {
        let now = Instant::now();
        let queued = self.turns.backlog(now);
        if (queued == 0 && self.tasks.is_empty()) || now.duration_since(self.load_told) >= LOAD_INTERVAL {
            self.load_told = now;
            self.ctx.ports.meter.load(queued, self.tasks.len());
        }
    }
}
