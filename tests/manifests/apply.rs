//! A real API server takes each object of each case: strictly, twice without a change, where `restricted` is enforced.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::{Value, json};
use testbed::{Testbed, poll_until};

use super::world::{Beds, Case, DOCUMENTED, LIMIT, file, objects, printed};

/// The kinds of the Prometheus operator, as far as they are used.
const KINDS: &str = include_str!("operator-kinds.yaml");
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";
/// Where cases put objects, beside the namespace that they make themselves.
const NAMESPACES: [&str; 2] = ["default", "team-a"];

pub(crate) const ALL: &[(&str, Case)] = &[
    ("every_case_is_taken_strictly_and_twice_without_a_change", |beds| twice(beds).boxed_local()),
    ("every_pod_but_the_go_versions_passes_where_restricted_is_enforced", |beds| restricted(beds).boxed_local()),
    ("a_field_that_does_not_exist_is_refused", |beds| strict(beds).boxed_local()),
];

/// The cases, and those that flags make of them: each with its name and its manifest.
fn manifests() -> Result<Vec<(String, String)>> {
    let digest = format!("--image=controller=registry.example/controller@sha256:{}", "0".repeat(64));
    let more: [&[&str]; 4] = [
        &["production", "--watch-namespace=team-a", &digest, "--replicas=5", "--vault-addr=https://vault.example:8200"],
        &["external-ca", "--namespace=team-a", "--watch-namespace=team-a"],
        &["replicated", "--namespace=vault-system", "--watch-namespace=~^team-"],
        &["sample-app", "--namespace=team-a", "--vault-addr=https://vault.example:8200"],
    ];
    let all = DOCUMENTED.iter().map(|(_, arguments)| *arguments).chain(more);
    all.map(|arguments| Ok((arguments.join(" "), printed(arguments)?))).collect()
}

async fn prepared(beds: &Beds) -> Result<&Testbed> {
    let bed = beds.start_plane().await?;
    let kinds = file(bed, "kinds.yaml", KINDS)?;
    bed.kubectl(&["apply", "--server-side", "-f", &kinds]).await?;
    bed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &kinds]).await?;
    for namespace in NAMESPACES {
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
        bed.kubectl(&["apply", "--server-side", "-f", &file(bed, "namespace.json", &made)?]).await?;
        bed.kubectl(&["label", "--overwrite", "namespace", namespace, RESTRICTED]).await?;
    }
    Ok(bed)
}

async fn twice(beds: &Beds) -> Result<()> {
    let bed = prepared(beds).await?;
    for (name, manifest) in manifests()? {
        let path = file(bed, "case.yaml", &manifest)?;
        let apply = ["apply", "--server-side", "--validate=strict", "-f", &path];
        bed.kubectl(&apply).await.with_context(|| name.clone())?;
        let before = state(bed, &path).await?;
        bed.kubectl(&apply).await.with_context(|| name.clone())?;
        let after = state(bed, &path).await?;
        ensure!(before == after, "{name} was changed by the second time:\n{before:?}\n{after:?}");
        // Exit code 1, and so an error, where there is a difference.
        bed.kubectl(&["diff", "--server-side", "-f", &path]).await.with_context(|| name.clone())?;
        clear(bed, &path, &manifest).await?;
    }
    Ok(())
}

/// What says that an object was written: its generation, or its version where it has none; and who owns which field.
async fn state(bed: &Testbed, path: &str) -> Result<BTreeMap<String, Value>> {
    let list = bed.kubectl(&["get", "-f", path, "-o", "json", "--show-managed-fields"]).await?;
    let list: Value = serde_json::from_str(&list)?;
    // One object is no list.
    let items = list["items"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
    let seen = items.into_iter().map(|object| {
        let metadata = &object["metadata"];
        let name = format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]);
        let ours = metadata["managedFields"].as_array().into_iter().flatten().filter(|one| one["operation"] == "Apply");
        // What controllers write to the status counts up the version, too.
        let version = metadata.get("generation").unwrap_or(&metadata["resourceVersion"]);
        let has_status = object.get("status").is_some() && metadata.get("generation").is_none();
        let version = if has_status { &Value::Null } else { version };
        (name, json!([metadata["uid"], version, ours.collect::<Vec<_>>()]))
    });
    Ok(seen.collect())
}

/// Takes a case away; its namespace stays, as namespaces take long to go.
async fn clear(bed: &Testbed, path: &str, manifest: &str) -> Result<()> {
    let rest: Vec<String> = objects(manifest)?
        .into_iter()
        .filter(|object| object["kind"] != "Namespace")
        .map(|object| object.to_string())
        .collect();
    std::fs::write(path, rest.join("\n---\n"))?;
    bed.kubectl(&["delete", "--wait=false", "--ignore-not-found", "-f", path]).await.map(drop)
}

/// The API server only warns of a Deployment; it is the pod that would be refused.
async fn restricted(beds: &Beds) -> Result<()> {
    let bed = prepared(beds).await?;
    let accounts = || bed.kubectl(&["get", "serviceaccount", "default", "-n", "team-a", "-o", "name"]);
    poll_until("service account", LIMIT, || async { Ok(accounts().await.ok()) }).await?;
    for (name, manifest) in manifests()? {
        for object in objects(&manifest)? {
            let Some(template) = object.pointer("/spec/template") else { continue };
            let mut pod =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
            pod["metadata"]["name"] = json!("tried");
            pod["metadata"]["namespace"] = json!("team-a");
            // Only what Pod Security looks at is of interest: neither the account nor the priority is there.
            if let Some(spec) = pod["spec"].as_object_mut() {
                spec.remove("serviceAccountName");
                spec.remove("priorityClassName");
            }
            let path = file(bed, "pod.json", &pod.to_string())?;
            let tried = bed.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &path]).await;
            match (name.as_str(), tried) {
                // Nothing of it was to be changed, and it had no security context.
                ("reference", Err(error)) => {
                    ensure!(format!("{error:#}").contains("violates PodSecurity"), "{error:#}");
                }
                ("reference", Ok(_)) => {
                    anyhow::bail!("the pod of the Go version passes: its comment says that it does not")
                }
                (_, tried) => drop(tried.with_context(|| name.clone())?),
            }
        }
    }
    Ok(())
}

/// That strict validation is one: the same objects with a field that is misspelt.
async fn strict(beds: &Beds) -> Result<()> {
    let bed = prepared(beds).await?;
    for (arguments, right, wrong) in [
        (&["quick-start"][..], "publishNotReadyAddresses", "publishNotReadyAdresses"),
        (&["monitoring", "--tls-secret=x"], "keySecret", "keySecrets"),
        (&["monitoring"], "expr:", "expression:"),
    ] {
        let manifest = printed(arguments)?;
        ensure!(manifest.contains(right), "{arguments:?} has no {right}");
        let path = file(bed, "wrong.yaml", &manifest.replace(right, wrong))?;
        let tried =
            bed.kubectl(&["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", &path]).await;
        let error = tried.err().with_context(|| format!("{wrong} was taken"))?;
        ensure!(format!("{error:#}").contains(wrong.trim_end_matches(':')), "{error:#}");
    }
    Ok(())
}
