//! Replicas that know each other by certificates which are renewed while they deliver; and a real Prometheus that scrapes
//! all of them over mutual TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use serde_json::{Value, json};
use testbed::Signal;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::sample;
use super::failover::{create, served};
use super::scraper::{FileCa, Folder, LIFE, PORT, Pair, VaultPki, scrape};
use super::stage::Plan;
use super::trio::{Trio, stateful_set};

/// How often a certificate is replaced.
const ROTATIONS: usize = 3;
/// Vault's are replaced at half of their life. Twice of what that takes.
const PATIENCE: Duration = LIFE.saturating_mul(4);
/// Where Prometheus listens, on the testbed's own network.
const PROMETHEUS: &str = "127.0.0.1:19090";
/// The name that a peer's certificate may have in place of the URI, where it comes from files.
const SERVICE: &str = "kubernetes-vault.peers-files-system.svc";

pub(crate) const ALL: [(&str, On, Case); 2] = [
    (
        "peers_with_certificates_of_vault_renew_them_without_a_failed_connection_and_prometheus_scrapes_them",
        On::Testbed,
        |cluster| by_vault(cluster).boxed_local(),
    ),
    ("peers_with_certificates_in_files_follow_them_and_the_cas_without_a_failed_connection", On::Testbed, |cluster| {
        by_files(cluster).boxed_local()
    }),
];

async fn by_vault(cluster: Arc<Cluster>) -> Result<()> {
    let vault = &cluster.vault;
    let pki = VaultPki::mount(vault, "peers-pki".to_owned()).await?;
    for role in ["metrics", "scraper"] {
        pki.role(vault, role).await?;
    }
    let uri = "kubernetes-vault://peers-vault-system/kubernetes-vault/peer";
    let peer = json!({"allowed_uri_sans": uri, "require_cn": false, "max_ttl": LIFE.as_secs()});
    vault.write(&format!("{}/roles/peer", pki.mount), &peer).await?;
    let mut plan = Plan::new("peers-vault");
    plan.raft = json!({"tls": {"vaultCertBackend": pki.mount, "vaultCertRole": "peer"}});
    plan.prometheus = json!({"address": format!(":{PORT}"), "tls": {
        "vaultCertBackend": pki.mount, "vaultCertRole": "metrics", "vaultCABackends": pki.mount,
    }});
    plan.rules = pki.rule("peer") + &pki.rule("metrics");
    let trio = Trio::up(&cluster, plan).await?;
    let leader = trio.settled(3).await?;
    let ca = pki.ca(vault).await?;
    let scrapers = Scrapers { cluster: &cluster, trio: &trio, pki: &pki, ca: &ca };
    let prometheus = Prometheus::start(&cluster, &ca, &scrapers).await?;

    let before = scrapers.refused().await?;
    trio.blame(rotates(&trio, &scrapers).await).await?;
    let after = scrapers.refused().await?;
    ensure!(before == after, "peers were refused: {before} before, {after} after");
    ensure!(trio.settled(3).await? == leader, "renewed certificates brought another leader");
    trio.blame(prometheus.never_missed_one().await).await?;

    // A Vault that is sealed parts no peers, not even one that begins anew.
    let pods = trio.pods().await?;
    let follower = pods.iter().find(|pod| **pod != leader).context("no follower")?;
    cluster.bed()?.vault()?.seal().await?;
    let killed = trio.signal(follower, Signal::KILL);
    let together = trio.settled(3).await;
    cluster.bed()?.vault()?.unseal().await?;
    killed.and(together)?;
    let last = create(&trio.stage, "last", 2).await?;
    served(&trio, &last).await
}

