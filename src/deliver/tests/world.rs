//! A scripted world: a feed that the test writes, a Vault, a network and a ledger that do as they are told, and a
//! trace of all that was asked of them, in order.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Dice};
use crate::deliver::explain::Questions;
use crate::deliver::ports::*;
use crate::deliver::{Ports, Service};
use crate::domain::announcement::Announcement;
use crate::domain::delivery::{Answer, VaultTrouble};
use crate::domain::ids::{BootId, InstanceKey, RoleName, Term, Timestamp};
use crate::domain::ledger::{Accessors, Author, Command, Entry, Ledger, Reply};
use crate::domain::limits::{Limit, Limits};
use crate::domain::pod::Pod;

/// What was asked of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::deliver) enum Did {
    Claim,
    Dial(IpAddr),
    Wrap(String),
    Issued,
    Push(IpAddr, String),
    HungUp(IpAddr),
    Outcome,
    Neutralise(String, bool),
    Read(String),
    Announce(&'static str),
    Incident(Incident),
    Delivered,
    Limited(Limit),
}

/// How the receiver at an address behaves.
#[derive(Clone, Debug)]
pub(in crate::deliver) enum Receiver {
    /// Nobody listens.
    Silent,
    /// The answers to one push after another; the last one is repeated.
    Answers(VecDeque<Answer>),
    /// It answers 200 after that long.
    TakesAfter(Duration),
    /// It takes the push and never answers.
    Hangs,
    /// Whoever pushes to it panics.
    Panics,
}

#[derive(Default)]
pub(in crate::deliver) struct State {
    pub(in crate::deliver) trace: Vec<Did>,
    pub(in crate::deliver) receivers: HashMap<IpAddr, Receiver>,
    /// What Vault says, by role; `None`: it issues.
    pub(in crate::deliver) trouble: HashMap<String, VaultTrouble>,
    pub(in crate::deliver) sealed: bool,
    /// Why the checks of our token have not passed yet.
    pub(in crate::deliver) not_logged_in: Option<&'static str>,
    pub(in crate::deliver) found: HashMap<String, Pod>,
    pub(in crate::deliver) ledger: Ledger,
    pub(in crate::deliver) lease_lost: bool,
    /// So many proposals of outcomes are still to come to nothing.
    pub(in crate::deliver) outcomes_lost: usize,
    /// A majority does not answer any more, once a claim is made.
    pub(in crate::deliver) no_majority: bool,
    pub(in crate::deliver) wraps: usize,
}

#[derive(Clone)]
pub(in crate::deliver) struct World {
    pub(in crate::deliver) state: Arc<Mutex<State>>,
    events: mpsc::Sender<PodEvent>,
    feed: Arc<Mutex<Option<mpsc::Receiver<PodEvent>>>>,
    changed: Arc<tokio::sync::Notify>,
    started: Instant,
    pub(in crate::deliver) ended: CancellationToken,
    pub(in crate::deliver) term: Term,
    pub(super) limits: Limits,
}

impl World {
    pub(in crate::deliver) fn new() -> Self {
        let (events, feed) = mpsc::channel(10_000);
        Self {
            state: Arc::default(),
            events,
            feed: Arc::new(Mutex::new(Some(feed))),
            changed: Arc::default(),
            started: Instant::now(),
            ended: CancellationToken::new(),
            term: Term(1),
            limits: Limits::default(),
        }
    }

    /// The same under other limits than the default ones.
    pub(super) fn within(limits: Limits) -> Self {
        Self { limits, ..Self::new() }
    }

    /// The same world under the next leader: the ledger stays, all else of the service is new.
    pub(in crate::deliver) fn next_leader(&self) -> Self {
        let (events, feed) = mpsc::channel(10_000);
        Self {
            events,
            feed: Arc::new(Mutex::new(Some(feed))),
            ended: CancellationToken::new(),
            term: Term(self.term.0 + 1),
            ..self.clone()
        }
    }

    pub(in crate::deliver) fn start(&self) -> JoinHandle<()> {
        tokio::spawn(self.service().run())
    }

    /// The same, and it answers what is asked of it.
    pub(in crate::deliver) fn start_answering(&self, questions: Questions) -> JoinHandle<()> {
        tokio::spawn(self.service().answering(questions).run())
    }

    fn service(&self) -> Service {
        let world = Arc::new(self.clone());
        let ports = Ports {
            feed: world.clone(),
            issuer: world.clone(),
            courier: world.clone(),
            ledger: world.clone(),
            announcer: world.clone(),
            meter: world.clone(),
            clock: world.clone(),
            dice: Dice::loaded({
                let rolls = std::sync::atomic::AtomicU64::new(1);
                move || rolls.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            }),
        };
        let author = Author { term: self.term, boot: BootId(self.term.0) };
        Service::new(ports, Leadership { author, ended: self.ended.clone() }, self.limits)
    }

