//! The three controllers: who leads, what `kubernetes-vault status` says in a pod, and their network.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{NodeAgent, PodNetwork, Testbed, poll_until};
use tokio::time::sleep;

use crate::screen::Screen;
use crate::setup::{CONTAINER, NAMESPACE};

/// As `replicas` of the manifest says, and the StatefulSet names them.
pub(crate) const NAMES: [&str; 3] = ["kubernetes-vault-0", "kubernetes-vault-1", "kubernetes-vault-2"];
/// As a person would type it in a pod.
const STATUS: &str = "kubernetes-vault status";
/// What a replica logs when it begins to deliver.
const LEADS: &str = "this replica leads";
/// They find each other within a second or two; both cores may be busy.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What the replicas say of themselves when they agree.
pub(crate) struct Agreement {
    pub(crate) leader: &'static str,
    pub(crate) term: u64,
}

/// Waits until all three are in one cluster, as voters, under one leader.
pub(crate) async fn agreement(bed: &Testbed) -> Result<Agreement> {
    let found = poll_until("three voters and one leader", LIMIT, || async {
        let mut all = Vec::new();
        for name in NAMES {
            // One that has just been started does not answer yet.
            let Ok(said) = json(bed, name).await else { return Ok(None) };
            all.push(said);
        }
        Ok(agreed(&all))
    });
    found.await.context("the replicas' logs say what they wait for")
}

/// The common ground of the three, if there is one.
fn agreed(all: &[Value]) -> Option<Agreement> {
    let first = all.first()?;
    let same = |field: &str| first[field].is_string() && all.iter().all(|said| said[field] == first[field]);
    let voters = |said: &Value| {
        let members = said["members"].as_array();
        members.is_some_and(|members| members.len() == NAMES.len() && members.iter().all(|one| one["kind"] == "voter"))
    };
    if !same("cluster") || !same("leader") || !all.iter().all(voters) {
        return None;
    }
    let mut leaders = NAMES.into_iter().zip(all).filter(|(_, said)| said["role"] == "leader");
    let (leader, said) = leaders.next()?;
    let reached = said["members"].as_array()?.iter().all(|member| member["reachable"] == true);
    let agreement = Agreement { leader, term: said["term"].as_u64()? };
    (leaders.next().is_none() && reached).then_some(agreement)
}

async fn json(bed: &Testbed, name: &str) -> Result<Value> {
    let mut command: Vec<&str> = STATUS.split(' ').collect();
    command.push("--output=json");
    let output = bed.node_of(NAMESPACE, name)?.exec(NAMESPACE, name, CONTAINER, &command).await?;
    // Its exit code says whether all is well; the text is there in any case.
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Shows the status of one replica, as a person would ask for it.
pub(crate) async fn show_status(bed: &Testbed, screen: &Screen, name: &str) -> Result<()> {
    screen.command(&format!("kubectl -n {NAMESPACE} exec {name} -- {STATUS}"));
    let command: Vec<&str> = STATUS.split(' ').collect();
    let output = bed.node_of(NAMESPACE, name)?.exec(NAMESPACE, name, CONTAINER, &command).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.is_empty(), "{STATUS} printed nothing: {}", String::from_utf8_lossy(&output.stderr));
    screen.verbatim(&text);
    Ok(())
}

/// Its links, and the addresses of the other two.
pub(crate) fn links(bed: &Testbed, name: &str) -> Result<(PodNetwork, Vec<Ipv4Addr>)> {
    let network = |name: &str| bed.node_of(NAMESPACE, name)?.network(NAMESPACE, name);
    let others = NAMES.into_iter().filter(|other| *other != name);
    let others = others.map(|other| Ok(network(other)?.ip)).collect::<Result<_>>()?;
    Ok((network(name)?, others))
}

/// The logs of all replicas but one, from now on.
pub(crate) struct Watch {
    logs: Vec<(&'static str, PathBuf, usize)>,
}

impl Watch {
    pub(crate) fn all_but(bed: &Testbed, name: &str) -> Result<Self> {
        let others = NAMES.into_iter().filter(|other| *other != name);
        let log = |name: &'static str| {
            let node: &NodeAgent = bed.node_of(NAMESPACE, name)?;
            let path = node.log_files(NAMESPACE, name, CONTAINER)?.pop().context("a replica without a log")?;
            let length = fs::read(&path)?.len();
            Ok((name, path, length))
        };
        Ok(Self { logs: others.map(log).collect::<Result<_>>()? })
    }

    /// The next leader, and when it was seen.
    pub(crate) async fn next_leader(&self) -> Result<(&'static str, Instant)> {
        let watch = async {
            loop {
                for (name, path, length) in &self.logs {
                    let log = fs::read(path).unwrap_or_default();
                    if String::from_utf8_lossy(log.get(*length..).unwrap_or_default()).contains(LEADS) {
                        return (*name, Instant::now());
                    }
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(LIMIT, watch).await.context("no other replica took the lead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(role: &str, leader: &str) -> Value {
        let member = json!({"kind": "voter", "reachable": if role == "leader" { json!(true) } else { Value::Null }});
        json!({"cluster": "c", "role": role, "term": 2, "leader": leader, "members": [member, member, member]})
    }

    #[test]
    fn three_agree_only_on_one_leader_that_reaches_all() {
        let mut all = [said("follower", "b"), said("leader", "b"), said("follower", "b")];
        assert!(agreed(&all).is_some_and(|found| found.leader == NAMES[1] && found.term == 2));
        all[1]["members"][0]["reachable"] = json!(false);
        assert!(agreed(&all).is_none());
        assert!(agreed(&[said("leader", "a"), said("leader", "b"), said("follower", "b")]).is_none());
        all[1] = said("leader", "b");
        all[2]["members"][0]["kind"] = json!("learner");
        assert!(agreed(&all).is_none());
    }
}
