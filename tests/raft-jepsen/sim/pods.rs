//! Applications' pods: their init containers as they are, and their kubelet, which reports late.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kubernetes_vault::domain::delivery::Answer as PushAnswer;
use kubernetes_vault::domain::ids::{AttemptId, ContainerId, PodRef, PodUid, Timestamp};
use kubernetes_vault::domain::pod::{ContainerState, ContainerStatus, Phase, Pod, Target, Termination, Wish};

use super::vault::Token;
use super::world::{Answer, World};
use crate::history::{Millis, What};
use crate::receivers::{Kind, Receiver, Reply, Taken, Worked};

/// Our init container gives its work up after this: well within the limit of a push, as in production.
const WORK: Millis = 2_500;

/// A promiscuous one goes on for this long after its first push.
const PROMISCUOUS: Millis = 1_500;

/// One instance.
pub(crate) struct Instance {
    pub(crate) receiver: Receiver,
    pub(crate) ip: IpAddr,
    pub(crate) container: String,
    pub(crate) listens: bool,
    pub(crate) ended: Option<(i32, Option<String>)>,
    started: Millis,
    pod: usize,
}

/// One pod.
struct AppPod {
    reference: PodRef,
    kind: Kind,
    ip: IpAddr,
    role: Arc<str>,
    restarts: u32,
    last: Option<Termination>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pods {
    pods: Vec<AppPod>,
    pub(crate) instances: BTreeMap<u64, Instance>,
    by_ip: BTreeMap<IpAddr, u64>,
    free: Vec<IpAddr>,
    next: u64,
    /// Percent of pushes whose connection breaks before the answer is there.
    pub(crate) loses_answers: u64,
    /// The longest that a kubelet takes to report.
    pub(crate) report_lag: Millis,
}

impl Pods {
    /// Who listens at `ip`.
    pub(crate) fn at(&self, ip: IpAddr) -> Option<u64> {
        let instance = *self.by_ip.get(&ip)?;
        self.instances[&instance].listens.then_some(instance)
    }

    /// Instances that still wait for something.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        self.instances.iter().filter(|(_, instance)| instance.ended.is_none()).map(|(id, _)| *id).collect()
    }

    /// Pods whose init container has not ended well yet.
    pub(crate) fn unserved(&self) -> usize {
        self.pods.len() - self.served().len()
    }

    fn served(&self) -> BTreeSet<usize> {
        let well = |instance: &&Instance| matches!(instance.ended, Some((0, _)));
        self.instances.values().filter(well).map(|instance| instance.pod).collect()
    }

    pub(crate) fn describe_unserved(&self) -> Vec<String> {
        let served = self.served();
        let unserved = self.pods.iter().enumerate().filter(|(number, _)| !served.contains(number));
        unserved.map(|(_, pod)| format!("{} {:?} at {}", pod.reference, pod.kind, pod.ip)).collect()
    }
}

impl World {
    /// A pod is started.
    pub(crate) fn start_pod(&mut self, kind: Kind, reuse: bool) {
        let number = self.pods.pods.len();
        let reused = if reuse { self.pods.free.pop() } else { None };
        if reused.is_some() {
            self.fault("IP reuse", "");
        }
        let reference = PodRef {
            namespace: "apps".into(),
            name: format!("app-{number}").into(),
            uid: PodUid::from(format!("app-uid-{number}").as_str()),
        };
        let ip = reused.unwrap_or_else(|| self.new_ip());
        let role = format!("role-{}", number % 3).into();
        self.pods.pods.push(AppPod { reference, kind, ip, role, restarts: 0, last: None });
        self.start_instance(number);
    }

    fn new_ip(&mut self) -> IpAddr {
        self.pods.next += 1;
        let [.., high, low] = u32::try_from(self.pods.next).unwrap_or(u32::MAX).to_be_bytes();
        Ipv4Addr::new(10, 1, high, low).into()
    }

    fn start_instance(&mut self, pod: usize) {
        self.pods.next += 1;
        let id = self.pods.next;
        let AppPod { reference, kind, ip, restarts, .. } = &self.pods.pods[pod];
        let (uid, kind, ip) = (reference.uid.clone(), *kind, *ip);
        let container = format!("containerd://{}-{restarts}", reference.name);
        let receiver = Receiver::new(kind, uid.clone());
        self.note(What::Instance { instance: id, kind, pod: uid, container: container.clone() });
        self.pods
            .instances
            .insert(id, Instance { receiver, ip, container, listens: false, ended: None, started: self.now, pod });
        self.pods.by_ip.insert(ip, id);
        // A kubelet may report "running" before or after it listens.
        let listens_after = self.rng.between(1, 200);
        self.after(listens_after, move |world| {
            if let Some(instance) = world.pods.instances.get_mut(&id).filter(|instance| instance.ended.is_none()) {
                instance.listens = true;
            }
        });
        self.report_later(pod, Some(id));
    }

