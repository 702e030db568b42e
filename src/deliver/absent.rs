//! Pods that left with something unsettled, and reads of single pods by name: a part of [`Service`].
//!
//! Must never settle anything because the watch does not show it: only a fresh read says that something is gone.

use std::sync::Arc;

use tokio::time::Instant;

use super::context::{MAX_READS, READ_PAUSE};
use super::ports::ReadError;
use super::reports::look_again_after;
use super::rows::{Row, Stage};
use super::service::{Report, Service};
use crate::domain::backoff::ATTEMPT;
use crate::domain::ids::{InstanceKey, PodUid};
use crate::domain::pod::{Fate, Phase, Pod, fate};

impl Service {
    /// A pod that is not in the selection any more.
    pub(super) fn left(&mut self, uid: &PodUid) {
        self.rows.forget(uid);
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        row.left = true;
        if row.working {
            return;
        }
        self.turns.remove(uid);
        let ledger = &self.ctx.ports.ledger;
        let served = row.instance.as_ref().filter(|instance| instance.touched).map(|instance| &instance.key);
        let unsettled = |key: &&InstanceKey| {
            ledger.read(key).is_some_and(|entry| entry.closed.is_none() || entry.unsettled().next().is_some())
        };
        if served.into_iter().chain(&row.over).any(|key| unsettled(&key)) {
            self.reads.put(uid.clone(), Instant::now());
        } else {
            self.rows.by_uid.remove(uid);
            self.held_back.remove(uid);
            self.reads.remove(uid);
        }
    }

    /// What the ledger has open for pods that the complete list lacks: their rows are read by name, a few at once.
    pub(super) fn adopt_orphans(&mut self) {
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

    /// A pod that had left is seen again: its instance goes on where it was.
    pub(super) fn back(&mut self, uid: &PodUid) {
        self.reads.remove(uid);
        let Some(row) = self.rows.by_uid.get(uid).filter(|row| !row.working) else { return };
        let Some(instance) = &row.instance else { return };
        match instance.stage {
            Stage::Waiting => self.schedule(uid, Instant::now()),
            Stage::Settled(since) => self.schedule(uid, since + look_again_after(instance.key.generation)),
            Stage::Closed => {}
        }
    }

    /// Reads the next pod that is to be read by name.
    pub(super) fn start_reads(&mut self) {
        let now = Instant::now();
        if now < self.next_read || self.readers.len() >= MAX_READS {
            return;
        }
        let Some(uid) = self.reads.pop(now) else { return };
        let Some(row) = self.rows.by_uid.get(&uid) else { return };
        self.next_read = now + READ_PAUSE;
        let (ctx, reference) = (self.ctx.clone(), row.pod.reference.clone());
        let reader = self.tasks.spawn(async move {
            let found = ctx.ports.feed.read(&reference.namespace, &reference.name).await;
            Report::Read { uid, found }
        });
        self.readers.insert(reader.id());
    }

    /// A pod was read by name: because it left with something unsettled, because it said it is another one, or because
    /// an earlier leader knew of a start of it that the watch does not show.
    pub(super) fn read(&mut self, uid: &PodUid, found: Result<Option<Pod>, ReadError>) {
        let jitter = self.ctx.jitter();
        // A worker that is at it meanwhile finds out by itself; its report brings the row in line.
        let Some(row) = self.rows.by_uid.get_mut(uid).filter(|row| !row.working) else { return };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                row.read_failures += 1;
                let wait = ATTEMPT.wait(row.read_failures, jitter);
                tracing::debug!(pod = %row.pod.reference, pod.uid = %uid, %error, "reading the pod again");
                self.reads.put(uid.clone(), Instant::now() + wait);
                return;
            }
        };
        row.read_failures = 0;
        if row.left {
            self.settle_left(uid, found.as_ref());
            return;
        }
        let disowned = std::mem::take(&mut row.disowned);
        let serves = |key: &InstanceKey| row.instance.as_ref().is_some_and(|i| i.key.container_id == key.container_id);
        let reference = &row.pod.reference;
        let (open, ended): (Vec<_>, Vec<_>) = std::mem::take(&mut row.over)
            .into_iter()
            .map(|key| (fate(found.as_ref(), reference, &key.container_id), key))
            .partition(|(fate, key)| serves(key) || *fate == Fate::Open);
        row.over = open.into_iter().map(|(_, key)| key).collect();
        for (fate, key) in ended {
            self.record_end(key, fate, Vec::new());
        }
        match found.filter(|pod| pod.reference.uid == *uid && pod.phase == Phase::Pending) {
            // Otherwise the watch goes on to say how it is: it may be behind, but it never goes back.
            Some(pod) if disowned => self.seen(Arc::new(pod)),
            Some(_) => {}
            None => self.left(uid),
        }
    }

    /// Settles all starts of a pod that left, by what is now found under its name.
    fn settle_left(&mut self, uid: &PodUid, found: Option<&Pod>) {
        let Some(row) = self.rows.by_uid.get_mut(uid) else { return };
        let reference = row.pod.reference.clone();
        let fate_of = |key: &InstanceKey| fate(found, &reference, &key.container_id);
        let mut ended = Vec::new();
        if let Some(instance) = row.instance.take_if(|instance| fate_of(&instance.key) != Fate::Open) {
            let held = instance.progress.map(|progress| progress.held).unwrap_or_default();
            ended.push((instance.key, held));
        }
        for key in row.over.extract_if(.., |key| fate_of(key) != Fate::Open) {
            ended.push((key, Vec::new()));
        }
        if row.instance.is_none() && row.over.is_empty() {
            self.rows.by_uid.remove(uid);
            self.held_back.remove(uid);
        } else {
            // It is still pending: the watch will show it again, or a later read will show its end.
            self.reads.put(uid.clone(), Instant::now() + ATTEMPT.most);
        }
        for (key, held) in ended {
            let fate = fate_of(&key);
            self.record_end(key, fate, held);
        }
    }
}
