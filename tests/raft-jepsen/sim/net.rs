//! The network: connections between controllers, and single messages to everybody else.
//!
//! A connection is TCP as an application sees it: in order, delayed, stalled while its way is cut (segments are sent
//! again), broken after a long cut or with its process. Turmoil drops a segment for good, which TCP never does, and
//! cannot stop a host while its clock goes on; so this is our own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::task::Waker;

use super::rng::Rng;
use super::world::{Site, TICK};
use crate::history::Millis;

/// A lost segment is sent again after this.
const RETRANSMIT: Millis = 200;

/// A connection without an answer for this long is broken.
const BROKEN_AFTER: Millis = 8_000;

/// What travels in a connection.
enum Segment {
    Bytes(Vec<u8>),
    End,
}

/// One direction.
#[derive(Default)]
struct Pipe {
    travelling: VecDeque<(Millis, Segment)>,
    arrived: VecDeque<u8>,
    ended: bool,
    waker: Option<Waker>,
    stalled_since: Option<Millis>,
}

/// A connection between two controllers: `ends[0]` dialled.
struct Connection {
    ends: [IpAddr; 2],
    /// `pipes[0]` carries what `ends[0]` sends.
    pipes: [Pipe; 2],
    state: State,
    due: Millis,
    dialler: Option<Waker>,
    gone: [bool; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Dialling,
    Answering,
    Refusing,
    Open,
    Refused,
}

/// Who listens.
#[derive(Default)]
struct Listener {
    waiting: VecDeque<(IpAddr, u64)>,
    waker: Option<Waker>,
}

/// See the module.
pub(crate) struct Net {
    rng: Rng,
    now: Millis,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    listeners: BTreeMap<IpAddr, Listener>,
    /// Machines that are off: nothing is refused there, and nothing answered.
    off: BTreeSet<IpAddr>,
    cut: BTreeSet<(Site, Site)>,
    /// Percent of messages that are lost, and of segments that are late.
    pub(crate) loss: u64,
    /// The longest delay beyond a tick.
    pub(crate) delay: Millis,
    /// How many were lost, and how many arrived before an earlier one.
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    last_due: Millis,
}

impl Net {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            now: 0,
            connections: BTreeMap::new(),
            next: 0,
            listeners: BTreeMap::new(),
            off: BTreeSet::new(),
            cut: BTreeSet::new(),
            loss: 0,
            delay: 0,
            lost: 0,
            reordered: 0,
            last_due: 0,
        }
    }

    fn travel(&mut self) -> Millis {
        let delay = TICK + self.rng.between(0, self.delay);
        if self.now + delay < self.last_due {
            self.reordered += 1;
        }
        self.last_due = self.now + delay;
        delay
    }

    /// How long a single message travels; `None`: it is lost.
    pub(crate) fn message(&mut self, from: Site, to: Site) -> Option<Millis> {
        let travel = self.travel();
        // Half as often as a segment is late: TCP would have sent most of them again.
        let percent = self.loss / 2;
        let lost = self.rng.chance(percent);
        self.lost += u64::from(lost);
        (!lost && !self.is_cut(from, to)).then_some(travel)
    }

    pub(crate) fn is_cut(&self, from: Site, to: Site) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Cuts the way from `from` to `to`, that one alone, or mends it.
    pub(crate) fn cut(&mut self, from: Site, to: Site, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    pub(crate) fn mend_all(&mut self) {
        self.cut.clear();
    }

    /// The machine at `ip` goes off: its connections say nothing any more. Or on again.
    pub(crate) fn power(&mut self, ip: IpAddr, on: bool) {
        if on {
            self.off.remove(&ip);
        } else {
            self.off.insert(ip);
            self.listeners.remove(&ip);
        }
    }

    pub(crate) fn listen(&mut self, ip: IpAddr) {
        self.listeners.insert(ip, Listener::default());
    }

    pub(crate) fn listens(&self, ip: IpAddr) -> bool {
        self.listeners.contains_key(&ip)
    }

    pub(crate) fn unlisten(&mut self, ip: IpAddr) {
        self.listeners.remove(&ip);
    }

    pub(crate) fn dial(&mut self, from: IpAddr, to: IpAddr) -> u64 {
        let due = self.now + self.travel();
        self.next += 1;
        let connection = Connection {
            ends: [from, to],
            pipes: [Pipe::default(), Pipe::default()],
            state: State::Dialling,
            due,
            dialler: None,
            gone: [false, false],
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    /// Whether the dial came to something.
    pub(crate) fn dialled(&mut self, id: u64, waker: &Waker) -> Option<io::Result<()>> {
        let connection = self.connections.get_mut(&id)?;
        match connection.state {
            State::Open => Some(Ok(())),
            State::Refused => Some(Err(io::ErrorKind::ConnectionRefused.into())),
            _ => {
                connection.dialler = Some(waker.clone());
                None
            }
        }
    }

    pub(crate) fn accept(&mut self, ip: IpAddr, waker: &Waker) -> Option<(IpAddr, u64)> {
        let listener = self.listeners.get_mut(&ip)?;
        listener.waker = Some(waker.clone());
        listener.waiting.pop_front()
    }

    /// Sends over a connection.
    pub(crate) fn send(&mut self, id: u64, side: usize, bytes: &[u8]) -> io::Result<()> {
        let mut due = self.now + self.travel();
        if self.rng.chance(self.loss) {
            self.lost += 1;
            due += RETRANSMIT;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if connection.gone[1 - side] && connection.pipes[1 - side].ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        connection.pipes[side].push(due, Segment::Bytes(bytes.to_vec()));
        Ok(())
    }

    /// What has arrived, at most `most` bytes; `None`: nothing yet; empty: the other end is gone.
    pub(crate) fn receive(&mut self, id: u64, side: usize, most: usize, waker: &Waker) -> Option<Vec<u8>> {
        let Some(connection) = self.connections.get_mut(&id) else { return Some(Vec::new()) };
        let pipe = &mut connection.pipes[1 - side];
        if pipe.arrived.is_empty() && !pipe.ended {
            pipe.waker = Some(waker.clone());
            return None;
        }
        let take = most.min(pipe.arrived.len());
        Some(pipe.arrived.drain(..take).collect())
    }

    /// An end of a connection is dropped: the other hears of it, unless the machine is off.
    pub(crate) fn hang_up(&mut self, id: u64, side: usize) {
        let due = self.now + self.travel();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.gone[side] = true;
        if !self.off.contains(&connection.ends[side]) {
            connection.pipes[side].push(due, Segment::End);
        }
    }

    /// Delivers what is due.
    pub(crate) fn pump(&mut self, now: Millis) {
        self.now = now;
        let mut wake = Vec::new();
        let mut accepted = Vec::new();
        self.connections.retain(|id, connection| {
            let [from, to] = connection.ends;
            let ways = [(Site::Node(from), Site::Node(to)), (Site::Node(to), Site::Node(from))];
            connection.shake_hands(now, ways, (&self.cut, &self.off), self.listeners.contains_key(&to), |how| {
                if how {
                    accepted.push((to, from, *id));
                }
            });
            if connection.state == State::Open || connection.state == State::Refused {
                wake.extend(connection.dialler.take());
            }
            for (pipe, (from, to)) in connection.pipes.iter_mut().zip(ways) {
                let Site::Node(target) = to else { continue };
                let blocked = self.cut.contains(&(from, to)) || self.off.contains(&target);
                pipe.pump(now, blocked, &mut wake);
            }
            !connection.gone.iter().all(|gone| *gone)
        });
        for (to, from, id) in accepted {
            if let Some(listener) = self.listeners.get_mut(&to) {
                listener.waiting.push_back((from, id));
                wake.extend(listener.waker.take());
            }
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

type Obstacles<'a> = (&'a BTreeSet<(Site, Site)>, &'a BTreeSet<IpAddr>);

impl Connection {
    fn shake_hands(
        &mut self,
        now: Millis,
        ways: [(Site, Site); 2],
        (cut, off): Obstacles<'_>,
        listening: bool,
        arrived: impl FnOnce(bool),
    ) {
        if now < self.due {
            return;
        }
        let way = if self.state == State::Dialling { ways[0] } else { ways[1] };
        if matches!(self.state, State::Open | State::Refused) {
            return;
        }
        if cut.contains(&way) || off.contains(&self.ends[1]) {
            // Sent again.
            self.due = now + RETRANSMIT;
            return;
        }
        self.due = now + TICK;
        self.state = match self.state {
            State::Dialling if listening => {
                arrived(true);
                State::Answering
            }
            State::Dialling => State::Refusing,
            State::Answering => State::Open,
            _ => State::Refused,
        };
    }
}

impl Pipe {
    fn push(&mut self, due: Millis, segment: Segment) {
        let due = self.travelling.back().map_or(due, |(last, _)| due.max(*last));
        self.travelling.push_back((due, segment));
    }

    fn pump(&mut self, now: Millis, blocked: bool, wake: &mut Vec<Waker>) {
        while let Some((due, _)) = self.travelling.front().filter(|(due, _)| *due <= now) {
            if blocked {
                let since = *self.stalled_since.get_or_insert(*due);
                if now - since >= BROKEN_AFTER {
                    self.ended = true;
                    self.travelling.clear();
                    wake.extend(self.waker.take());
                    return;
                }
                self.travelling.front_mut().into_iter().for_each(|(due, _)| *due = now + RETRANSMIT);
                return;
            }
            self.stalled_since = None;
            match self.travelling.pop_front() {
                Some((_, Segment::Bytes(bytes))) => self.arrived.extend(bytes),
                _ => self.ended = true,
            }
            wake.extend(self.waker.take());
        }
    }
}