    pub(in crate::deliver) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap())
    }

    /// The checks of our token pass.
    pub(in crate::deliver) fn log_in(&self) {
        self.with(|state| state.not_logged_in = None);
        self.changed.notify_waiters();
    }

    fn did(&self, what: Did) {
        self.with(|state| state.trace.push(what));
        self.changed.notify_waiters();
    }

    pub(in crate::deliver) async fn say(&self, event: PodEvent) {
        self.events.send(event).await.unwrap();
    }

    pub(in crate::deliver) async fn see(&self, pod: &Pod) {
        self.say(PodEvent::Seen(pod.clone().into())).await;
    }

    pub(in crate::deliver) fn receiver(&self, address: &str, receiver: Receiver) {
        self.with(|state| state.receivers.insert(address.parse().unwrap(), receiver));
    }

    pub(in crate::deliver) fn answers(&self, address: &str, answers: impl IntoIterator<Item = Answer>) {
        self.receiver(address, Receiver::Answers(answers.into_iter().collect()));
    }

    pub(in crate::deliver) fn trace(&self) -> Vec<Did> {
        self.with(|state| state.trace.clone())
    }

    pub(in crate::deliver) fn count(&self, wanted: impl Fn(&Did) -> bool) -> usize {
        self.trace().iter().filter(|did| wanted(did)).count()
    }

    pub(in crate::deliver) fn pushes(&self) -> usize {
        self.count(|did| matches!(did, Did::Push(..)))
    }

    pub(in crate::deliver) fn wraps(&self) -> usize {
        self.count(|did| matches!(did, Did::Wrap(_)))
    }

    pub(in crate::deliver) fn announced(&self, reason: &str) -> usize {
        self.count(|did| matches!(did, Did::Announce(said) if *said == reason))
    }

    /// Waits (in simulated time) until the trace satisfies `done`.
    pub(in crate::deliver) async fn until(&self, what: &str, done: impl Fn(&World) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if done(self) {
                    return;
                }
                changed.await;
            }
        };
        if timeout(Duration::from_secs(600), wait).await.is_err() {
            panic!("never: {what}\n{:#?}", self.trace());
        }
    }

    /// Lets simulated time pass.
    pub(in crate::deliver) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

#[async_trait]
impl PodFeed for World {
    fn events(&self) -> BoxStream<'static, PodEvent> {
        let feed = self.feed.lock().unwrap().take().expect("one stream a leader");
        stream::unfold(feed, |mut feed| async move { feed.recv().await.map(|event| (event, feed)) }).boxed()
    }

    async fn read(&self, _namespace: &str, name: &str) -> Result<Option<Pod>, ReadError> {
        self.did(Did::Read(name.to_owned()));
        Ok(self.with(|state| state.found.get(name).cloned()))
    }
}

#[async_trait]
impl SecretIssuer for World {
    async fn usable(&self) {
        loop {
            let changed = self.changed.notified();
            if self.with(|state| state.not_logged_in.is_none()) {
                return;
            }
            changed.await;
        }
    }

    fn unusable_because(&self) -> String {
        self.with(|state| state.not_logged_in.unwrap_or_default().to_owned())
    }

    async fn wrap(&self, request: &SecretIdRequest) -> Result<WrappedSecretId, VaultTrouble> {
        self.did(Did::Wrap(request.role.to_string()));
        let number = self.with(|state| {
            if state.sealed {
                return Err(VaultTrouble::Sealed);
            }
            if let Some(trouble) = state.trouble.get(request.role.as_str()) {
                return Err(trouble.clone());
            }
            state.wraps += 1;
            Ok(state.wraps)
        })?;
        Ok(WrappedSecretId {
            token: SecretString::from(format!("token-{number}")),
            creation_time: jiff::Timestamp::UNIX_EPOCH,
            ttl_seconds: 60,
            accessors: Accessors {
                wrapping: format!("wrapping-{number}").into(),
                secret_id: Some(format!("secret-{number}").into()),
            },
        })
    }

    async fn neutralise(&self, _role: &RoleName, accessors: &Accessors, token: Option<SecretString>) -> Neutralised {
        let name = accessors.secret_id.as_deref().unwrap_or_default().to_owned();
        self.did(Did::Neutralise(name, token.is_some()));
        Neutralised::Destroyed
    }

    fn address(&self) -> Arc<VaultAddress> {
        Arc::new(VaultAddress { address: "http://vault:8200".into(), ca_bundle: None, namespace: None })
    }
}

