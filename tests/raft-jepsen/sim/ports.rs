//! The ports of `deliver`, for one leadership of one controller: on the simulated world, with the nemesis at each of
//! the named points, and every step on record.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kubernetes_vault::clock::{Clock, Dice};
use kubernetes_vault::deliver::Ports;
use kubernetes_vault::deliver::ports::*;
use kubernetes_vault::domain::announcement::Announcement;
use kubernetes_vault::domain::delivery::{Answer, VaultTrouble};
use kubernetes_vault::domain::ids::{InstanceKey, PodRef, RoleName, Term, Timestamp};
use kubernetes_vault::domain::ledger::{Accessors, Author, Command, Entry, Reply};
use kubernetes_vault::domain::limits::Limit;
use kubernetes_vault::domain::pod::Pod;
use kubernetes_vault::raft::RaftLedger;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::nemesis::Point;
use super::rng::Rng;
use super::vault::{self, Destroying, TTL_SECONDS, Token};
use super::world::{Shared, Site, TICK};
use crate::history::{What, key_of};

/// The courier's limits: for a dial as in production; a push is 30 s there, and shorter here to spare simulated time.
const DIAL: Duration = Duration::from_secs(1);
const PUSH: Duration = Duration::from_secs(4);

/// For a request to Vault, and to the API server.
const REQUEST: Duration = Duration::from_secs(5);

/// Where a controller is stopped by the nemesis, and where it goes on.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) stop: Notify,
    pub(crate) go_on: Notify,
}

/// One controller's process, as its ports see it.
#[derive(Clone)]
pub(crate) struct Site0 {
    pub(crate) world: Shared,
    pub(crate) n: u8,
    pub(crate) ip: IpAddr,
    pub(crate) skew: i64,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ledger: RaftLedger,
}

/// See the module.
struct Port {
    site: Site0,
    by: Author,
}

/// The ports for the leadership of `by`.
pub(crate) fn ports(site: &Site0, by: Author, rng: Rng) -> Ports {
    let port = Arc::new(Port { site: site.clone(), by });
    let rng = Mutex::new(rng);
    Ports {
        feed: port.clone(),
        issuer: port.clone(),
        courier: port.clone(),
        ledger: port.clone(),
        announcer: port.clone(),
        meter: port.clone(),
        clock: port,
        dice: Dice::loaded(move || rng.lock().unwrap_or_else(PoisonError::into_inner).roll()),
    }
}

impl Site0 {
    /// The nemesis may strike here.
    async fn point(&self, point: Point, before: bool) {
        if self.world.lock().spring(self.n, point, before) {
            self.gate.stop.notify_one();
            self.gate.go_on.notified().await;
        }
    }

    fn me(&self) -> Site {
        Site::Node(self.ip)
    }
}

/// Proposes `command` through `ledger`, on record.
pub(crate) async fn propose(site: &Site0, command: Command) -> Result<Reply, LedgerError> {
    let op = {
        let mut world = site.world.lock();
        world.ops += 1;
        let op = world.ops;
        world.note(What::Proposed { n: site.n, op, command: command.clone() });
        op
    };
    let result = site.ledger.propose(command.clone()).await;
    // An outcome may have been committed elsewhere, and be on its way here.
    let applied = matches!(command, Command::Outcome(_)) || site.ledger.read(key_of(&command)).is_some();
    site.world.lock().note(What::Answered { n: site.n, op, reply: result.clone().ok(), applied });
    result
}

#[async_trait]
impl LedgerPort for Port {
    async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        let point = match &command {
            Command::Claim(_) => Point::Claim,
            Command::Issued(_) => Point::Issued,
            Command::Outcome(_) => Point::Outcome,
        };
        self.site.point(point, true).await;
        if point != Point::Outcome {
            self.site.world.lock().armed.remember(&command);
        }
        let result = propose(&self.site, command).await;
        self.site.point(point, false).await;
        result
    }

    fn read(&self, key: &InstanceKey) -> Option<Entry> {
        self.site.ledger.read(key)
    }

    fn open(&self) -> Vec<(InstanceKey, Entry)> {
        self.site.ledger.open()
    }

    fn holds_lease(&self, term: Term) -> bool {
        let held = self.site.ledger.holds_lease(term);
        self.site.world.lock().note(What::Lease { n: self.site.n, cluster: None, term, held });
        held
    }

    async fn confirm(&self, term: Term) -> Result<bool, LedgerError> {
        self.site.world.lock().cover("an old claim is confirmed");
        self.site.ledger.confirm(term).await
    }
}

