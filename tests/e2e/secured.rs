//! The examples of docs/secured-examples.md, run as they stand there: their commands, their policy, their configuration.
//!
//! What differs here: the namespace, and who signed Vault's own certificate. The first example is given that CA as the file
//! that it names; for the second its PKI mount is given that CA instead of a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::process::Command;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::failover::{create, served};
use super::scraper::{Folder, Pair, VaultPki, scrape};
use super::stage::Plan;
use super::trio::{Trio, stateful_set};

const PAGE: &str = include_str!("../../docs/secured-examples.md");

pub(crate) const ALL: [(&str, On, Case); 2] = [
    ("the_secured_example_with_an_external_ca_works_as_it_stands", On::Breakable, |cluster| {
        external(cluster).boxed_local()
    }),
    ("the_secured_example_with_vault_as_the_ca_works_as_it_stands", On::Breakable, |cluster| {
        vault(cluster).boxed_local()
    }),
];

async fn external(cluster: Arc<Cluster>) -> Result<()> {
    let name = "secured-files";
    let bench = Bench::new(&cluster, name)?;
    bench.run(&block("sh external")?).await?;
    let folder = Folder::new(&cluster, &bench.on_node())?;
    let mut files = Vec::new();
    for file in ["ca.crt", "metrics.crt", "metrics.key", "peer.crt", "peer.key"] {
        files.push((file, bench.read(file)?));
    }
    files.push(("vault-ca.crt", cluster.vault.ca.clone().context("Vault without TLS")?));
    folder.swap(&files.iter().map(|(name, content)| (*name, content.as_str())).collect::<Vec<_>>())?;
    let mut set = stateful_set()?;
    mount(&mut set, &bench.on_node())?;
    let plan = Plan { replicas: Some(vec![set]), ..configured(name, &block("yaml external")?, "")? };
    let own = Pair { certificate: bench.read("prometheus.crt")?, key: bench.read("prometheus.key")? };
    works(&cluster, plan, &bench.read("ca.crt")?, &own).await
}

async fn vault(cluster: Arc<Cluster>) -> Result<()> {
    let name = "secured-vault";
    let bench = Bench::new(&cluster, name)?;
    let bundle = cluster.bed()?.vault()?.ca_bundle().context("Vault without TLS")?;
    std::fs::write(bench.folder.join("bundle.pem"), bundle)?;
    for commands in blocks("sh vault") {
        let imported = "vault write pki/config/ca pem_bundle=@bundle.pem";
        let ours = commands.lines().map(|line| if line.contains("root/generate/internal") { imported } else { line });
        bench.run(&ours.collect::<Vec<_>>().join("\n")).await?;
    }
    let fingerprint = bench.read("fingerprint")?;
    let text = block("yaml vault")?.replace("$FINGERPRINT", fingerprint.trim());
    let plan = configured(name, &text, &block("hcl vault")?)?;
    let pki = VaultPki { mount: "pki".to_owned() };
    let own = pki.issue(&cluster.vault, "prometheus").await?;
    works(&cluster, plan, &pki.ca(&cluster.vault).await?, &own).await
}

/// Three replicas deliver, and their page is for those with a certificate.
async fn works(cluster: &Arc<Cluster>, plan: Plan, ca: &str, own: &Pair) -> Result<()> {
    let trio = Trio::up(cluster, plan).await?;
    trio.settled(3).await?;
    let pods = create(&trio.stage, "web", 2).await?;
    served(&trio, &pods).await?;
    for pod in trio.pods().await? {
        let ip = cluster.bed()?.node_of(trio.namespace(), &pod)?.network(trio.namespace(), &pod)?.ip.into();
        let found = eventually("metrics page over TLS", LIMIT, || async {
            Ok(scrape(ip, ca, Some(own)).await.map_err(|error| eprintln!("{error:#}")).ok())
        });
        let (page, _) = trio.blame(found.await).await?;
        ensure!(page.contains("kubernetesvault_build_info"), "{page}");
        ensure!(scrape(ip, ca, None).await.is_err(), "{pod} serves whoever comes");
    }
    Ok(())
}

/// A plan with the example's sections. The stage has its own `kubernetes`, and names its own address and token.
fn configured(name: &'static str, yaml: &str, rules: &str) -> Result<Plan> {
    let mut example: Value = serde_yaml::from_str(yaml)?;
    let mut plan = Plan::new(name);
    plan.vault = example["vault"].take();
    ensure!(plan.vault["token"] == "$VAULT_TOKEN", "the example takes its token from somewhere else");
    (plan.raft, plan.prometheus) = (example["raft"].take(), example["prometheus"].take());
    plan.rules = format!("\n{rules}\n");
    Ok(plan)
}

/// Mounts a folder of the node at `/tls`, in place of the example's Secret.
fn mount(set: &mut Value, path: &str) -> Result<()> {
    let spec = &mut set["spec"]["template"]["spec"];
    let volume = json!({"name": "tls", "hostPath": {"path": path, "type": "Directory"}});
    spec["volumes"].as_array_mut().context("no volumes")?.push(volume);
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut().context("no mounts")?;
    mounts.push(json!({"name": "tls", "mountPath": "/tls", "readOnly": true}));
    Ok(())
}

/// The one block of the page with this mark.
fn block(mark: &str) -> Result<String> {
    match blocks(mark).as_slice() {
        [one] => Ok(one.clone()),
        all => bail!("docs/secured-examples.md has {} blocks of {mark}", all.len()),
    }
}

fn blocks(mark: &str) -> Vec<String> {
    let begin = format!("```{mark}\n");
    PAGE.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())).collect()
}

/// Where an operator types the example's commands.
struct Bench {
    name: &'static str,
    folder: PathBuf,
    /// Of the Vault whose client is used.
    address: String,
    client: PathBuf,
}

impl Bench {
    fn new(cluster: &Cluster, name: &'static str) -> Result<Self> {
        let bed = cluster.bed()?;
        let folder = bed.directory().join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("vault-ca.pem"), cluster.vault.ca.as_deref().unwrap_or_default())?;
        let vault = bed.vault()?;
        let client = vault.program().parent().map(Path::to_path_buf).context("Vault's program is nowhere")?;
        Ok(Self { name, folder, address: vault.address().to_owned(), client })
    }

    fn on_node(&self) -> String {
        format!("/var/lib/{}", self.name)
    }

    async fn run(&self, commands: &str) -> Result<()> {
        let commands = commands.replace("NAMESPACE=kubernetes-vault\n", &format!("NAMESPACE={}-system\n", self.name));
        let path = format!("{}:{}", self.client.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("/bin/sh")
            .args(["-euc", &commands])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("HOME", &self.folder)
            .env("VAULT_ADDR", &self.address)
            .env("VAULT_TOKEN", testbed::ROOT_TOKEN)
            .env("VAULT_CACERT", self.folder.join("vault-ca.pem"))
            .output()
            .await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the commands end with {}: {told}\n{commands}", output.status);
        Ok(())
    }

    fn read(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(self.folder.join(file)).with_context(|| format!("the commands made no {file}"))
    }
}
