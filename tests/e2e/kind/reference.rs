//! The reference's quick start with nothing but its API versions brought up to date: three replicas of a Deployment, no
//! volume, no security context, Raft state in the container's layer, metrics over TLS by Vault's PKI on port 443.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::bed::{Case, On};
use crate::cluster::{Cluster, LIMIT, eventually};
use crate::controller::documents;
use crate::failover::{create, served};
use crate::scraper::VaultPki;
use crate::stage::{Plan, Policy};
use crate::trio::Trio;

const GO_VERSION: &str = include_str!("../../fixtures/reference/kubernetes-vault.yaml");
/// Some user that no image knows.
const ARBITRARY_USER: u32 = 4711;
const REPLICAS: usize = 3;
const PODS: usize = 3;

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("the_references_quick_start_runs_with_its_page_on_443_and_without_the_right_to_it", On::Kind, |cluster| {
        quick_start(cluster).boxed_local()
    })];

async fn quick_start(cluster: Arc<Cluster>) -> Result<()> {
    let pki = VaultPki::mount(&cluster.vault, "quick-start-pki".to_owned()).await?;
    pki.role(&cluster.vault, "kubernetes-vault").await?;
    let mut objects = documents(GO_VERSION)?;
    // The case's own configuration has that name.
    objects.retain(|object| object["kind"] != "ConfigMap");
    let plan = Plan {
        replicas: Some(objects),
        policy: Policy::Reference,
        prometheus: json!({"tls": {"vaultCertBackend": pki.mount, "vaultCertRole": "kubernetes-vault"}}),
        rules: pki.rule("kubernetes-vault"),
        ..Plan::new("quick-start")
    };
    let trio = Trio::up(&cluster, plan).await?;
    let leader = trio.settled(REPLICAS).await?;
    let pods = create(&trio.stage, "first", PODS).await?;
    served(&trio, &pods).await?;
    let path = format!("/api/v1/namespaces/{}/pods/https:{leader}:443/proxy/metrics", trio.namespace());
    let scraped = eventually("metrics page on 443", LIMIT, || async {
        let request = http::Request::get(&path).body(Vec::new())?;
        let page = cluster.client.request_text(request).await?;
        Ok(page.contains("kubernetesvault_").then_some(()))
    });
    trio.blame(scraped.await).await?;

    // Another user, and a node on which ports below 1024 are root's.
    let low_ports = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]);
    let context = json!({"runAsUser": ARBITRARY_USER, "runAsGroup": ARBITRARY_USER, "sysctls": low_ports});
    roll(&trio, &json!({"securityContext": context})).await?;
    let pods = create(&trio.stage, "second", PODS).await?;
    served(&trio, &pods).await?;
    for pod in trio.pods().await? {
        let log = cluster.logs(trio.namespace(), &pod, crate::controller::NAME).await?;
        let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains("443")).count();
        ensure!(warnings == 1, "{warnings} warnings of a port that cannot be bound in the log of {pod}:\n{log}");
    }
    trio.served_once(2 * PODS).await
}

/// Changes the pods, and waits until all are new ones.
async fn roll(trio: &Trio, spec: &Value) -> Result<()> {
    let old = trio.uids().await?;
    trio.patch("Deployment", &json!({"spec": {"template": {"spec": spec}}})).await?;
    let replaced = eventually("three new replicas", LIMIT, || async {
        let new = trio.uids().await?;
        Ok((new.len() == REPLICAS && new.is_disjoint(&old)).then_some(()))
    });
    trio.blame(replaced.await).await.context("after a change of their security context")?;
    trio.settled(REPLICAS).await.map(drop)
}
