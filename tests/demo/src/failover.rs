//! The leader goes in the middle of ten deliveries: once for good, once only out of its peers' sight.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testbed::{Signal, Testbed};
use tokio::sync::oneshot;

use crate::follow::{Follower, Seen};
use crate::records::{self, Records, Served};
use crate::replicas::{self, Watch};
use crate::sample;
use crate::screen::{Screen, millis, signed_millis, table};
use crate::setup::{CONTAINER, NAMESPACE};
use crate::shell::Shell;

/// Pods that start at once.
const PODS: usize = 10;
/// So many of them have their token when the leader goes.
const SERVED_BEFORE: usize = 2;
/// `raft.electionMax`, which is the lease too.
const LEASE: Duration = Duration::from_millis(300);
/// The last push that began under the lease may end this much later: an init container talks to Vault meanwhile.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// Where all pods are served before the leader has gone, there is no gap to be seen: it is done once more, so often at
/// most. On an idle machine it happens seldom, on a busy one now and then.
const TRIES: usize = 3;

/// What becomes of the leader.
#[derive(Clone, Copy)]
enum Disturbance {
    Kill,
    Cut,
}

impl std::fmt::Display for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Cut => "cut",
        })
    }
}

/// Where everything happens.
pub(crate) struct Stage<'a> {
    pub(crate) bed: &'a Testbed,
    pub(crate) shell: &'a Shell,
    pub(crate) screen: &'a Screen,
}

#[expect(clippy::disallowed_methods, reason = "compared with the times of files, which the same clock has made")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Kills the leader's process. Returns the time without deliveries.
pub(crate) async fn kill(stage: &Stage<'_>, pods: &mut Follower) -> Result<Duration> {
    let Stage { bed, screen, .. } = *stage;
    screen.step("Kill the leader in the middle of ten deliveries");
    let Disturbed { leader, at, records } = disturb(stage, pods, Disturbance::Kill).await?;
    let gap = show(screen, &records, leader, at, Disturbance::Kill)?;
    let after = replicas::agreement(bed).await?;
    screen.milestone("the node has started the dead one anew, and it follows:");
    screen.note(&format!("three voters, one leader: {}, term {}", after.leader, after.term));
    screen.note("Each replica says how it is (the node here answers no kubectl exec; the demo runs it in the pod):");
    replicas::show_status(bed, screen, after.leader).await?;
    screen.done(&format!("all ten served, each once; {} without deliveries", millis(gap)));
    Ok(gap)
}

/// Cuts the links between the leader and its peers. Returns the time without deliveries.
pub(crate) async fn cut(stage: &Stage<'_>, pods: &mut Follower) -> Result<Duration> {
    let Stage { bed, screen, .. } = *stage;
    screen.step("Cut the leader off from its peers in the middle of ten deliveries");
    screen.note("It still reaches Kubernetes, Vault and all pods: only its links to the other two are cut.");
    let Disturbed { leader, at, records } = disturb(stage, pods, Disturbance::Cut).await?;
    let gap = show(screen, &records, leader, at, Disturbance::Cut)?;
    show_silence(screen, &records, leader, at)?;
    replicas::show_status(bed, screen, leader).await?;
    replicas::links(bed, leader)?.0.let_packets_through().await?;
    screen.milestone("the links are mended");
    let mended = Instant::now();
    let after = replicas::agreement(bed).await?;
    let healed = millis(mended.elapsed());
    screen.milestone(&format!("{healed} later: three voters, one leader: {}, term {}", after.leader, after.term));
    screen.done(&format!("all ten served, each once; {} without deliveries", millis(gap)));
    Ok(gap)
}

/// Ten deliveries, and what befell the leader in the middle of them.
struct Disturbed {
    leader: &'static str,
    at: SystemTime,
    records: Records,
}

/// Disturbs in the middle of ten deliveries, once more where all ten were served before.
async fn disturb(stage: &Stage<'_>, pods: &mut Follower, what: Disturbance) -> Result<Disturbed> {
    let Stage { bed, screen, .. } = *stage;
    let mut tries = 1..TRIES;
    loop {
        let leader = replicas::agreement(bed).await?.leader;
        let (network, peers) = replicas::links(bed, leader)?;
        let act = async {
            let at = now();
            match what {
                Disturbance::Kill => {
                    bed.node_of(NAMESPACE, leader)?.signal(NAMESPACE, leader, CONTAINER, Signal::KILL)?;
                    screen.milestone(&format!("kill -9: {leader}, the leader, is dead"));
                }
                Disturbance::Cut => {
                    network.part_from(&peers).await?;
                    screen.milestone(&format!("cut: {leader}, the leader, is alone"));
                }
            }
            Ok(at)
        };
        let unused = records::secret_ids(bed).await?;
        let (at, seen) = ten_pods(stage, pods, leader, act).await?;
        let records = records::collect(bed, &seen, &unused).await?;
        if first_of_next(&records, leader, at).is_some() || tries.next().is_none() {
            return Ok(Disturbed { leader, at, records });
        }
        if matches!(what, Disturbance::Cut) {
            network.let_packets_through().await?;
        }
        screen.note(&format!("All ten were served before the {what}. Once more."));
    }
}

