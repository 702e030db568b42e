//! Configuration files as users of the Go version have them start unchanged.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::case::Case;
use crate::controller::{Controller, Settings, program};
use crate::controller_push::deliver;
use crate::process::{CONTROLLER, Running};
use crate::tls::BOTH;
use crate::world::{PKI, World};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("configuration: the documented example with every key", Vec::new(), full),
        Case::new("permissions: those of an unchanged installation suffice", Vec::new(), old_permissions),
        Case::new("configuration: all mistakes in one message", Vec::new(), mistakes),
        Case::new("configuration: lenient types, letter case, a regular expression, unknown keys", Vec::new(), lenient),
    ]
}

/// The documented example: every key of reference-behaviour, section 3.
fn full_example(world: &World, namespace: &str) -> String {
    format!(
        "raftDir: /var/lib/kubernetes-vault/\n\n\
         vault:\n  addr: {}\n  token: ${{VAULT_TOKEN}}\n  skipTokenRoleNameValidation: false\n\n  tls:\n    \
         vaultCABackends:\n      - {PKI}\n\n  wrappingTTL: 120s\n\n\
         kubernetes:\n  watchNamespace: ${{KUBERNETES_NAMESPACE}}\n  serviceNamespace: {namespace}\n  \
         service: kubernetes-vault\n\n\
         prometheus:\n  tls:\n    vaultCertBackend: intermediate-ca\n    vaultCertRole: kubernetes-vault\n    \
         vaultCABackends:\n      - intermediate-ca\n      - root-ca\n",
        world.front.address
    )
}