#[async_trait]
impl PodFeed for Port {
    fn events(&self) -> BoxStream<'static, PodEvent> {
        let world = self.site.world.clone();
        let id = world.lock().watch(self.site.ip);
        stream::poll_fn(move |context| match world.lock().api.next_event(id, context.waker()) {
            Some(event) => Poll::Ready(Some(event)),
            None => Poll::Pending,
        })
        .boxed()
    }

    async fn read(&self, _namespace: &str, name: &str) -> Result<Option<Pod>, ReadError> {
        let name = name.to_owned();
        let asked = self.site.world.lock().call(self.site.me(), Site::Api, move |world, answer| {
            let found = world.api.pods.values().find(|pod| *pod.reference.name == *name).cloned();
            answer.send(world, TICK, found);
        });
        match timeout(REQUEST, asked).await {
            Ok(Ok(found)) => Ok(found),
            _ => Err(ReadError("it cannot be reached".to_owned())),
        }
    }
}

#[async_trait]
impl SecretIssuer for Port {
    async fn usable(&self) {}

    fn unusable_because(&self) -> String {
        String::new()
    }

    async fn wrap(&self, request: &SecretIdRequest) -> Result<WrappedSecretId, VaultTrouble> {
        self.site.point(Point::Wrap, true).await;
        let attempt = request.attempt.clone();
        let asked = {
            let mut world = self.site.world.lock();
            world.note(What::VaultAsked { n: self.site.n, by: self.by, attempt: attempt.clone() });
            world.call(self.site.me(), Site::Vault, move |world, answer| {
                let takes = world.vault.takes();
                if world.vault.sealed {
                    world.cover("Vault sealed");
                    return answer.send(world, takes, Err(VaultTrouble::Sealed));
                }
                let now = world.now;
                let number = world.vault.make(attempt.clone(), now);
                world.note(What::VaultIssued { attempt: attempt.clone(), accessor: vault::accessor(number) });
                if world.vault.loses_this_answer() {
                    world.cover("answer lost after creation");
                    world.note(What::VaultAnswerLost { attempt });
                    return answer.lose(world);
                }
                answer.send(world, takes, Ok(number));
            })
        };
        let number = match timeout(REQUEST, asked).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(VaultTrouble::Unreachable("the connection broke".to_owned())),
            Err(_) => Err(VaultTrouble::TimedOut),
        }?;
        self.site.point(Point::Wrap, false).await;
        Ok(WrappedSecretId {
            token: SecretString::from(format!("token-{number}")),
            creation_time: jiff::Timestamp::UNIX_EPOCH,
            ttl_seconds: TTL_SECONDS,
            accessors: Accessors {
                wrapping: format!("wrapping-{number}").into(),
                secret_id: Some(vault::accessor(number).into()),
            },
        })
    }

    async fn neutralise(&self, _role: &RoleName, accessors: &Accessors, token: Option<SecretString>) -> Neutralised {
        let _neutralising = Neutralising::begin(&self.site.world);
        let name = accessors.secret_id.as_deref().unwrap_or_default().to_owned();
        let number = vault::number_in(&name);
        let mut how = Neutralised::LeftToExpire;
        for _ in 0..3 {
            let Some(number) = number else { break };
            match self.destroy(number).await {
                Some(Destroying::Works) => how = Neutralised::Destroyed,
                Some(Destroying::Forbidden) => {}
                Some(Destroying::Broken) | None => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
            break;
        }
        let held = token.and_then(|token| vault::number_in(token.expose_secret()));
        if let (Neutralised::LeftToExpire, Some(number)) = (how, held) {
            let mut world = self.site.world.lock();
            let now = world.now;
            if !world.vault.sealed && world.vault.unwrap(number, now) == Token::Good {
                how = Neutralised::Unwrapped;
            }
        }
        let done = how != Neutralised::LeftToExpire;
        self.site.world.lock().note(What::Neutralise { n: self.site.n, accessor: name, done });
        how
    }

    fn address(&self) -> Arc<VaultAddress> {
        Arc::new(VaultAddress { address: "http://vault:8200".into(), ca_bundle: None, namespace: None })
    }
}

/// Counts as long as it lives: a request that was lost is tried again only when its time is up.
struct Neutralising(Shared);

impl Neutralising {
    fn begin(world: &Shared) -> Self {
        world.lock().neutralising += 1;
        Self(world.clone())
    }
}

