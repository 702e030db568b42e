//! How long a pod takes to run with its token on a real kubelet, and how much of it is ours.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::bed::{Case, On};
use crate::cluster::Cluster;
use crate::nodes::{container_id, node_of};
use crate::stage::{Plan, Stage};
use crate::workload::{APP, INIT};

/// One after another: what one pod waits for, not what a full node does.
const PODS: usize = 15;
/// On two cores that the cluster has for itself. Where other builds run beside, the suite still has to pass.
const SLACK: f64 = 3.0;
/// A pod's creation to its application's start; the kubelet's and the scheduler's part is most of it.
const POD_START_MS: f64 = 3_500.0;
/// The init container's start to its end: this is all ours.
const INIT_MS: f64 = 100.0;

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("a_pod_runs_with_its_token_in_the_time_that_is_promised", On::Kind, |cluster| measure(cluster).boxed_local())];

async fn measure(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan::new("figures")).await?;
    stage.controller.ready(&cluster).await?;
    let (mut starts, mut inits) = (Vec::new(), Vec::new());
    for index in 0..PODS {
        let created = Timestamp::now();
        let pod = stage.pod(&format!("web-{index}")).create().await?;
        pod.served().await?;
        pod.took_one_push().await?;
        let (ran, init) = times(&cluster, &pod.namespace, &pod.name, created).await?;
        starts.push(ran);
        inits.push(init);
        cluster.delete_pod(stage.name, &pod.name).await?;
    }
    let rows = [
        Row { name: "kind_pod_start_p50_ms", value: median(&mut starts)?, target: POD_START_MS },
        Row { name: "kind_init_p50_ms", value: median(&mut inits)?, target: INIT_MS },
    ];
    write(&rows)?;
    for row in &rows {
        let Row { name, value, target } = row;
        eprintln!("{name} = {value} ms (at most {target})");
        ensure!(*value <= target * SLACK, "{name} is {value} ms instead of {target}");
    }
    Ok(())
}

/// From `created` to the application's start, and from the init container's start to its end, in milliseconds. As the
/// container runtime tells: a status has whole seconds, and comes later.
async fn times(cluster: &Cluster, namespace: &str, name: &str, created: Timestamp) -> Result<(f64, f64)> {
    let pod = cluster.pods(namespace).get(name).await?;
    let node = node_of(&pod)?;
    let inspect = async |container: &str| -> Result<Value> {
        let id = container_id(&pod, container)?;
        let printed = cluster.nodes()?.run(node, &["crictl", "inspect", "--output", "json", &id]).await?;
        serde_json::from_str(&printed).context("crictl's answer")
    };
    let (app, init) = (inspect(APP).await?, inspect(INIT).await?);
    let time = |inspected: &Value, key: &str| -> Result<Timestamp> {
        let text = inspected["status"][key].as_str().with_context(|| format!("no {key}"))?;
        text.parse().with_context(|| format!("{key} {text}"))
    };
    let ms = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64() * 1_000.0;
    Ok((ms(created, time(&app, "startedAt")?), ms(time(&init, "startedAt")?, time(&init, "finishedAt")?)))
}

struct Row {
    name: &'static str,
    value: f64,
    target: f64,
}

fn median(values: &mut [f64]) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().context("nothing was measured")?;
    Ok((middle * 100.0).round() / 100.0)
}

/// In the form of `make bench`, which takes these rows into its table.
fn write(rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|Row { name, value, target }| {
            json!({"name": name, "value": value, "unit": "ms", "target": target, "met": value <= target})
        })
        .collect();
    let path = testbed::target_folder().join("bench-kind.json");
    std::fs::write(&path, serde_json::to_string_pretty(&rows)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}
