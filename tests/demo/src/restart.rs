//! The controller dies and comes back: a pod that starts in between is served all the same.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use testbed::{Signal, Testbed, poll_until};
use tokio::sync::oneshot;

use crate::follow::{Follower, Seen, is_ready};
use crate::sample;
use crate::screen::{Screen, millis};
use crate::setup;
use crate::shell::Shell;

const LIMIT: Duration = Duration::from_secs(60);

/// Kills the controller's process while another pod starts, and shows that this one gets its token.
pub(crate) async fn show(
    bed: &Testbed,
    shell: &Shell,
    screen: &Screen,
    pods: &mut Follower,
    controller: &str,
) -> Result<Seen> {
    screen.step("Kill the controller while another pod starts");
    let known = known_pods(bed).await?;
    let is_new = |pod: &Pod| !known.contains(&pod.name_any());
    let scale = "kubectl scale deployment sample-app --replicas=2";
    screen.command(scale);
    let (dead, death) = oneshot::channel();
    let mut dead = Some(dead);
    let kill = |_: &Seen| {
        let Some(dead) = dead.take() else { return Ok(()) };
        let node = bed.node_of(setup::NAMESPACE, controller)?;
        node.signal(setup::NAMESPACE, controller, setup::CONTAINER, Signal::KILL)?;
        screen.milestone("kill -9: the controller is dead; the node starts it anew");
        // Nobody waits for this only where something else has failed.
        let _ = dead.send(Instant::now());
        Ok(())
    };
    let back = async {
        let killed = death.await.context("the controller was not killed")?;
        let ready = ready_again(bed, controller).await?;
        screen.milestone(&format!("{} after its death: the controller is ready again", millis(ready - killed)));
        Ok(())
    };
    let scaled = async { shell.run(scale).await.map(drop) };
    let (seen, (), ()) = tokio::try_join!(sample::follow_one(pods, screen, is_new, kill), back, scaled)?;
    let events = sample::delivered_events(bed, &seen.name()).await?;
    screen.note("Its Events:");
    screen.output(&sample::events_table(&events));
    sample::log(bed, &seen.name()).await?;
    screen.done("the new pod has read the secret too");
    Ok(seen)
}

async fn known_pods(bed: &Testbed) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(bed.client(), sample::NAMESPACE);
    Ok(pods.list(&kube::api::ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect())
}

/// When the controller's pod was seen ready after a restart.
async fn ready_again(bed: &Testbed, controller: &str) -> Result<Instant> {
    let pods: Api<Pod> = Api::namespaced(bed.client(), setup::NAMESPACE);
    poll_until("controller that is ready again", LIMIT, || async {
        let pod = pods.get(controller).await?;
        let restarts = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarted = restarts.map(|container| container.restart_count).sum::<i32>() > 0;
        Ok((restarted && is_ready(&pod)).then(Instant::now))
    })
    .await
    .context("the controller did not come back: its log says why")
}