    /// The kubelet reports how the pod is then; for a pod whose instance has ended and that starts another at once,
    /// nothing is said of the time in between.
    fn report_later(&mut self, pod: usize, running: Option<u64>) {
        let lag = self.rng.between(1, self.pods.report_lag.max(1));
        self.after(lag, move |world| {
            let current = world.pods.by_ip.values().copied().filter(|id| world.pods.instances[id].pod == pod).max();
            // A later start has been reported, or will be.
            if running.is_some() && current != running {
                return;
            }
            let report = world.status(pod, running);
            let now = world.now;
            world.api.report(now, &report);
        });
    }

    fn status(&self, pod: usize, running: Option<u64>) -> Pod {
        let AppPod { reference, ip, role, restarts, last, .. } = &self.pods.pods[pod];
        let instance = running.map(|id| &self.pods.instances[&id]);
        let (phase, state) = match instance {
            Some(Instance { ended: Some((0, message)), container, .. }) => {
                (Phase::Pending, ContainerState::Terminated(termination(container, 0, message.as_deref(), self.now)))
            }
            Some(Instance { container, started, .. }) => {
                let since = Some(told_by_kubelet(*started));
                (Phase::Pending, ContainerState::Running { id: Some(ContainerId::from(container.as_str())), since })
            }
            None => {
                (Phase::Running, ContainerState::Terminated(last.clone().unwrap_or(termination("", 0, None, self.now))))
            }
        };
        let status = ContainerStatus { state, last: if instance.is_some() { last.clone() } else { None } };
        Pod {
            reference: reference.clone(),
            node: "node-1".into(),
            service_account: "default".into(),
            host_network: false,
            deleting: false,
            phase,
            ips: vec![*ip],
            wish: Some(Wish {
                role: Some(role.clone()),
                container: Some("init".into()),
                target: Target::Init { sidecar: false, never_restarts: false, restarts: *restarts, status },
            }),
        }
    }

    /// The instance's process ends. With 0 its pod goes on to its containers; otherwise another instance follows.
    pub(crate) fn end_instance(&mut self, id: u64, code: i32) {
        let Some(instance) = self.pods.instances.get_mut(&id).filter(|instance| instance.ended.is_none()) else {
            return;
        };
        let message = instance.receiver.message().filter(|_| code == 0);
        instance.ended = Some((code, message.clone()));
        instance.listens = false;
        let (pod, container, ip) = (instance.pod, instance.container.clone(), instance.ip);
        self.note(What::InstanceEnded { instance: id, code });
        self.pods.pods[pod].last = Some(termination(&container, code, message.as_deref(), self.now));
        if code == 0 {
            self.pods.free.push(ip);
            if self.rng.chance(50) {
                self.report_later(pod, Some(id));
            }
            let runs_after = self.rng.between(20, 400) + self.pods.report_lag;
            self.after(runs_after, move |world| world.report_later(pod, None));
            return;
        }
        self.pods.pods[pod].restarts += 1;
        if self.rng.chance(40) {
            self.fault("sandbox with a new IP", "");
            self.pods.by_ip.remove(&ip);
            self.pods.free.push(ip);
            self.pods.pods[pod].ip = self.new_ip();
            // Another sandbox: its containers begin anew, and nothing is said of the old ones.
            self.pods.pods[pod].last = None;
        } else {
            self.fault("restart in place, no status in between", "");
        }
        let after = self.rng.between(10, 1_000);
        self.after(after, move |world| world.start_instance(pod));
    }

