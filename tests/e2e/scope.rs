//! Which pods a controller serves, and with which rights.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::bed::{Case, On};
use super::cluster::Cluster;
use super::controller::Rbac;
use super::stage::{Plan, Stage};

pub(crate) const ALL: [(&str, On, Case); 3] = [
    ("a_regular_expression_selects_namespaces", On::Any, |cluster| expression(cluster).boxed_local()),
    ("a_plain_namespace_needs_a_role_only", On::Any, |cluster| plain(cluster).boxed_local()),
    ("without_the_right_to_write_events_one_warning_and_service", On::Any, |cluster| no_events(cluster).boxed_local()),
];

async fn expression(cluster: Arc<Cluster>) -> Result<()> {
    // Matching is without regard to case, and anywhere in the name unless anchored.
    let plan = Plan { watch: Some("~^TEAM-".into()), ..Plan::new("scope") };
    let stage = Stage::up(&cluster, plan).await?;
    for namespace in ["team-red", "team-blue", "other-team-x"] {
        cluster.namespace(namespace).await?;
    }
    let outside = stage.pod("web").namespace("other-team-x").create().await?;
    outside.waiting().await?;
    for namespace in ["team-red", "team-blue"] {
        stage.pod("web").namespace(namespace).create().await?.served().await?;
    }
    // It came first and waits still; nothing was made for it either.
    let pod = serde_json::to_value(cluster.pods("other-team-x").get("web").await?)?;
    ensure!(pod["status"]["phase"] == "Pending", "a pod outside of the watched namespaces was served");
    ensure!(cluster.events("other-team-x", "web").await?.is_empty(), "Events outside of the watched namespaces");
    ensure!(stage.logins().await?.len() == 2, "one login for each pod");
    Ok(())
}

async fn plain(cluster: Arc<Cluster>) -> Result<()> {
    // Upper case is lowered before the namespace is watched.
    let plan = Plan { watch: Some("Plain".into()), rbac: Rbac::OneNamespace, ..Plan::new("plain") };
    let stage = Stage::up(&cluster, plan).await?;
    let pod = stage.pod("web").create().await?;
    pod.served().await?;
    pod.event("SecretIdDelivered").await?;
    let log = stage.controller.logs(&cluster).await?;
    ensure!(!log.to_lowercase().contains("forbidden"), "{log}");
    Ok(())
}

async fn no_events(cluster: Arc<Cluster>) -> Result<()> {
    let stage = Stage::up(&cluster, Plan { rbac: Rbac::NoEvents, ..Plan::new("no-events") }).await?;
    for name in ["one", "two", "three"] {
        stage.pod(name).create().await?.served().await?;
    }
    let log = stage.controller.logs(&cluster).await?;
    let warnings = log.lines().filter(|line| line.contains("Events cannot be written")).count();
    ensure!(warnings == 1, "{warnings} warnings in\n{log}");
    for name in ["one", "two", "three"] {
        ensure!(cluster.events(stage.name, name).await?.is_empty(), "an Event without the right to write it");
    }
    Ok(())
}
