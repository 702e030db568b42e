//! SWIM itself: foca, with the time and the network as plain values. No task, no socket.
//!
//! Owns foca's timers, and which of the members that went had said so. Everything foca wants sent or has found out is
//! collected here; whoever calls takes it away.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{Config, Foca, Member, NoCustomBroadcast, Notification, PostcardCodec, Runtime, State, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::identity::Identity;

/// A usual cluster: foca derives from it how long it suspects before it says "dead", and how often it repeats news.
const USUAL_SIZE: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);

/// The dead are remembered this long, as Raft remembers a voter that is silent (`raft.deadServerGrace`).
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What has happened to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is there.
    Joined,
    /// It has said that it goes.
    Left,
    /// It does not answer any more.
    Failed,
    /// It went a while ago and is forgotten now.
    Reaped,
}

/// See the module.
pub(super) struct Swim {
    foca: Foca<Identity, PostcardCodec, SmallRng, NoCustomBroadcast>,
    desk: Desk,
    /// Members that have said that they go, until they are forgotten.
    leaving: BTreeSet<Identity>,
}

/// Where foca puts what it wants.
struct Desk {
    now: Instant,
    timers: BTreeSet<(Instant, Timer<Identity>, u64)>,
    timers_set: u64,
    outgoing: Vec<(Identity, Vec<u8>)>,
    news: Vec<(Change, Identity)>,
}

impl Runtime<Identity> for Desk {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) => self.news.push((Change::Joined, *id)),
            Notification::MemberDown(id) => self.news.push((Change::Failed, *id)),
            // A member that was taken for dead and is not comes back up as well; our own state is nobody's news.
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.outgoing.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers_set += 1;
        self.timers.insert((self.now + after, event, self.timers_set));
    }
}

impl Swim {
    /// `me`, alone. All random choices come from `seed`.
    pub(super) fn new(me: Identity, seed: u64, now: Instant) -> Self {
        let config = Config {
            remove_down_after: Some(FORGET_AFTER),
            // Seeds that are no members are greeted again and again: that finds the lost ones.
            periodic_announce_to_down_members: None,
            ..Config::new_lan(USUAL_SIZE)
        };
        let foca = Foca::new(me, config, SmallRng::seed_from_u64(seed), PostcardCodec);
        let desk = Desk { now, timers: BTreeSet::new(), timers_set: 0, outgoing: Vec::new(), news: Vec::new() };
        Self { foca, desk, leaving: BTreeSet::new() }
    }

    /// Who we are by now.
    pub(super) fn me(&self) -> Identity {
        *self.foca.identity()
    }

    /// Members that are there, in order.
    pub(super) fn active(&self) -> BTreeSet<Identity> {
        self.foca.iter_members().map(|member| *member.id()).collect()
    }

    /// Takes in a packet.
    pub(super) fn heard(&mut self, packet: &[u8], now: Instant) {
        self.desk.now = now;
        let done = self.foca.handle_data(packet, &mut self.desk);
        note(done);
    }

    /// Asks `peer` to take us in.
    pub(super) fn announce(&mut self, peer: Identity, now: Instant) {
        self.desk.now = now;
        let done = self.foca.announce(peer, &mut self.desk);
        note(done);
    }

    /// `member` has said that it goes. It says so to everybody; nothing needs to be spread.
    pub(super) fn leaves(&mut self, member: Identity, now: Instant) {
        self.desk.now = now;
        if member != self.me() && self.foca.iter_members().any(|known| *known.id() == member) {
            self.leaving.insert(member);
            let done = self.foca.apply_many(std::iter::once(Member::down(member)), false, &mut self.desk);
            note(done);
        }
    }

    /// When [`Swim::tick`] is due.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.desk.timers.first().map(|(at, ..)| *at)
    }

    /// Does what was put off until `now`, in its order.
    pub(super) fn tick(&mut self, now: Instant) {
        self.desk.now = now;
        while self.next_tick().is_some_and(|at| at <= now) {
            let Some((_, timer, _)) = self.desk.timers.pop_first() else { break };
            if let Timer::RemoveDown(gone) = &timer {
                self.leaving.remove(gone);
                // One that has come back under its next name is not there any more to be forgotten.
                let mut known = self.foca.iter_membership_state();
                if known.any(|member| member.id() == gone && member.state() == State::Down) {
                    self.desk.news.push((Change::Reaped, *gone));
                }
            }
            let done = self.foca.handle_timer(timer, &mut self.desk);
            note(done);
        }
    }

    /// What is to be sent.
    pub(super) fn take_outgoing(&mut self) -> Vec<(Identity, Vec<u8>)> {
        std::mem::take(&mut self.desk.outgoing)
    }

    /// What has happened.
    pub(super) fn take_news(&mut self) -> Vec<(Change, Identity)> {
        let mut news = std::mem::take(&mut self.desk.news);
        for (change, member) in &mut news {
            if *change == Change::Failed && self.leaving.contains(member) {
                *change = Change::Left;
            }
        }
        news
    }
}

/// What foca does not understand it drops; a peer of another mind is nothing to stop for.
fn note(done: Result<(), foca::Error>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a gossip packet was dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use foca::{Codec, Header, Message};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::{BootId, NodeId};

    fn identity(node: u64) -> Identity {
        Identity::new(NodeId(node), SocketAddr::from(([10, 0, 0, 1], 45_678)), BootId(node))
    }

    fn message(kind: u8) -> Message<Identity> {
        let (target, origin, probe_number) = (identity(3), identity(3), 1);
        match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target, probe_number },
            3 => Message::IndirectPing { origin, probe_number },
            4 => Message::ForwardedAck { origin, probe_number },
            5 => Message::Announce,
            6 => Message::Feed,
            7 => Message::TurnUndead,
            _ => Message::Gossip,
        }
    }

    // Bad-input table: gossip whose head is right and whose rest is anything.
    proptest! {
        #[test]
        fn no_packet_stops_it(
            kinds in prop::collection::vec((0u8..9, prop::collection::vec(any::<u8>(), 0..80)), 1..8),
        ) {
            let now = Instant::now();
            let mut swim = Swim::new(identity(1), 1, now);
            for (kind, rest) in kinds {
                swim.heard(&rest, now);
                let header = Header { src: identity(2), src_incarnation: 0, dst: swim.me(), message: message(kind) };
                let mut packet = Vec::new();
                PostcardCodec.encode_header(&header, &mut packet).unwrap();
                packet.extend(rest);
                swim.heard(&packet, now);
                swim.leaves(identity(2), now);
                swim.tick(now + FORGET_AFTER * 2);
                swim.take_outgoing();
                swim.take_news();
            }
        }
    }

    #[test]
    fn a_goodbye_of_a_stranger_is_not_remembered() {
        let now = Instant::now();
        let mut swim = Swim::new(identity(1), 1, now);
        swim.leaves(identity(2), now);
        swim.leaves(identity(1), now);
        assert!(swim.leaving.is_empty() && swim.take_news().is_empty());
    }
}
