//! Pods that a limit keeps waiting: they are counted at once, and their authors are told after a while. A part of
//! [`Service`].
//!
//! Owns no waiting: that is in [`super::turns`]. What is noted here is gone with the attempt that follows.

use std::time::Duration;

use tokio::time::Instant;

use super::rows::Delay;
use super::service::Service;
use crate::domain::announcement::Announcement;
use crate::domain::ids::PodUid;
use crate::domain::limits::Limit;

/// A pod that waits for its turn for longer is told why. Nobody misses what is shorter, and an Event is a write to
/// etcd just when many pods start.
const TELL_AFTER: Duration = Duration::from_secs(5);

impl Service {
    /// A limit keeps the pod waiting from now on.
    pub(super) fn delayed(&mut self, uid: &PodUid, limit: Limit) {
        self.ctx.ports.meter.limited(limit);
        let now = Instant::now();
        let row = self.rows.by_uid.get_mut(uid);
        let Some(instance) = row.and_then(|row| row.instance.as_mut()) else { return };
        match &mut instance.delay {
            // It got past one limit, and meets the next.
            Some(delay) => delay.limit = limit,
            none => {
                *none = Some(Delay { limit, since: now });
                self.delays.push_back((now + TELL_AFTER, uid.clone()));
            }
        }
    }

    /// Notes who is kept waiting since the last turn was given, and tells those who have waited for long.
    pub(super) fn tell_delays(&mut self) {
        for (uid, limit) in self.turns.take_limited() {
            self.delayed(&uid, limit);
        }
        let now = Instant::now();
        while let Some((due, uid)) = self.delays.pop_front_if(|(due, _)| *due <= now) {
            let Some(row) = self.rows.by_uid.get(&uid) else { continue };
            let delay = row.instance.as_ref().and_then(|instance| instance.delay);
            if let Some(Delay { limit, .. }) = delay.filter(|delay| delay.since + TELL_AFTER == due) {
                let (pod, waits_for) = (&row.pod.reference, limit.label());
                tracing::debug!(%pod, pod.uid = %uid, waits_for, "a limit keeps the pod waiting");
                self.ctx.ports.announcer.announce(pod, Announcement::Limited(limit));
            }
        }
    }
}