async fn by_files(cluster: Arc<Cluster>) -> Result<()> {
    let (old, new) = (FileCa::new("old CA")?, FileCa::new("new CA")?);
    let path = "/var/lib/peers-files";
    let folder = Folder::new(&cluster, path)?;
    let show = |ca: &FileCa, believed: &str| {
        let pair = ca.issue(&[SERVICE])?;
        folder.swap(&[("tls.crt", &pair.certificate), ("tls.key", &pair.key), ("ca.crt", believed)])
    };
    show(&old, &old.pem())?;
    let mut set = stateful_set()?;
    let spec = &mut set["spec"]["template"]["spec"];
    let volume = json!({"name": "peer-tls", "hostPath": {"path": path, "type": "Directory"}});
    spec["volumes"].as_array_mut().context("no volumes")?.push(volume);
    let mounts = &mut spec["containers"][0]["volumeMounts"];
    mounts
        .as_array_mut()
        .context("no mounts")?
        .push(json!({"name": "peer-tls", "mountPath": "/peer", "readOnly": true}));
    let mut plan = Plan::new("peers-files");
    plan.replicas = Some(vec![set]);
    plan.raft = json!({"tls": {"certFile": "/peer/tls.crt", "certKey": "/peer/tls.key", "caCert": "/peer/ca.crt"}});
    let trio = Trio::up(&cluster, plan).await?;
    let leader = trio.settled(3).await?;

    let refused_by_all = async || {
        let mut all = 0;
        for pod in trio.pods().await? {
            all += refused(&trio.stage.controller.metrics_of(&cluster, &pod).await?)?;
        }
        anyhow::Ok(all)
    };
    let before = refused_by_all().await?;
    // The usual way of a CA: it is believed before it is shown, and the old one goes when nobody shows it any more.
    let both = old.pem() + &new.pem();
    for (step, (ca, believed)) in [(&old, both.clone()), (&new, both), (&new, new.pem())].into_iter().enumerate() {
        show(ca, &believed)?;
        let pods = create(&trio.stage, &format!("step-{step}"), 2).await?;
        served(&trio, &pods).await?;
        let wanted = u64::try_from(step)? + 1;
        let followed = eventually("reload on all replicas", LIMIT, || async {
            for pod in trio.pods().await? {
                let metrics = trio.stage.controller.metrics_of(&cluster, &pod).await?;
                if reloads(&metrics)? < wanted {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        trio.blame(followed.await).await?;
    }
    ensure!(refused_by_all().await? == before, "peers were refused");
    ensure!(trio.settled(3).await? == leader, "replaced certificates brought another leader");
    // Half a pair is no pair: it is told, and the old one stays in use.
    folder.swap(&[("tls.crt", &new.issue(&[SERVICE])?.certificate), ("tls.key", "half"), ("ca.crt", &new.pem())])?;
    let told = eventually("a reload that fails", LIMIT, || async {
        let metrics = trio.stage.controller.metrics_of(&cluster, &leader).await?;
        let failing: Option<u8> = sample(&metrics, "kubernetesvault_tls_reload_failing{use=\"peers\"}");
        Ok((failing == Some(1)).then_some(()))
    });
    trio.blame(told.await).await?;
    let last = create(&trio.stage, "last", 2).await?;
    served(&trio, &last).await
}

fn reloads(metrics: &str) -> Result<u64> {
    let series = "kubernetesvault_tls_reloads_total{result=\"ok\",use=\"peers\"}";
    sample(metrics, series).context("reloads are not counted")
}

fn refused(metrics: &str) -> Result<u64> {
    sample(metrics, "kubernetesvault_peers_refused_total{cause=\"stranger\"}").context("refusals are not counted")
}

/// Who may scrape the replicas.
struct Scrapers<'a> {
    cluster: &'a Cluster,
    trio: &'a Trio,
    pki: &'a VaultPki,
    ca: &'a str,
}

impl Scrapers<'_> {
    async fn own(&self) -> Result<Pair> {
        self.pki.issue(&self.cluster.vault, "scraper").await
    }

    fn address(&self, pod: &str) -> Result<IpAddr> {
        let namespace = self.trio.namespace();
        Ok(self.cluster.bed()?.node_of(namespace, pod)?.network(namespace, pod)?.ip.into())
    }

    /// How many peers were refused by all of them.
    async fn refused(&self) -> Result<u64> {
        let mut all = 0;
        for pod in self.trio.pods().await? {
            all += refused(&self.page(&pod).await?)?;
        }
        Ok(all)
    }

    async fn page(&self, pod: &str) -> Result<String> {
        Ok(scrape(self.address(pod)?, self.ca, Some(&self.own().await?)).await?.0)
    }
}

/// Each replica renews what it shows to peers three times, while pods are served all the time.
async fn rotates(trio: &Trio, scrapers: &Scrapers<'_>) -> Result<()> {
    let begun = Instant::now();
    let mut seen: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for round in 0_u32.. {
        ensure!(begun.elapsed() < PATIENCE, "certificates were not renewed {ROTATIONS} times in {PATIENCE:?}");
        let pods = create(&trio.stage, &format!("round-{round}"), 2).await?;
        served(trio, &pods).await?;
        for pod in trio.pods().await? {
            let metrics = scrapers.page(&pod).await?;
            let series = "kubernetesvault_certificate_expiry_timestamp_seconds{use=\"peers\"}";
            seen.entry(pod).or_default().insert(sample(&metrics, series).context("no expiry")?);
        }
        // The first one, and each that followed.
        if seen.values().all(|expiries| expiries.len() > ROTATIONS) {
            return Ok(());
        }
    }
    unreachable!("the loop has an end")
}

/// The real one, with a certificate of its own; it looks every second.
struct Prometheus {
    _process: Child,
    http: reqwest::Client,
    targets: usize,
    /// Since when all of them were up.
    up: Instant,
}

impl Prometheus {
    async fn start(cluster: &Cluster, ca: &str, scrapers: &Scrapers<'_>) -> Result<Self> {
        // Its certificate has to outlive the case; it reads files anew for each connection, which is not our concern.
        let role = json!({"allow_any_name": true, "max_ttl": "1h"});
        cluster.vault.write(&format!("{}/roles/prometheus", scrapers.pki.mount), &role).await?;
        let own = scrapers.pki.issue(&cluster.vault, "prometheus").await?;
        let folder = cluster.bed()?.directory().join("prometheus");
        std::fs::create_dir_all(&folder)?;
        let file = |name: &str, content: &str| -> Result<String> {
            std::fs::write(folder.join(name), content)?;
            Ok(folder.join(name).display().to_string())
        };
        let mut targets = Vec::new();
        for pod in scrapers.trio.pods().await? {
            targets.push(format!("{}:{PORT}", scrapers.address(&pod)?));
        }
        let count = targets.len();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{
                "job_name": "kubernetes-vault", "scheme": "https", "static_configs": [{"targets": targets}],
                "tls_config": {
                    "ca_file": file("ca.pem", ca)?, "cert_file": file("own.pem", &own.certificate)?,
                    "key_file": file("own.key", &own.key)?, "server_name": "kubernetes-vault",
                },
            }],
        });
        let config = file("prometheus.yml", &config.to_string())?;
        let log = std::fs::File::create(folder.join("log"))?;
        let process = Command::new("prometheus")
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("Prometheus does not start; scripts/prerequisites installs it")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut started = Self { _process: process, http, targets: count, up: Instant::now() };
        let up = || async { Ok((started.value("sum(up)").await? == Some(count)).then_some(())) };
        eventually("all targets up in Prometheus", LIMIT, up).await?;
        started.up = Instant::now();
        Ok(started)
    }

    /// The one value that `query` has now.
    async fn value(&self, query: &str) -> Result<Option<usize>> {
        let url = url::Url::parse_with_params(&format!("http://{PROMETHEUS}/api/v1/query"), [("query", query)])?;
        let Ok(answer) = self.http.get(url).send().await else { return Ok(None) };
        let answer: Value = answer.json().await?;
        let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
        Ok(value.and_then(|value| value.parse().ok()))
    }

    /// Since all of them were up.
    async fn never_missed_one(&self) -> Result<()> {
        let least = self.value(&format!("min(min_over_time(up[{}s]))", self.up.elapsed().as_secs())).await?;
        let seen = self.value("count(kubernetesvault_build_info)").await?;
        ensure!(seen == Some(self.targets), "Prometheus knows {seen:?} replicas");
        ensure!(least == Some(1), "Prometheus missed a scrape");
        Ok(())
    }
}
