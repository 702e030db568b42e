//! Who may dial one of our ports, as numbers: how many at once, how many from one address, and how often we say so.
//!
//! Owns the counts. A place is given back when it is dropped, however its connection ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The same cause from the same address is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Addresses whose last log line is remembered. Beyond it all are forgotten: a few lines more.
const MAX_REMEMBERED: usize = 1_024;

/// The places on one port.
pub struct Places {
    at_once: usize,
    from_one: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One connection's.
pub struct Place {
    places: Arc<Places>,
    from: IpAddr,
}

impl Places {
    /// `at_once` places, `from_one` of them at most for one address.
    pub fn new(at_once: usize, from_one: usize) -> Arc<Self> {
        Arc::new(Self { at_once, from_one, taken: Mutex::default() })
    }

    /// A place for one who dials.
    ///
    /// # Errors
    /// There is none, and why.
    pub fn take(self: &Arc<Self>, from: IpAddr) -> Result<Place, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.at_once {
            return Err("all places are taken");
        }
        let count = taken.entry(from).or_default();
        if *count >= self.from_one {
            return Err("it holds too many connections");
        }
        *count += 1;
        Ok(Place { places: self.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.from);
            }
        }
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

    #[test]
    fn one_address_cannot_take_all_places_and_gets_its_own_back() {
        let places = Places::new(3, 2);
        let first = places.take(A).ok().unwrap();
        let _second = places.take(A).ok().unwrap();
        assert_eq!(places.take(A).err(), Some("it holds too many connections"));
        let _third = places.take(B).ok().unwrap();
        assert_eq!(places.take(B).err(), Some("all places are taken"));
        drop(first);
        assert!(places.take(B).is_ok());
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
