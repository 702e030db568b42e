//! What must hold after a run, by the word of receivers and of Vault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::nemesis::Faults;
use crate::pods::{Instance, Kind};
use crate::receivers::Push;
use crate::trio::Delivery;
use crate::vault::Vault;

/// A `secret_id` that Vault has made and still lists.
pub(crate) struct Secret {
    attempt: String,
    uid: String,
}

/// All that the role has.
pub(crate) async fn secrets(vault: &Vault, role: &str) -> Result<Vec<Secret>> {
    let mut found = Vec::new();
    for accessor in vault.secret_ids("approle", role).await? {
        let path = format!("auth/approle/role/{role}/secret-id-accessor/lookup");
        // It may be destroyed just now.
        let Ok(answer) = vault.write(&path, &json!({"secret_id_accessor": accessor})).await else { continue };
        let text = |key: &str| answer["data"]["metadata"][key].as_str().unwrap_or_default().to_owned();
        found.push(Secret { attempt: text("attempt"), uid: text("podUID") });
    }
    Ok(found)
}

/// What the controllers know as refused is destroyed within this, without faults: one request to Vault.
const DESTROYED: Duration = Duration::from_secs(20);

/// Each refused attempt of `instances` goes from Vault's list, and what was taken stays. Without faults: a leader that
/// dies while it destroys, or a Vault that is sealed then, may leave one behind, which is counted in a metric.
pub(crate) async fn refused_are_gone(vault: &Vault, role: &str, instances: &[Instance]) -> Result<()> {
    testbed::poll_until("what was refused gone from Vault's list", DESTROYED, || async {
        let made = secrets(vault, role).await?;
        let mut left = Vec::new();
        for instance in instances {
            let [refused, taken, ..] = instance.pushes.as_slice() else {
                bail!("{} got no second push", instance.name)
            };
            ensure!(refused.attempt() != taken.attempt(), "{}: one attempt was pushed twice", instance.name);
            let listed = |attempt: &str| made.iter().any(|one| one.attempt == attempt);
            ensure!(listed(taken.attempt()), "{}: what it took is gone", instance.name);
            if listed(refused.attempt()) {
                left.push(&instance.name);
            }
        }
        Ok(left.is_empty().then_some(()))
    })
    .await
}

/// All rules at once.
pub(crate) fn check(
    instances: &[Instance],
    secrets: &[Secret],
    deliveries: &[Delivery],
    faults: &Faults,
) -> Result<()> {
    let mut broken: Vec<String> = Vec::new();
    let missing = faults.missing();
    if !missing.is_empty() {
        broken.push(format!("insufficient coverage: these never happened: {missing:?}"));
    }
    let made: BTreeMap<&str, &str> = secrets.iter().map(|one| (one.attempt.as_str(), one.uid.as_str())).collect();
    let mut attempts: BTreeSet<&str> = BTreeSet::new();
    let (mut twice, mut left) = (0, 0);
    for instance in instances {
        let name = &instance.name;
        let Some(first) = instance.pushes.first() else {
            broken.push(format!("{name} was never served"));
            continue;
        };
        for push in &instance.pushes {
            let attempt = push.attempt();
            if !attempts.insert(attempt) {
                broken.push(format!("{name}: attempt {attempt} was pushed twice"));
            }
            if push.message["podUID"] != instance.uid.as_str() {
                broken.push(format!("{name} got a push for {}", push.message["podUID"]));
            }
        }
        // The accepted one is used, and stays in the list; it was made for this very pod. Who takes all of them has said
        // of each that it was taken: the ledger believes the one whose answer it hears of first, and that an init
        // container takes one. The sender of a later one may have died before it could tell.
        let kept = |push: &Push| made.get(push.attempt()) == Some(&instance.uid.as_str());
        let accepted = if instance.kind == Kind::Promiscuous { &instance.pushes[..] } else { &instance.pushes[..1] };
        if !accepted.iter().any(kept) {
            broken.push(format!("{name}: what it accepted ({}) is not in Vault as its own", first.attempt()));
        }
        if instance.kind == Kind::Ours {
            left += secrets.iter().filter(|one| one.uid == instance.uid && one.attempt != first.attempt()).count();
        }
        twice += usize::from(instance.pushes.len() > 1);
    }
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    deliveries.iter().for_each(|delivery| *told.entry(&delivery.uid).or_default() += 1);
    for instance in instances.iter().filter(|instance| instance.kind == Kind::Ours) {
        if told.get(instance.uid.as_str()).is_some_and(|count| *count > 1) {
            broken.push(format!("{} was delivered to twice, by the controllers' own word", instance.name));
        }
    }
    println!(
        "{} instances served; {twice} of them got a second push; {left} secret_ids of ours are left that nobody took",
        instances.len()
    );
    ensure!(broken.is_empty(), "{}\n{}", broken.join("\n"), faults.told());
    Ok(())
}
