//! Who was served by whom, how often, and when: told by the pods, by Vault and by Events, each for itself.
//!
//! - The pod: the file that its init container left (its time is that of the delivery), the token's accessor in it,
//!   and the attempt that the init container names when it ends.
//! - Vault: every token that came from a login, with the pod and the attempt for which the `secret_id` was made.
//! - Events: the controller that heard the init container say yes.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::{Testbed, poll_until};
use tokio::time::timeout;

use crate::follow::Seen;
use crate::sample::{CONTAINER, DELIVERED, NAMESPACE};

const TOKEN_FILE: &str = "/var/run/secrets/boostport.com/vault-token";
const ROLE: &str = "sample-app";
/// Events are written after the fact. One whose author was killed never comes.
const EVENTS_LIMIT: Duration = Duration::from_millis(1500);
/// What was made in vain is destroyed once the fate of its push is known. What the dead one had asked Vault for and
/// told nobody of is not.
const DESTROY_LIMIT: Duration = Duration::from_millis(1500);

/// One pod that has its token.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) pod: String,
    /// When its token was written.
    pub(crate) at: SystemTime,
    /// Who wrote the Event, if there is one.
    pub(crate) by: Option<String>,
}

/// What all three say together.
pub(crate) struct Records {
    /// In the order in which they were served.
    pub(crate) served: Vec<Served>,
    /// `secret_id`s that Vault has now and had not before: made, and used by nobody.
    pub(crate) unused: usize,
}

/// Collects the records of these pods; an error where one of them was served twice, or not at all. `before`: the
/// `secret_id`s that Vault had.
pub(crate) async fn collect(bed: &Testbed, pods: &[Seen], before: &[String]) -> Result<Records> {
    let (events, unused) = tokio::try_join!(events(bed, pods), unused(bed, before))?;
    let logins = logins(bed).await?;
    let mut served = Vec::new();
    let left = try_join_all(pods.iter().map(|seen| left(bed, seen.name()))).await?;
    for (seen, (at, accessor)) in pods.iter().zip(left) {
        let pod = seen.name();
        let uid = seen.pod.uid().unwrap_or_default();
        let of_pod: Vec<&Login> = logins.iter().filter(|login| login.pod == uid).collect();
        ensure!(of_pod.len() == 1, "Vault knows of {} logins of pod {pod}", of_pod.len());
        ensure!(of_pod[0].accessor == accessor, "pod {pod} holds another token than Vault gave to it");
        let attempt = named_attempt(&seen.pod).with_context(|| format!("pod {pod} does not name its attempt"))?;
        ensure!(of_pod[0].attempt == attempt, "pod {pod} names another attempt than its login in Vault");
        let of_pod: Vec<&Event> = events.iter().filter(|event| is_about(event, &pod)).collect();
        ensure!(of_pod.len() <= 1, "{} Events say that pod {pod} was served", of_pod.len());
        let event = of_pod.first();
        let note = event.and_then(|event| event.note.as_deref());
        ensure!(note.is_none_or(|note| note.contains(&attempt)), "the Event of pod {pod} names another attempt");
        let by = event.and_then(|event| event.reporting_instance.clone());
        served.push(Served { pod, at, by });
    }
    served.sort_by_key(|served| served.at);
    Ok(Records { served, unused })
}

/// When the token was written, and its accessor.
async fn left(bed: &Testbed, pod: String) -> Result<(SystemTime, String)> {
    let script = format!("stat -c %.9Y {TOKEN_FILE} && cat {TOKEN_FILE}");
    let output = bed.node_of(NAMESPACE, &pod)?.exec(NAMESPACE, &pod, CONTAINER, &["sh", "-c", &script]).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (time, token) = text.split_once('\n').with_context(|| format!("pod {pod} has no token"))?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(time.parse().context("stat tells no time")?);
    // Never shown, not even in an error.
    let token: Value = serde_json::from_str(token).ok().context("the token file is not JSON")?;
    Ok((at, token["accessor"].as_str().unwrap_or_default().to_owned()))
}

/// What the init container wrote when it ended: `attempt=<id>`.
fn named_attempt(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.init_container_statuses.as_ref()?.first()?;
    let message = status.state.as_ref()?.terminated.as_ref()?.message.as_deref()?;
    message.trim().strip_prefix("attempt=").map(str::to_owned)
}

/// A token that came from a login with the sample's AppRole.
struct Login {
    accessor: String,
    pod: String,
    attempt: String,
}

async fn logins(bed: &Testbed) -> Result<Vec<Login>> {
    let vault = bed.vault()?;
    let looked_up = vault.list("auth/token/accessors").await?.into_iter().map(|accessor| async {
        let answer = vault.write("auth/token/lookup-accessor", &json!({"accessor": accessor})).await;
        // Others come and go meanwhile.
        let data = answer.unwrap_or_default()["data"].take();
        let text = |name: &str| data["meta"][name].as_str().unwrap_or_default().to_owned();
        let is_login = data["path"] == "auth/approle/login" && text("role_name") == ROLE;
        anyhow::Ok(is_login.then(|| Login { accessor, pod: text("podUID"), attempt: text("attempt") }))
    });
    Ok(try_join_all(looked_up).await?.into_iter().flatten().collect())
}

/// The Events of deliveries, once each pod has one or no more are to come.
async fn events(bed: &Testbed, pods: &[Seen]) -> Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(bed.client(), NAMESPACE);
    let delivered = || async {
        let mut found = api.list(&ListParams::default()).await?.items;
        found.retain(|event| event.reason.as_deref() == Some(DELIVERED));
        anyhow::Ok(found)
    };
    let complete = poll_until("an Event for each pod", EVENTS_LIMIT * 2, || async {
        let found = delivered().await?;
        Ok(pods.iter().all(|seen| found.iter().any(|event| is_about(event, &seen.name()))).then_some(found))
    });
    match timeout(EVENTS_LIMIT, complete).await {
        Ok(Ok(found)) => Ok(found),
        _ => delivered().await,
    }
}

fn is_about(event: &Event, pod: &str) -> bool {
    event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(pod)
}

/// The accessors of the role's `secret_id`s: of those that nobody has used, as each is good for one login.
pub(crate) async fn secret_ids(bed: &Testbed) -> Result<Vec<String>> {
    bed.vault()?.list(&format!("auth/approle/role/{ROLE}/secret-id")).await
}

/// New ones that are still there after a while.
async fn unused(bed: &Testbed, before: &[String]) -> Result<usize> {
    let new = || async { Ok(secret_ids(bed).await?.iter().filter(|one| !before.contains(one)).count()) };
    let none =
        poll_until("end of all secret_ids", DESTROY_LIMIT * 2, || async { Ok((new().await? == 0).then_some(())) });
    match timeout(DESTROY_LIMIT, none).await {
        Ok(Ok(())) => Ok(0),
        _ => new().await,
    }
}