async fn full(world: &World) -> Result<()> {
    let namespace = world.namespace().await?;
    let mut controller = start(world, &full_example(world, &namespace), &namespace, &["-config=given.yml"])?;
    controller.until("logged in to Vault").await?;
    let (_, received) = deliver(world, &namespace, BOTH).await?;
    ensure!(received.body.contains(r#""ttl":120,"#), "{}", received.body);
    let ended = controller.terminate().await?;
    ended.expect(0, &[])?;
    // No key is unknown, and no metrics in clear where a certificate is configured.
    ensure!(!ended.err.contains("is an unknown key"), "{}", ended.err);
    ensure!(ended.err.contains("no certificate from Vault"), "{}", ended.err);
    Ok(())
}

async fn lenient(world: &World) -> Result<()> {
    let namespace = world.namespace().await?;
    // A scalar for a list, a number for a text, a text for a boolean, an unknown key, keys in any letter case.
    let yaml = format!(
        "RAFTDIR: /var/lib/kubernetes-vault/\n\
         Vault:\n  Addr: {}\n  TOKEN: $VAULT_TOKEN\n  skiptokenrolenamevalidation: \"true\"\n  wrappingTtl: 90\n  \
         tls:\n    VaultCABackends: {PKI}\n  legacy: ignored\n\
         kubernetes:\n  watchNamespace: ~^{}$\n  servicenamespace: default\n  Service: kubernetes\n",
        world.front.address,
        namespace.to_uppercase()
    );
    let mut controller = start(world, &yaml, &namespace, &["--config", "given.yml", "--log-level", "debug"])?;
    controller.until("logged in to Vault").await?;
    let (_, received) = deliver(world, &namespace, BOTH).await?;
    ensure!(received.body.contains(r#""ttl":90,"#), "{}", received.body);
    // reference-behaviour, section 6: over http on port 80, unless a certificate is configured.
    let page = world.http.get("http://127.0.0.1/metrics").send().await?.error_for_status()?.text().await?;
    ensure!(page.contains("kubernetesvault_server_secret_pushes_total{"), "{page}");
    let ended = controller.terminate().await?;
    // Bad-input table: configuration, unknown key: a warning that names it.
    ended.expect(0, &["Vault.legacy (line 9) is an unknown key"])
}

/// Bad-input table: configuration, several mistakes at once, wrong type, duplicate key, bad regex, bad duration,
/// unreadable file: all of them in one message, each with its key and line; no secret value is printed.
async fn mistakes(_: &World) -> Result<()> {
    let yaml = "vault:\n  addr: CANARY\n  token: [hvs.CANARY]\n  wrappingTTL: 5M\n  tls: {caCert: /nope.pem}\n\
                kubernetes:\n  watchNamespace: \"~(\"\n  serviceNamespace: default\n  service: kubernetes\n  \
                service: kubernetes\n";
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("kubernetes-vault.yml"), yaml)?;
    let ended = program(&[], &[], directory.path())?.end().await?;
    ended.expect(
        2,
        &[
            "vault.addr (line 2)",
            "vault.token (line 3)",
            "vault.wrappingTTL (line 4)",
            "vault.tls.caCert (line 5)",
            "kubernetes.watchNamespace (line 7)",
            "kubernetes.service (line 10)",
        ],
    )?;
    ensure!(!ended.printed().contains("hvs.CANARY"), "a secret got out:\n{}", ended.printed());
    Ok(())
}

/// reference-behaviour, section 7: pods list and watch, endpoints get, nothing else. What ours wants beyond that is
/// one warning.
async fn old_permissions(world: &World) -> Result<()> {
    let namespace = world.namespace().await?;
    let settings = Settings { kubeconfig: old_account(world, &namespace).await?, ..Settings::good(world, &namespace) };
    let controller = Controller::at_work(world, &settings).await?;
    controller.metrics_with(world, "kubernetesvault_kubernetes_discovered_nodes_total 1").await?;
    for _ in 0..3 {
        deliver(world, &namespace, BOTH).await?;
    }
    let ended = controller.terminate().await?;
    ended.expect(0, &["Events cannot be written"])?;
    let warnings: Vec<_> = ended.err.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    ensure!(warnings.len() == 1, "more than one warning:\n{}", ended.err);
    Ok(())
}

/// A service account with what the Go version's documents grant; its kubeconfig.
async fn old_account(world: &World, namespace: &str) -> Result<PathBuf> {
    let account = format!("--serviceaccount={namespace}:old");
    let bed = &world.bed;
    bed.kubectl(&["create", "serviceaccount", "old", "-n", namespace]).await?;
    bed.kubectl(&["create", "clusterrole", namespace, "--verb=list,watch", "--resource=pods"]).await?;
    bed.kubectl(&["create", "clusterrolebinding", namespace, &format!("--clusterrole={namespace}"), &account]).await?;
    let role = ["create", "role", namespace, "-n", "default", "--verb=get", "--resource=endpoints"];
    bed.kubectl(&role).await?;
    let role = format!("--role={namespace}");
    bed.kubectl(&["create", "rolebinding", namespace, "-n", "default", &role, &account]).await?;
    let token = bed.kubectl(&["create", "token", "old", "-n", namespace]).await?;
    let plane = bed.control_plane();
    let ca = wire::base64_encode(plane.ca().as_bytes()).to_string();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": plane.url(), "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
    });
    let path = tempfile::tempdir()?.keep().join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string())?;
    Ok(path)
}

/// Starts it with this file and nothing else: metrics and health are where they are by default.
fn start(world: &World, yaml: &str, namespace: &str, arguments: &[&str]) -> Result<Running> {
    // On the tmpfs of this test's namespaces, where nothing is left behind.
    let directory = tempfile::tempdir()?.keep();
    // But for the storage: two controllers cannot share one.
    let yaml = yaml.replace("/var/lib/kubernetes-vault/", &format!("{}/", directory.join("raft").display()));
    std::fs::write(directory.join("given.yml"), yaml)?;
    let mut command = Command::new(CONTROLLER);
    command
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", world.bed.kubeconfig())
        .env("VAULT_TOKEN", &world.token)
        .env("KUBERNETES_NAMESPACE", namespace)
        .current_dir(directory);
    Running::start(command)
}
