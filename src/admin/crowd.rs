//! How many may be connected at once, and who has to go when more come.
//!
//! Owns the rule: room is made by the address that holds most, and by its oldest connection. So whoever opens thousands
//! takes the place of its own ones; a kubelet or a scraper with one or two keeps its place, whatever others do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Those who are connected, the oldest first.
pub(super) struct Crowd {
    most: usize,
    all: Mutex<Vec<Entry>>,
}

struct Entry {
    from: IpAddr,
    leave: Arc<CancellationToken>,
}

/// A place, given back when it is dropped.
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    leave: Arc<CancellationToken>,
}

impl Crowd {
    /// `most` at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, all: Mutex::default() })
    }

    /// A place for one that comes; somebody may have to go for it, even the one that comes.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Seat {
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
    pub(super) async fn wanted(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.crowd.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|entry| !Arc::ptr_eq(&entry.leave, &self.leave));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted(seat: &Seat) -> bool {
        seat.leave.is_cancelled()
    }

    #[test]
    fn whoever_holds_most_makes_room_by_its_oldest() {
        let (one, many): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let crowd = Crowd::new(4);
        let kept = crowd.enter(one);
        let flood: Vec<Seat> = (0..10).map(|_| crowd.enter(many)).collect();
        assert!(!is_wanted(&kept));
        assert_eq!(flood.iter().map(is_wanted).filter(|wanted| *wanted).count(), 7);
        assert!(flood.iter().take(7).all(is_wanted), "the oldest go");
        let second = crowd.enter(one);
        assert!(!is_wanted(&kept) && !is_wanted(&second));
        drop(flood);
        let more: Vec<Seat> = (0..2).map(|_| crowd.enter(many)).collect();
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
}
