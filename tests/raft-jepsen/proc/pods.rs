//! Pods that come one after another, each with a simulated init container that waits for a push.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use testbed::fake_pods::{self, FakePod, simulated_ip};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::receivers::{Push, Reaction, Receiver};

/// Between two pods: a gap in the service is known to this.
const EVERY: Duration = Duration::from_millis(150);
/// A receiver stays this long after it was served: for whoever pushes a second time.
const LINGER: Duration = Duration::from_secs(4);
/// Until the API server is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// One wait for a push.
const LOOK: Duration = Duration::from_millis(10);

/// How an init container behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Takes one push, and refuses each other.
    Ours,
    /// Says 200 and nothing more, and goes on to say so.
    Go,
    /// Takes all pushes there are, and names each: nothing hides what the senders do.
    Promiscuous,
    /// Ours, whose first push comes while it can do nothing with it.
    Refusing,
}

/// Addresses of those that come once all faults are over: beyond all that came before.
const CALM: u16 = 50_000;
/// How many come then.
const CALM_PODS: u16 = 12;

/// One that has been served, and all that came to it.
pub(crate) struct Instance {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) pushes: Vec<Push>,
}

/// When pushes came last, for whoever measures.
#[derive(Clone, Default)]
pub(crate) struct Served {
    pushes: Arc<AtomicU64>,
    waiting: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Served {
    pub(crate) fn count(&self) -> u64 {
        self.pushes.load(Ordering::Relaxed)
    }

    /// Pods that are not through, and what each waits for.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().map(|(pod, step)| format!("{pod}: {step}\n")).collect()
    }

    fn step(&self, pod: &str, step: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.to_owned(), step.to_owned());
    }

    /// The control plane crashes now and then.
    async fn patiently<T, Fut: Future<Output = Result<T>>>(
        &self,
        pod: &str,
        step: &str,
        mut act: impl FnMut() -> Fut,
    ) -> T {
        self.step(pod, step);
        loop {
            match act().await {
                Ok(done) => return done,
                Err(error) => self.step(pod, &format!("{step}: {error:#}")),
            }
            sleep(AGAIN).await;
        }
    }
}

/// See the module.
pub(crate) struct Pods {
    client: Client,
    namespace: &'static str,
    served: Served,
}

impl Pods {
    pub(crate) fn new(client: Client, namespace: &'static str) -> (Served, Self) {
        let served = Served::default();
        (served.clone(), Self { client, namespace, served })
    }

    /// Until `stop`, and then until all have been served.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) -> Result<Vec<Instance>> {
        let mut waiting = FuturesUnordered::new();
        let mut done = Vec::new();
        let mut next = Instant::now();
        for index in 0_u16.. {
            while Instant::now() < next {
                tokio::select! {
                    () = sleep(next.saturating_duration_since(Instant::now())) => {}
                    Some(instance) = waiting.next() => done.push(instance?),
                }
            }
            if *stop.borrow() {
                break;
            }
            next = Instant::now() + EVERY;
            let kind = [Kind::Ours, Kind::Promiscuous, Kind::Go][usize::from(index % 3)];
            waiting.push(self.one(index, kind));
        }
        while let Some(instance) = waiting.next().await {
            done.push(instance?);
        }
        Ok(done)
    }

    /// Some that refuse their first push, once all faults are over: with what they take.
    pub(crate) async fn calm(client: Client, namespace: &'static str) -> Result<Vec<Instance>> {
        let (_, pods) = Self::new(client, namespace);
        let all = (0..CALM_PODS).map(|index| pods.one(CALM + index, Kind::Refusing));
        futures::future::try_join_all(all).await
    }

    /// An API server that dies may have carried out what it never answered.
    async fn create(&self, pod: &FakePod) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        match pods.get_opt(&pod.name).await? {
            Some(created) => Ok(created),
            None => fake_pods::create_pending(&self.client, pod).await,
        }
    }

    async fn one(&self, index: u16, kind: Kind) -> Result<Instance> {
        let script: &[Reaction] = match kind {
            Kind::Ours => &[Reaction::Takes, Reaction::Says(410, "", "")],
            Kind::Refusing => &[Reaction::Says(503, "", ""), Reaction::Takes, Reaction::Says(410, "", "")],
            Kind::Go => &[Reaction::Says(200, "", "")],
            Kind::Promiscuous => &[Reaction::Takes],
        };
        let (name, ip) = (format!("pod-{index}"), simulated_ip(index + 1));
        let receiver = Receiver::start(ip, script).await?;
        let pod = FakePod::asking_for(self.namespace, &name, self.namespace);
        let served = &self.served;
        let created = served.patiently(&name, "to be created", || self.create(&pod)).await;
        let uid = created.metadata.uid.unwrap_or_default();
        let id = format!("containerd://{index:064}");
        served.patiently(&name, "to run", || fake_pods::set_init_running(&self.client, &pod, ip, &id, 0)).await;
        served.step(&name, "a push");
        let takes = usize::from(kind == Kind::Refusing);
        while receiver.pushes().len() <= takes {
            sleep(LOOK).await;
        }
        served.pushes.fetch_add(1, Ordering::Relaxed);
        sleep(LINGER).await;
        let pushes = receiver.pushes();
        let attempt = pushes.get(takes).map(Push::attempt).unwrap_or_default();
        let message = if kind == Kind::Go { String::new() } else { format!("attempt={attempt}") };
        let exit = || fake_pods::set_init_terminated(&self.client, &pod, &id, 0, &message);
        served.patiently(&name, "to exit", exit).await;
        served.patiently(&name, "its application", || fake_pods::set_running(&self.client, &pod, ip, &id)).await;
        served.patiently(&name, "to be deleted", || fake_pods::delete(&self.client, &pod)).await;
        served.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        Ok(Instance { kind, name, uid, pushes: receiver.pushes() })
    }
}
