//! Which announcement becomes a new Event, which is added to an earlier one, and which waits.
//!
//! Pure: the caller brings the time. Owns what was announced lately, with a limit. Must never let one pod with one
//! cause write more often than its interval, however often it is announced.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::{PodRef, PodUid};

/// Between two writes for one pod and reason: this after the first, then twice as long each time ...
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
/// ... up to this. While Vault is down, 5,000 waiting pods cost 8 writes a second.
const LAST_INTERVAL: Duration = Duration::from_secs(600);
/// A series that was not announced for so long has ended. More than [`LAST_INTERVAL`], less than the hour that the
/// API server keeps Events.
const ENDS_AFTER: Duration = Duration::from_secs(1_200);
/// Series that are remembered, some 250 bytes each: more than the pods that are starting at one time. Beyond that
/// the oldest goes, and its next announcement is a new Event.
const REMEMBERED: usize = 8_192;
/// The API server's limit of `metadata.name`.
const NAME_BYTES: usize = 253;

type Key = (PodUid, &'static str);

/// What was announced lately.
#[derive(Default)]
pub(super) struct SeriesTable {
    series: HashMap<Key, Series>,
    /// In the order of their beginning.
    order: VecDeque<Key>,
}

struct Series {
    pod: PodRef,
    suffix: u64,
    note: u64,
    written: i32,
    unwritten: i32,
    interval: Duration,
    last_write: Instant,
    last_heard: Instant,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// A new Event of that name.
    New { name: String },
    /// An earlier one, that has now been observed so often.
    Again { pod: PodRef, name: String, count: i32 },
}

impl SeriesTable {
    /// Notes an announcement. `None`: it is counted and waits for [`SeriesTable::due`].
    pub(super) fn note(&mut self, pod: &PodRef, reason: &'static str, note: &str, suffix: u64) -> Option<Write> {
        let (now, note) = (Instant::now(), hash(note));
        let key = (pod.uid.clone(), reason);
        if let Some(series) = self.series.get_mut(&key) {
            series.last_heard = now;
            series.unwritten = series.unwritten.saturating_add(1);
            if now.duration_since(series.last_write) < series.interval {
                return None;
            }
            if series.note == note {
                return Some(series.write(now));
            }
            // An Event's note cannot be changed: other words need another Event.
            series.unwritten = 0;
            series.wrote(now);
            (series.suffix, series.note, series.written) = (suffix, note, 1);
            return Some(Write::New { name: series.name() });
        }
        if self.series.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
        let series = Series {
            pod: pod.clone(),
            suffix,
            note,
            written: 1,
            unwritten: 0,
            interval: FIRST_INTERVAL,
            last_write: now,
            last_heard: now,
        };
        let name = series.name();
        self.order.push_back(key.clone());
        self.series.insert(key, series);
        Some(Write::New { name })
    }

    /// What has waited long enough. Also forgets the series that have ended.
    pub(super) fn due(&mut self) -> Vec<Write> {
        let now = Instant::now();
        let due =
            |series: &&mut Series| series.unwritten > 0 && now.duration_since(series.last_write) >= series.interval;
        let writes = self.series.values_mut().filter(due).map(|series| series.write(now)).collect();
        self.series.retain(|_, series| now.duration_since(series.last_heard) < ENDS_AFTER);
        let series = &self.series;
        self.order.retain(|key| series.contains_key(key));
        writes
    }

    /// The Event is gone, or never came to be: the next announcement begins anew.
    pub(super) fn forget(&mut self, pod: &PodRef, reason: Option<&'static str>) {
        let is_it = |key: &Key| key.0 == pod.uid && reason.is_none_or(|reason| key.1 == reason);
        self.series.retain(|key, _| !is_it(key));
        self.order.retain(|key| !is_it(key));
    }
}

impl Series {
    fn write(&mut self, now: Instant) -> Write {
        self.written = self.written.saturating_add(std::mem::take(&mut self.unwritten));
        self.wrote(now);
        Write::Again { pod: self.pod.clone(), name: self.name(), count: self.written }
    }

    fn wrote(&mut self, now: Instant) {
        self.last_write = now;
        self.interval = (self.interval * 2).min(LAST_INTERVAL);
    }

    fn name(&self) -> String {
        let suffix = format!(".{:016x}", self.suffix);
        let pod = super::super::cut(&self.pod.name, NAME_BYTES - suffix.len());
        // A name's part before a dot ends in a letter or a digit.
        format!("{}{suffix}", pod.trim_end_matches(['.', '-']))
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_pod(name: &str) -> PodRef {
        PodRef { namespace: "team-a".into(), name: name.into(), uid: PodUid::from(name) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_cause_is_one_event_written_ever_more_seldom() {
        let (mut table, pod) = (SeriesTable::default(), mk_pod("p"));
        let mut writes = Vec::new();
        for second in 0..3_600 {
            writes.extend(table.note(&pod, "VaultUnavailable", "sealed", second));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(writes[0], Write::New { name: "p.0000000000000000".into() });
        assert!(writes[1..].iter().all(|write| matches!(write, Write::Again { .. })), "{writes:?}");
        assert!((7..12).contains(&writes.len()), "{writes:?}");
        let Some(Write::Again { count, .. }) = writes.last() else { panic!() };
        assert!(*count > 2_400, "all that were held back are counted: {count}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_back_is_written_when_its_time_comes_even_if_nothing_follows() {
        let (mut table, pod) = (SeriesTable::default(), mk_pod("p"));
        table.note(&pod, "r", "n", 1);
        assert_eq!(table.note(&pod, "r", "n", 2), None);
        assert_eq!(table.due(), []);
        tokio::time::advance(FIRST_INTERVAL).await;
        assert_eq!(table.due(), [Write::Again { pod, name: "p.0000000000000001".into(), count: 2 }]);
        assert_eq!(table.due(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn other_words_another_reason_or_another_pod_are_another_event() {
        let (mut table, pod) = (SeriesTable::default(), mk_pod("p"));
        assert!(matches!(table.note(&pod, "r", "n", 1), Some(Write::New { .. })));
        assert!(matches!(table.note(&pod, "s", "n", 2), Some(Write::New { .. })));
        assert!(matches!(table.note(&mk_pod("q"), "r", "n", 3), Some(Write::New { .. })));
        assert_eq!(
            table.note(&pod, "r", "other", 4),
            None,
            "words that change each time must not get round the interval"
        );
        tokio::time::advance(FIRST_INTERVAL).await;
        assert!(matches!(table.note(&pod, "r", "other", 5), Some(Write::New { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_has_a_limit_and_forgets_what_has_ended() {
        let mut table = SeriesTable::default();
        for n in 0..REMEMBERED + 10 {
            table.note(&mk_pod(&n.to_string()), "r", "n", 0);
        }
        assert_eq!((table.series.len(), table.order.len()), (REMEMBERED, REMEMBERED));
        tokio::time::advance(ENDS_AFTER).await;
        table.due();
        assert_eq!((table.series.len(), table.order.len()), (0, 0));
    }

    #[test]
    fn a_long_pod_name_still_gives_a_valid_event_name() {
        let mut table = SeriesTable::default();
        let name = format!("{}-{}", "a".repeat(235), "b".repeat(17));
        let Some(Write::New { name }) = table.note(&mk_pod(&name), "r", "n", 7) else { panic!() };
        assert_eq!(name, format!("{}.0000000000000007", "a".repeat(235)));
    }
}
