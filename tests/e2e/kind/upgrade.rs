//! From an image of an earlier commit to this one, with the storage that the earlier one wrote.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::bed::{Case, On};
use crate::cluster::{Cluster, LIMIT, eventually, image};
use crate::controller::NAME;
use crate::failover::{create, served};
use crate::stage::Plan;
use crate::trio::{Trio, lasting_set};

/// The image to come from, with its tag: `kind/suite` loads it where it is given one.
const OLD_IMAGE: &str = "KV_E2E_OLD_IMAGE";
const REPLICAS: usize = 3;
const PODS: usize = 3;

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("an_earlier_image_is_replaced_by_this_one_on_its_storage", On::Kind, |cluster| upgraded(cluster).boxed_local())];

async fn upgraded(cluster: Arc<Cluster>) -> Result<()> {
    let Ok(old) = std::env::var(OLD_IMAGE) else {
        eprintln!("upgrade: left out, {OLD_IMAGE} names no image to come from");
        return Ok(());
    };
    let mut set = lasting_set("/var/lib/upgrade")?;
    let spec = &mut set["spec"]["template"]["spec"];
    // A hostPath belongs to root, and fsGroup is not for it.
    spec["securityContext"]["runAsNonRoot"] = json!(false);
    spec["securityContext"]["runAsUser"] = json!(0);
    // Each pod finds its storage on its node: all on one.
    let node = node(&cluster).await?;
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    // Nothing starts before the old image is set.
    set["spec"]["replicas"] = json!(0);
    let trio = Trio::up(&cluster, Plan { replicas: Some(vec![set]), ..Plan::new("upgrade") }).await?;
    trio.patch_within("StatefulSet", &of_image(&old)).await?;
    trio.settled(REPLICAS).await?;
    let before = trio.nodes().await?;
    let pods = create(&trio.stage, "before", PODS).await?;
    served(&trio, &pods).await?;
    change(&trio, &image("controller")).await?;
    let after = trio.nodes().await?;
    ensure!(before == after, "the storage was not taken over: {before:?}, then {after:?}");
    let pods = create(&trio.stage, "after", PODS).await?;
    served(&trio, &pods).await?;
    trio.served_once(2 * PODS).await
}

fn of_image(image: &str) -> Value {
    let containers = json!([{"name": NAME, "image": image}]);
    json!({"spec": {"replicas": REPLICAS, "template": {"spec": {"containers": containers}}}})
}

async fn change(trio: &Trio, image: &str) -> Result<()> {
    let old = trio.uids().await?;
    trio.patch_within("StatefulSet", &of_image(image)).await?;
    let replaced = eventually("three pods of another image", LIMIT, || async {
        let new = trio.uids().await?;
        Ok((new.len() == REPLICAS && new.is_disjoint(&old)).then_some(()))
    });
    trio.blame(replaced.await).await?;
    trio.settled(REPLICAS).await.map(drop)
}

async fn node(cluster: &Cluster) -> Result<String> {
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client.clone());
    let all = nodes.list(&kube::api::ListParams::default()).await?;
    all.items.into_iter().find_map(|node| node.metadata.name).context("no node")
}