    /// A push arrives at `instance`.
    pub(crate) fn take_push(
        &mut self,
        id: u64,
        attempt: AttemptId,
        meant_for: PodUid,
        secret: usize,
        answer: Answer<PushAnswer>,
    ) {
        let Some(instance) = self.pods.instances.get_mut(&id).filter(|instance| instance.ended.is_none()) else {
            return;
        };
        let kind = instance.receiver.kind();
        let first = instance.receiver.accepted.is_empty();
        let taken = instance.receiver.push(&attempt, &meant_for);
        self.note(What::Pushed { instance: id, attempt: attempt.clone(), meant_for });
        match taken {
            Taken::Answer(reply) => {
                if kind == Kind::Promiscuous {
                    self.note(What::Accepted { instance: id, attempt });
                    let now = self.now;
                    self.vault.unwrap(secret, now);
                    if first {
                        self.after(PROMISCUOUS, move |world| world.end_instance(id, 0));
                    }
                }
                self.cover(match reply.status {
                    409 => "answer 409",
                    410 => "answer 410",
                    421 => "answer 421",
                    _ => "answer 200",
                });
                answer.send(self, 1, complete(&reply));
            }
            Taken::Work => {
                let breaks = self.rng.chance(self.pods.loses_answers);
                if breaks {
                    self.cover("answer to a push lost");
                }
                self.work(id, attempt, secret, Some(answer).filter(|_| !breaks));
            }
            Taken::AnswerAndWork(reply) => {
                // Its exit races the answer.
                if self.rng.chance(20) {
                    drop(answer);
                    self.cover("Go: exit before the answer");
                } else {
                    answer.send(self, 1, complete(&reply));
                }
                self.work(id, attempt, secret, None);
            }
        }
    }

    /// Looks the token up, unwraps it, logs in.
    fn work(&mut self, id: u64, attempt: AttemptId, secret: usize, answer: Option<Answer<PushAnswer>>) {
        let until = self.now + WORK;
        let takes = self.vault.takes();
        self.after(takes, move |world| {
            if world.vault.sealed {
                return world.worked(id, &attempt, Worked::NotNow, answer);
            }
            let now = world.now;
            match world.vault.unwrap(secret, now) {
                Token::Good => world.log_in(id, attempt, secret, until, answer),
                token => {
                    world.worked(id, &attempt, Worked::TokenRefused { used: token == Token::Used }, answer);
                }
            }
        });
    }

    fn log_in(
        &mut self,
        id: u64,
        attempt: AttemptId,
        secret: usize,
        until: Millis,
        answer: Option<Answer<PushAnswer>>,
    ) {
        let takes = self.vault.takes();
        self.after(takes, move |world| {
            if !world.vault.logs_in(secret) {
                return world.worked(id, &attempt, Worked::TokenRefused { used: false }, answer);
            }
            if !world.vault.sealed && !world.vault.no_logins {
                return world.worked(id, &attempt, Worked::Done, answer);
            }
            if world.vault.no_logins {
                world.cover("login 503 after unwrap");
            }
            if world.now >= until || world.pods.instances.get(&id).is_none_or(|instance| instance.ended.is_some()) {
                return world.worked(id, &attempt, Worked::NotNow, answer);
            }
            world.after(500, move |world| world.log_in(id, attempt, secret, until, answer));
        });
    }

    fn worked(&mut self, id: u64, attempt: &AttemptId, worked: Worked, answer: Option<Answer<PushAnswer>>) {
        // An instance that was killed meanwhile says nothing: its connection breaks.
        let Some(instance) = self.pods.instances.get_mut(&id).filter(|instance| instance.ended.is_none()) else {
            return;
        };
        let (reply, exit) = instance.receiver.worked(attempt, worked);
        if worked == Worked::Done {
            self.note(What::Accepted { instance: id, attempt: attempt.clone() });
        }
        if let Some(answer) = answer {
            self.cover(match reply.status {
                422 => "answer 422",
                503 => "answer 503",
                _ => "answer 200",
            });
            answer.send(self, 1, complete(&reply));
        }
        if let Some(code) = exit {
            // It outlives its work for as long as somebody may still read the answer.
            let most = if self.rng.chance(25) { 2_000 } else { 150 };
            let after = self.rng.between(10, most);
            self.after(after, move |world| world.end_instance(id, code));
        }
    }
}

fn termination(container: &str, exit_code: i32, message: Option<&str>, now: Millis) -> Termination {
    let (id, at) = (Some(ContainerId::from(container)), Some(told_by_kubelet(now)));
    Termination { id, exit_code, at, message: message.map(Into::into) }
}

/// In whole seconds.
fn told_by_kubelet(at: Millis) -> Timestamp {
    Timestamp((super::EPOCH + at) / 1_000 * 1_000)
}

/// The answer as the courier reads it.
fn complete(reply: &Reply) -> PushAnswer {
    PushAnswer::Complete {
        status: reply.status,
        retry_after: None,
        named: reply.named.clone(),
        token_used: reply.token_used,
        text: "".into(),
    }
}
