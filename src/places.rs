//! Who may dial one of our ports: how many at once, who has to go when more come, and how often we say so.
//!
//! Owns the counts. A place is given back when it is dropped, however its connection ended.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The same cause from the same address is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Addresses whose last log line is remembered. Beyond it all are forgotten: a few lines more.
const MAX_REMEMBERED: usize = 1_024;

/// Those who are connected, the oldest first.
///
/// Room is made by the address that holds most, and by its oldest connection. So whoever opens thousands takes the place
/// of its own ones; one who needs one or two keeps them, whatever others do.
pub struct Crowd {
    most: usize,
    all: Mutex<Vec<Entry>>,
}

struct Entry {
    from: IpAddr,
    leave: Arc<CancellationToken>,
}

/// A place in a [`Crowd`], given back when it is dropped.
pub struct Seat {
    crowd: Arc<Crowd>,
    leave: Arc<CancellationToken>,
}

impl Crowd {
    /// `most` at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, all: Mutex::default() })
    }

    /// A place for one that comes; somebody may have to go for it, even the one that comes.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Seat {
        let leave = Arc::<CancellationToken>::default();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Entry { from, leave: leave.clone() });
        if all.len() > self.most {
            let mut held: HashMap<IpAddr, usize> = HashMap::new();
            all.iter().for_each(|entry| *held.entry(entry.from).or_default() += 1);
            let most = held.values().copied().max().unwrap_or_default();
            if let Some(oldest) = all.iter().position(|entry| held[&entry.from] == most) {
                all.remove(oldest).leave.cancel();
            }
        }
        drop(all);
        Seat { crowd: self.clone(), leave }
    }
}

impl Seat {
    /// Completes when this one has to go.
    pub async fn wanted(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.crowd.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|entry| !Arc::ptr_eq(&entry.leave, &self.leave));
    }
}

/// Whether a line about an address is due.
#[derive(Default)]
pub struct LogLimit {
    told: Mutex<BTreeMap<(IpAddr, &'static str), Instant>>,
}

impl LogLimit {
    /// True once per address, cause and minute.
    pub fn due(&self, from: IpAddr, cause: &'static str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&(from, cause)).is_some_and(|at| now.duration_since(*at) < LOG_EVERY) {
            return false;
        }
        if told.len() >= MAX_REMEMBERED {
            told.clear();
        }
        told.insert((from, cause), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn is_wanted(seat: &Seat) -> bool {
        seat.leave.is_cancelled()
    }

    #[test]
    fn whoever_holds_most_makes_room_by_its_oldest() {
        let crowd = Crowd::new(4);
        let kept = crowd.enter(A);
        let flood: Vec<Seat> = (0..10).map(|_| crowd.enter(B)).collect();
        assert!(!is_wanted(&kept));
        assert_eq!(flood.iter().map(is_wanted).filter(|wanted| *wanted).count(), 7);
        assert!(flood.iter().take(7).all(is_wanted), "the oldest go");
        let second = crowd.enter(A);
        assert!(!is_wanted(&kept) && !is_wanted(&second));
        drop(flood);
        let more: Vec<Seat> = (0..2).map(|_| crowd.enter(B)).collect();
        assert!(more.iter().all(|seat| !is_wanted(seat)), "places were given back");
    }

    // From as many addresses as there are places: then it is the oldest of all, as it would be without the rule.
    #[test]
    fn there_are_never_more() {
        let crowd = Crowd::new(8);
        let seats: Vec<Seat> = (0..=255).map(|n| crowd.enter(IpAddr::from([10, 0, 0, n]))).collect();
        assert_eq!(seats.iter().filter(|seat| !is_wanted(seat)).count(), 8);
        assert!(!is_wanted(&seats[255]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_told_once_a_minute_for_each_address() {
        let limit = LogLimit::default();
        assert!(limit.due(A, "stranger"));
        assert!(!limit.due(A, "stranger"));
        assert!(limit.due(A, "crowded") && limit.due(B, "stranger"));
        tokio::time::advance(LOG_EVERY).await;
        assert!(limit.due(A, "stranger"));
    }
}