#[async_trait]
impl Courier for World {
    async fn dial(&self, addresses: &[IpAddr]) -> Result<Box<dyn Line>, DialError> {
        for address in addresses {
            self.did(Did::Dial(*address));
            let receiver = self.with(|state| state.receivers.get(address).cloned());
            if !matches!(receiver, None | Some(Receiver::Silent)) {
                return Ok(Box::new(FakeLine { world: self.clone(), address: *address }));
            }
        }
        Err(DialError("connection refused".into()))
    }
}

struct FakeLine {
    world: World,
    address: IpAddr,
}

impl Drop for FakeLine {
    fn drop(&mut self) {
        self.world.did(Did::HungUp(self.address));
    }
}

#[async_trait]
impl Line for FakeLine {
    fn peer(&self) -> IpAddr {
        self.address
    }

    async fn push(self: Box<Self>, request: &PushRequest) -> Answer {
        let token = request.secret.token.expose_secret().to_owned();
        self.world.did(Did::Push(self.address, token));
        let panics = self.world.with(|state| matches!(state.receivers.get(&self.address), Some(Receiver::Panics)));
        assert!(!panics, "a worker's bug");
        if let Some(Receiver::TakesAfter(while_it_works)) =
            self.world.with(|state| state.receivers.get(&self.address).cloned())
        {
            tokio::time::sleep(while_it_works).await;
            return status(200);
        }
        let receiver = self.world.with(|state| match state.receivers.get_mut(&self.address) {
            Some(Receiver::Answers(answers)) if answers.len() > 1 => answers.pop_front(),
            Some(Receiver::Answers(answers)) => answers.front().cloned(),
            _ => None,
        });
        match receiver {
            Some(Answer::Complete { status, retry_after, named: Some(_), token_used, text }) if status == 200 => {
                Answer::Complete { status, retry_after, named: Some(request.attempt.clone()), token_used, text }
            }
            Some(answer) => answer,
            None => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Answer::Incomplete("none within 30 s".into())
            }
        }
    }
}

#[async_trait]
impl LedgerPort for World {
    async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        let did = match &command {
            Command::Claim(_) => Did::Claim,
            Command::Issued(_) => Did::Issued,
            Command::Outcome(_) => Did::Outcome,
        };
        if matches!(command, Command::Outcome(_))
            && self.with(|state| state.outcomes_lost.checked_sub(1).map(|left| state.outcomes_lost = left).is_some())
        {
            return Err(LedgerError("a majority does not answer".into()));
        }
        if !matches!(command, Command::Claim(_)) && self.with(|state| state.no_majority) {
            return Err(LedgerError("a majority does not answer".into()));
        }
        let term = self.term;
        let reply = self.with(|state| state.ledger.apply(&command, term));
        self.did(did);
        Ok(reply)
    }

    fn read(&self, key: &InstanceKey) -> Option<Entry> {
        self.with(|state| state.ledger.get(key).cloned())
    }

    fn open(&self) -> Vec<(InstanceKey, Entry)> {
        self.with(|state| state.ledger.open().map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn holds_lease(&self, _term: Term) -> bool {
        self.with(|state| !state.lease_lost)
    }

    async fn confirm(&self, _term: Term) -> Result<bool, LedgerError> {
        Ok(self.with(|state| !state.lease_lost))
    }
}

impl Announcer for World {
    fn announce(&self, _pod: &crate::domain::ids::PodRef, what: Announcement) {
        self.did(Did::Announce(what.reason()));
    }
}

impl Meter for World {
    fn secret_id_requested(&self, _role: &RoleName, _trouble: Option<&VaultTrouble>) {}
    fn pushed(&self, _role: &RoleName, _answer: &Answer) {}
    fn delivered(&self, _after: Duration) {
        self.did(Did::Delivered);
    }
    fn happened(&self, what: Incident, _times: u64) {
        if what != Incident::Unreached {
            self.did(Did::Incident(what));
        }
    }
    fn neutralised(&self, _how: Neutralised) {}
    fn limited(&self, limit: Limit) {
        self.did(Did::Limited(limit));
    }
    fn load(&self, _queued: usize, _in_flight: usize) {}
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.started.elapsed().as_millis()).unwrap())
    }
}

/// A complete answer with that status; a 200 names the attempt, as ours does.
pub(in crate::deliver) fn status(status: u16) -> Answer {
    let named = (status == 200).then(|| crate::domain::ids::AttemptId::from("filled in by the line"));
    Answer::Complete { status, retry_after: None, named, token_used: false, text: "".into() }
}

/// A 200 as the Go init container sends it: before its work, with no body.
pub(in crate::deliver) fn bare_200() -> Answer {
    Answer::Complete { status: 200, retry_after: None, named: None, token_used: false, text: "".into() }
}

pub(in crate::deliver) fn cut() -> Answer {
    Answer::Incomplete("the connection broke".into())
}
