//! An installation made by nothing but the manifests and the scripts of `deploy/vault`: from an empty Vault to a secret in
//! a pod.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use testbed::{Image, Testbed, VaultOptions, poll_until, static_program};
use tokio::process::Command;

use super::world::{Beds, Case, LIMIT, deploy, file, printed};

/// Where the controller is; not where the documented case has it, so that flags have to hold everywhere.
const SYSTEM: &str = "vault-system";
/// Whose pods it serves.
const TEAM: &str = "team-a";
/// Each replica of `production` wants a node of its own.
const NODES: u8 = 3;

pub(crate) const ALL: &[(&str, Case)] =
    &[("from_an_empty_vault_the_scripts_and_production_bring_a_secret_to_a_pod_in_each_mode", |beds| {
        production(beds).boxed_local()
    })];

async fn production(_: &Beds) -> Result<()> {
    let controller = Image::new(env!("CARGO_BIN_EXE_kubernetes-vault")).at("/app/kubernetes-vault").env("PATH", "/app");
    let bed = Testbed::builder()
        .nodes(NODES)
        .image("kubernetes-vault/controller", controller)
        .image("kubernetes-vault/init", Image::new(static_program("KV_INIT_BIN", "kubernetes-vault-init")))
        .image("kubernetes-vault/sample-app", Image::new(static_program("KV_SAMPLE_BIN", "sample-app")))
        .vault(VaultOptions { tls: true, lasting: false })
        .start()
        .await
        .context("`make static` builds what the testbed runs as images")?;
    let done = installed(&bed).await;
    let done = match done {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(told(&bed).await)),
    };
    bed.stop().await;
    done
}

async fn installed(bed: &Testbed) -> Result<()> {
    // The testbed brings a KV store, as Vault's dev mode does. An empty Vault has none.
    bed.vault()?.delete("sys/mounts/secret").await?;
    script(bed, "setup.sh").await?;
    script(bed, "pki.sh").await?;
    // Both may be run again.
    let said = script(bed, "setup.sh").await?;
    ensure!(said.contains("kubectl apply -k deploy/quick-start"), "{said}");
    let said = script(bed, "pki.sh").await?;
    ensure!(said.contains(&format!("kubernetes-vault manifests production --namespace={SYSTEM}")), "{said}");
    secrets(bed).await?;
    let folder = bed.directory().join("manifests");
    let folder = folder.display().to_string();
    let system = format!("--namespace={SYSTEM}");
    let watched = format!("--watch-namespace={TEAM}");
    printed(&["production", &system, &watched, "--output-dir", &folder])?;
    bed.kubectl(&["apply", "--server-side", "-k", &format!("{folder}/production")]).await?;
    let sets: Api<StatefulSet> = Api::namespaced(bed.client(), SYSTEM);
    poll_until("three replicas that are ready", LIMIT, || async {
        let set = sets.get("kubernetes-vault").await?;
        Ok((set.status.and_then(|status| status.ready_replicas) == Some(3)).then_some(()))
    })
    .await?;
    apart(bed).await?;
    let team = format!("--namespace={TEAM}");
    for mode in ["token", "secret-id", "wrapped-secret-id"] {
        let path = file(bed, "sample.yaml", &printed(&["sample-app", &team, "--mode", mode])?)?;
        bed.kubectl(&["apply", "--server-side", "-f", &path]).await?;
    }
    let pods: Api<Pod> = Api::namespaced(bed.client(), TEAM);
    poll_until("three applications that have read their secret", LIMIT, || async {
        let pods = pods.list(&ListParams::default()).await?;
        let has_read = |pod: &&Pod| {
            // There is no log before the container has started.
            let log = bed.logs(TEAM, &pod.name_any(), "sample-app").unwrap_or_default();
            log.contains("hello from Vault")
        };
        Ok((pods.iter().filter(has_read).count() == 3).then_some(()))
    })
    .await
}

/// The namespaces, and the Secrets that the manifests name.
async fn secrets(bed: &Testbed) -> Result<()> {
    for namespace in [SYSTEM, TEAM] {
        bed.kubectl(&["create", "namespace", namespace]).await?;
    }
    let vault = bed.vault()?;
    let token = vault.create_token("kubernetes-vault", &["kubernetes-vault"]).await?;
    let ca = file(bed, "vault-ca.crt", &vault.ca().context("Vault serves no TLS")?)?;
    let role = vault.read("auth/approle/role/sample-app/role-id").await?;
    let role_id = role["data"]["role_id"].as_str().context("Vault's answer has no role_id")?;
    let (addr, token) = (format!("--from-literal=addr={}", vault.address()), format!("--from-literal=token={token}"));
    let (ca, role_id) = (format!("--from-file={ca}"), format!("--from-literal=role-id={role_id}"));
    let generic = ["create", "secret", "generic"];
    for rest in [
        &["kubernetes-vault", "-n", SYSTEM, &addr, &token][..],
        &["kubernetes-vault-tls", "-n", SYSTEM, &ca],
        &["sample-app", "-n", TEAM, &role_id],
    ] {
        bed.kubectl(&[&generic[..], rest].concat()).await?;
    }
    Ok(())
}

/// No two replicas are on one node.
async fn apart(bed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(bed.client(), SYSTEM);
    let all = pods.list(&ListParams::default()).await?;
    let mut nodes: Vec<_> = all.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    nodes.dedup();
    ensure!(nodes.len() == usize::from(NODES), "three replicas are on {nodes:?}");
    Ok(())
}

/// Runs a script of `deploy/vault` as its reader would; returns what it says.
async fn script(bed: &Testbed, name: &str) -> Result<String> {
    let client = bed.vault()?.program().parent().map(Path::to_path_buf).context("Vault's program is nowhere")?;
    let path = format!("{}:{}", client.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .arg(deploy().join("vault").join(name))
        .envs(bed.variables()?)
        .env("PATH", path)
        .env("HOME", bed.directory())
        .env("NAMESPACE", SYSTEM)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} ends with {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// What a person would look at.
async fn told(bed: &Testbed) -> String {
    let mut told = String::new();
    for namespace in [SYSTEM, TEAM] {
        let pods: Api<Pod> = Api::namespaced(bed.client(), namespace);
        let Ok(all) = pods.list(&ListParams::default()).await else { continue };
        for pod in all {
            let name = pod.name_any();
            let spec = pod.spec.unwrap_or_default();
            for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
                let log = bed.logs(namespace, &name, &container.name).unwrap_or_else(|error| error.to_string());
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                told = format!("{told}--- {namespace}/{name} {}\n{tail}\n", container.name);
            }
        }
    }
    told
}
