//! `deploy/` is what the command prints, in both of its forms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::Value;

use super::world::{Beds, Case, DOCUMENTED, deploy, objects, printed, run};

/// Set to anything, the tree is written instead of compared.
const UPDATE: &str = "KV_UPDATE_DOCS";
const HOW: &str = "write it anew with\n\n    KV_UPDATE_DOCS=1 scripts/cargo test --test manifests deploy\n";
/// Written by people: Vault's side, and the sources of dashboard and alerts.
const BY_HAND: [&str; 4] =
    ["vault", "monitoring/dashboard.json", "monitoring/rules.yaml", "monitoring/rules-test.yaml"];

pub(crate) const ALL: &[(&str, Case)] = &[
    ("deploy_is_what_the_command_writes", |_| async { same_tree() }.boxed_local()),
    ("kustomize_makes_of_deploy_the_objects_that_are_printed", |beds| same_objects(beds).boxed_local()),
];

fn same_tree() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let target = if std::env::var_os(UPDATE).is_some() { deploy() } else { folder.path().to_owned() };
    printed(&["--output-dir", &target.display().to_string()])?;
    let (made, kept) = (files(&target)?, files(&deploy())?);
    let names = |files: &BTreeMap<String, String>| -> BTreeSet<String> {
        files.keys().filter(|name| !BY_HAND.iter().any(|by_hand| name.starts_with(by_hand))).cloned().collect()
    };
    ensure!(
        names(&made) == names(&kept),
        "deploy/ has not the files that are written: {:?}\n{HOW}",
        names(&made).symmetric_difference(&names(&kept))
    );
    for (name, text) in made {
        ensure!(kept.get(&name) == Some(&text), "deploy/{name} is not what is written; {HOW}");
    }
    Ok(())
}

/// All files below `folder`, by their paths from there.
fn files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder)?.display().to_string();
                found.insert(name, std::fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

async fn same_objects(beds: &Beds) -> Result<()> {
    let bed = beds.start_plane().await?;
    for (folder, arguments) in DOCUMENTED {
        let path = deploy().join(folder).display().to_string();
        let built = sorted(objects(&bed.kubectl(&["kustomize", &path]).await?)?);
        let printed = sorted(objects(&printed(arguments)?)?);
        for (ours, theirs) in printed.iter().zip(&built) {
            ensure!(ours == theirs, "deploy/{folder} makes {theirs}\n\nand printed is {ours}");
        }
        ensure!(
            printed.len() == built.len(),
            "deploy/{folder} makes {} objects, printed are {}",
            built.len(),
            printed.len()
        );
    }
    one_case_of_its_own(beds).await
}

/// The same for a folder of one case, with flags.
async fn one_case_of_its_own(beds: &Beds) -> Result<()> {
    let bed = beds.plane()?;
    let flags = ["--namespace=vault", "--watch-namespace=team-b", "--vault-addr=https://vault.example:8200"];
    for case in ["production", "external-ca", "replicated"] {
        let arguments = [&[case][..], &flags].concat();
        let folder = tempfile::tempdir()?;
        let written = run(&[&arguments[..], &["--output-dir", &folder.path().display().to_string()]].concat())?;
        ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let path = folder.path().join(case).display().to_string();
        let built = sorted(objects(&bed.kubectl(&["kustomize", &path]).await?)?);
        ensure!(built == sorted(objects(&printed(&arguments)?)?), "{case}: {built:?}");
    }
    Ok(())
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
    };
    objects.sort_by_key(key);
    objects
}