impl Drop for Neutralising {
    fn drop(&mut self) {
        self.0.lock().neutralising -= 1;
    }
}

impl Port {
    async fn destroy(&self, number: usize) -> Option<Destroying> {
        let asked = self.site.world.lock().call(self.site.me(), Site::Vault, move |world, answer| {
            let how = if world.vault.sealed { Destroying::Broken } else { world.vault.destroying };
            match how {
                Destroying::Works => world.vault.destroy(number),
                Destroying::Forbidden => world.cover("destroy 403"),
                Destroying::Broken => world.cover("destroy 500"),
            }
            let takes = world.vault.takes();
            answer.send(world, takes, how);
        });
        timeout(REQUEST, asked).await.ok()?.ok()
    }
}

/// A connection to an instance.
struct Wired {
    site: Site0,
    by: Author,
    ip: IpAddr,
    instance: u64,
}

#[async_trait]
impl Courier for Port {
    async fn dial(&self, addresses: &[IpAddr]) -> Result<Box<dyn Line>, DialError> {
        self.site.point(Point::Dial, true).await;
        for ip in addresses.iter().copied() {
            let dialled = self.site.world.lock().call(self.site.me(), Site::Apps, move |world, answer| {
                let listening = world.pods.at(ip);
                answer.send(world, TICK, listening);
            });
            if let Ok(Ok(Some(instance))) = timeout(DIAL, dialled).await {
                self.site.point(Point::Dial, false).await;
                return Ok(Box::new(Wired { site: self.site.clone(), by: self.by, ip, instance }));
            }
        }
        Err(DialError("nobody answers".to_owned()))
    }
}

#[async_trait]
impl Line for Wired {
    fn peer(&self) -> IpAddr {
        self.ip
    }

    async fn push(self: Box<Self>, request: &PushRequest) -> Answer {
        let Self { site, by, ip, instance } = *self;
        let (attempt, pod) = (request.attempt.clone(), request.pod.uid.clone());
        site.point(Point::Send, true).await;
        let secret = vault::number_in(request.secret.token.expose_secret());
        let sent = {
            let mut world = site.world.lock();
            world.note(What::PushBegun { n: site.n, by, attempt: attempt.clone(), to: ip, pod: pod.clone() });
            let attempt = attempt.clone();
            world.call(site.me(), Site::Apps, move |world, answer| {
                // Dropped, the connection is broken: the instance that was dialled is not there any more.
                if let (Some(secret), true) = (secret, world.pods.at(ip) == Some(instance)) {
                    world.take_push(instance, attempt, pod, secret, answer);
                }
            })
        };
        site.point(Point::Send, false).await;
        let answer = match timeout(PUSH, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Incomplete("the connection broke".into()),
            Err(_) => Answer::Incomplete("none in time".into()),
        };
        let status = match &answer {
            Answer::Complete { status, .. } => Some(*status),
            Answer::Incomplete(_) => None,
        };
        site.world.lock().note(What::PushEnded { n: site.n, attempt, status });
        site.point(Point::Answer, false).await;
        answer
    }
}

impl Announcer for Port {
    fn announce(&self, pod: &PodRef, what: Announcement) {
        let mut world = self.site.world.lock();
        if matches!(what, Announcement::PushRefused(_) | Announcement::PodRefused(_)) {
            world.note(What::Terminal { pod: pod.uid.clone(), reason: what.reason() });
        }
        if matches!(what, Announcement::AddressShared(_)) {
            world.cover("two pods show one address");
        }
    }
}

impl Meter for Port {
    fn secret_id_requested(&self, _role: &RoleName, _trouble: Option<&VaultTrouble>) {}
    fn pushed(&self, _role: &RoleName, _answer: &Answer) {}
    fn delivered(&self, _after: Duration) {}
    fn happened(&self, what: Incident, times: u64) {
        if what != Incident::Unreached {
            let what = format!("{} x {times}", what.label());
            self.site.world.lock().note(What::Counted { n: self.site.n, what });
        }
    }
    fn neutralised(&self, _how: Neutralised) {}
    fn limited(&self, _limit: Limit) {}
    fn load(&self, _queued: usize, _in_flight: usize) {}
}

impl Clock for Port {
    fn now(&self) -> Timestamp {
        let now = super::EPOCH + self.site.world.lock().now;
        Timestamp(now.saturating_add_signed(self.site.skew))
    }
}
