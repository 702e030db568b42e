//! All that is not a controller: the network, the API server with its kubelets, Vault, the receivers; and the time.
//!
//! One thread, one lock, no task: what happens later is a timer. Controllers call in, and are answered through the
//! simulated network, or never.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::api::Api;
use super::nemesis::Armed;
use super::net::Net;
use super::pods::Pods;
use super::rng::Rng;
use super::vault::Vault;
use crate::history::{History, Millis, What};

/// One step of the simulation. Nothing crosses the network faster.
pub(crate) const TICK: Millis = 5;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// A controller, by its address.
    Node(IpAddr),
    /// The API server.
    Api,
    /// Vault.
    Vault,
    /// The applications' pods.
    Apps,
}

type Timer = Box<dyn FnOnce(&mut World) + Send>;

/// See the module.
pub(crate) struct World {
    pub(crate) now: Millis,
    pub(crate) rng: Rng,
    pub(crate) history: History,
    pub(crate) net: Net,
    pub(crate) api: Api,
    pub(crate) vault: Vault,
    pub(crate) pods: Pods,
    pub(crate) armed: Armed,
    /// How often each class of fault happened.
    pub(crate) coverage: BTreeMap<String, u64>,
    /// Proposals, numbered.
    pub(crate) ops: u64,
    /// How many `secret_id`s somebody is about to destroy.
    pub(crate) neutralising: usize,
    timers: BTreeMap<(Millis, u64), Timer>,
    sequence: u64,
    /// What was lost on its way: whoever waits for it waits.
    lost: Vec<Box<dyn Any + Send>>,
}

/// The world, shared.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// The world of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self(Arc::new(Mutex::new(World {
            now: 0,
            net: Net::new(rng.fork()),
            api: Api::default(),
            vault: Vault::new(rng.fork()),
            pods: Pods::default(),
            armed: Armed::default(),
            rng,
            history: History::default(),
            coverage: BTreeMap::new(),
            ops: 0,
            neutralising: 0,
            timers: BTreeMap::new(),
            sequence: 0,
            lost: Vec::new(),
        })))
    }

    /// The world. Never held across an `await`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way back of a call.
pub(crate) struct Answer<T> {
    from: Site,
    to: Site,
    sender: oneshot::Sender<T>,
}

impl<T: Send + 'static> Answer<T> {
    /// Answers after `delay`, if the answer finds its way.
    pub(crate) fn send(self, world: &mut World, delay: Millis, value: T) {
        let Self { from, to, sender } = self;
        world.after(delay, move |world| match world.net.message(from, to) {
            Some(travel) => world.after(travel, move |world| {
                if world.net.is_cut(from, to) {
                    world.lost.push(Box::new(sender));
                } else {
                    // Whoever asked may be gone.
                    let _ = sender.send(value);
                }
            }),
            None => world.lost.push(Box::new(sender)),
        });
    }

    /// Is never answered: whoever asked waits.
    pub(crate) fn lose(self, world: &mut World) {
        world.lost.push(Box::new(self.sender));
    }
}

impl World {
    /// Does `what` after `delay`.
    pub(crate) fn after(&mut self, delay: Millis, what: impl FnOnce(&mut Self) + Send + 'static) {
        self.sequence += 1;
        self.timers.insert((self.now + delay, self.sequence), Box::new(what));
    }

    /// Notes what happened.
    pub(crate) fn note(&mut self, what: What) {
        self.history.push(self.now, what);
    }

    /// A class of faults was exercised.
    pub(crate) fn cover(&mut self, class: &str) {
        *self.coverage.entry(class.to_owned()).or_default() += 1;
    }

    /// The same, and it belongs into the trace.
    pub(crate) fn fault(&mut self, class: &str, how: &str) {
        self.cover(class);
        self.note(What::Fault(format!("{class} {how}")));
    }

    /// Sends a request from `from` to `to`, where `serve` takes it up. The answer comes through the receiver; a broken
    /// connection closes it; what is lost on the way leaves it open for ever.
    pub(crate) fn call<T: Send + 'static>(
        &mut self,
        from: Site,
        to: Site,
        serve: impl FnOnce(&mut Self, Answer<T>) + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let answer = Answer { from: to, to: from, sender };
        match self.net.message(from, to) {
            Some(travel) => self.after(travel, move |world| {
                if world.net.is_cut(from, to) {
                    answer.lose(world);
                } else {
                    serve(world, answer);
                }
            }),
            None => answer.lose(self),
        }
        receiver
    }

    /// The next step begins.
    pub(crate) fn advance(&mut self) {
        self.now += TICK;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let timer = entry.remove();
            timer(self);
        }
        self.net.pump(self.now);
        self.flush_watches();
    }
}
