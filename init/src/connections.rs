//! How many connections there may be, and which one goes when there are too many.
//!
//! A stranger who opens connections and leaves them open must not keep the controller out: the address that holds
//! the most loses its oldest one.
//!
//! Must never: drop a connection whose push is in work.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::task::AbortHandle;

/// Connections at a time. A controller needs one, a change of leaders two; each may hold a body of
/// [`wire::limits::BODY_BYTES_MAX`].
pub(crate) const CONNECTIONS_MAX: usize = 32;

struct Entry {
    id: u64,
    peer: IpAddr,
    task: AbortHandle,
}

/// The open connections that may be dropped, oldest first.
#[derive(Default)]
pub(crate) struct Connections(VecDeque<Entry>);

impl Connections {
    /// Takes a new one in; where that is one too many, ends the one that should go.
    pub(crate) fn add(&mut self, id: u64, peer: IpAddr, task: AbortHandle) {
        self.0.push_back(Entry { id, peer, task });
        if self.0.len() <= CONNECTIONS_MAX {
            return;
        }
        let held = |peer| self.0.iter().filter(|entry| entry.peer == peer).count();
        let most = self.0.iter().map(|entry| held(entry.peer)).max().unwrap_or(0);
        let victim = self.0.iter().position(|entry| held(entry.peer) == most);
        if let Some(entry) = victim.and_then(|index| self.0.remove(index)) {
            entry.task.abort();
            crate::log::stranger(&format!("Too many connections; closed the oldest one from {}.", entry.peer));
        }
    }

    /// This one has ended, or must not be dropped any more.
    pub(crate) fn release(&mut self, id: u64) {
        self.0.retain(|entry| entry.id != id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_crowd_from_one_address_does_not_push_out_another() {
        let mut connections = Connections::default();
        let peer = |n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let mut tasks = Vec::new();
        let mut open = |connections: &mut Connections, from| {
            let task = tokio::spawn(std::future::pending::<()>());
            connections.add(tasks.len() as u64, peer(from), task.abort_handle());
            tasks.push(task);
        };
        open(&mut connections, 1);
        for _ in 0..CONNECTIONS_MAX * 3 {
            open(&mut connections, 2);
        }
        open(&mut connections, 1);
        assert_eq!(connections.0.len(), CONNECTIONS_MAX);
        assert_eq!(connections.0.iter().filter(|entry| entry.peer == peer(1)).count(), 2);
        let second = tasks.remove(1).await;
        assert!(second.unwrap_err().is_cancelled(), "the oldest of the most");
        assert!(!tasks[0].is_finished(), "the lone one stays");
        connections.release(0);
        assert_eq!(connections.0.len(), CONNECTIONS_MAX - 1);
    }
}