/// Starts ten pods, and disturbs when some of them have their token. Returns once all of them run.
async fn ten_pods(
    stage: &Stage<'_>,
    pods: &mut Follower,
    leader: &str,
    disturb: impl Future<Output = Result<SystemTime>>,
) -> Result<(SystemTime, Vec<Seen>)> {
    let Stage { bed, shell, screen } = *stage;
    let api: Api<Pod> = Api::namespaced(bed.client(), sample::NAMESPACE);
    let known: Vec<String> = api.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    let deployments: Api<Deployment> = Api::namespaced(bed.client(), sample::NAMESPACE);
    let deployment = deployments.get(sample::DEPLOYMENT).await?;
    let now = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let scale = format!("kubectl scale deployment sample-app --replicas={}", usize::try_from(now)? + PODS);
    screen.command(&scale);
    let (some_served, is_time) = oneshot::channel();
    let mut some_served = Some(some_served);
    let mut served = 0;
    let mut told = 0;
    let follow = pods.until_running(
        PODS,
        |pod| !known.contains(&pod.name_any()),
        |before, now| {
            served += usize::from(before.served.is_none() && now.served.is_some());
            if served >= SERVED_BEFORE
                && let Some(some_served) = some_served.take()
            {
                screen.milestone(&format!("{PODS} pods start; {served} have their token"));
                // Nobody waits for this only where something else has failed.
                let _ = some_served.send(());
            }
            told += usize::from(before.running.is_none() && now.running.is_some());
            if told == PODS {
                screen.milestone(&format!("all {PODS} pods run"));
            }
            Ok(())
        },
    );
    let watch = Watch::all_but(bed, leader)?;
    let disturbed = async {
        is_time.await.context("the pods were not served")?;
        let at = disturb.await?;
        let started = Instant::now();
        let (name, seen) = watch.next_leader().await?;
        screen.milestone(&format!("{} later: {name} leads", millis(seen - started)));
        Ok(at)
    };
    let scaled = async { shell.run(&scale).await.map(drop) };
    let (seen, at, ()) = tokio::try_join!(follow, disturbed, scaled)?;
    Ok((at, seen))
}

/// What the next leader has served first.
fn first_of_next<'a>(records: &'a Records, old: &str, since: SystemTime) -> Option<&'a Served> {
    records.served.iter().find(|one| one.at > since && one.by.as_deref().is_some_and(|by| by != old))
}

/// Shows who served whom, and when. Returns the time from the kill, or the cut, to the next accepted push.
fn show(screen: &Screen, records: &Records, old: &str, since: SystemTime, what: Disturbance) -> Result<Duration> {
    let served = &records.served;
    let next = first_of_next(records, old, since);
    let next = next.context("all pods were served before another replica led: there is no gap to be seen")?;
    let gap = next.at.duration_since(since)?;
    screen.note(&format!("When each pod had its token, counted from the {what}, and from whom:"));
    let mut rows = vec![["    TIME", "POD", "SERVED BY"].map(str::to_owned)];
    // What the old leader pushed last, nobody tells. From the next leader on each push is told.
    let last_words = |one: &Served| one.by.is_none() && one.at < next.at;
    for one in served {
        let unknown = if last_words(one) { format!("{old} *") } else { "(no Event yet)".to_owned() };
        rows.push([signed_millis(one.at, since), one.pod.clone(), one.by.clone().unwrap_or(unknown)]);
    }
    screen.verbatim(&table(&rows));
    if served.iter().any(last_words) {
        screen.note(match what {
            Disturbance::Kill => "* Pushed before it died; its Event died with it. Nobody served this pod again.",
            Disturbance::Cut => {
                "* Pushed within its lease; it tells once the ledger has it. Nobody served this pod again."
            }
        });
    }
    screen.milestone(&format!("{} from the {what} to the next accepted push", millis(gap)));
    let count = served.len();
    let events = served.iter().filter(|one| one.by.is_some()).count();
    let unused = match records.unused {
        0 => "no secret_id is left over".to_owned(),
        1 => "1 secret_id is left over: it reached nobody, and its TTL ends it".to_owned(),
        some => format!("{some} secret_ids are left over: they reached nobody, and their TTL ends them"),
    };
    screen.note("Was each pod served exactly once? Pods, Vault and Events name the same attempts:");
    screen.output(&table(&[
        ["pods".to_owned(), format!("{count} tokens, one in each pod")],
        ["Vault".to_owned(), format!("{count} logins, one for each pod, with these tokens")],
        [String::new(), unused],
        ["Events".to_owned(), format!("{events} deliveries, none twice")],
    ]));
    Ok(gap)
}

/// Shows that the old leader has not pushed after its lease.
fn show_silence(screen: &Screen, records: &Records, old: &str, since: SystemTime) -> Result<()> {
    let by_old = |one: &&Served| one.by.as_deref() == Some(old);
    let last = records.served.iter().rfind(by_old).context("the old leader served nobody")?;
    let late = last.at.duration_since(since).unwrap_or_default();
    ensure!(late < LEASE + LAST_PUSH, "{old} still served pod {} {} after it was cut off", last.pod, millis(late));
    screen.note(&format!(
        "{old} lost its lease {} after the cut. The last pod that it served: {}. What it says now:",
        millis(LEASE),
        signed_millis(last.at, since).trim_start()
    ));
    Ok(())
}
