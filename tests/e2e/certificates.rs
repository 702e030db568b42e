//! The metrics page over TLS: each combination of where its certificate and the CAs of scrapers come from, with certificates
//! that live for a minute and are replaced three times while it is scraped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::bed::{Case, On};
use super::cluster::{Cluster, LIMIT, eventually};
use super::controller::{NAME, sample};
use super::scraper::{FileCa, Folder, LIFE, PORT, Pair, VaultPki, scrape};
use super::stage::{Plan, Stage};

/// How often a certificate is replaced.
const ROTATIONS: usize = 3;
/// Files are replaced this often, so that each is in use well before its predecessor runs out.
const FILES_EVERY: Duration = Duration::from_secs(20);
/// Vault's are replaced by the controller at half of their life. Twice of what that takes.
const PATIENCE: Duration = LIFE.saturating_mul(4);
/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_millis(250);

pub(crate) const ALL: [(&str, On, Case); 1] =
    [("the_metrics_page_over_tls_by_every_combination_rotates_without_a_failed_scrape", On::Testbed, |cluster| {
        every_combination(cluster).boxed_local()
    })];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Nowhere,
    Vault,
    Files,
}

/// What all combinations share.
struct Issuers {
    /// Of the page.
    pki: VaultPki,
    files: FileCa,
    /// Of scrapers.
    scraper_pki: VaultPki,
    scraper_files: FileCa,
}

async fn every_combination(cluster: Arc<Cluster>) -> Result<()> {
    let vault = &cluster.vault;
    let issuers = Issuers {
        pki: VaultPki::mount(vault, "tls-pki".to_owned()).await?,
        files: FileCa::new("the company's CA")?,
        scraper_pki: VaultPki::mount(vault, "tls-scrapers".to_owned()).await?,
        scraper_files: FileCa::new("the CA of scrapers")?,
    };
    issuers.pki.role(vault, "metrics").await?;
    issuers.scraper_pki.role(vault, "scraper").await?;
    let combinations = [
        ("tls-vault-open", Source::Vault, Source::Nowhere),
        ("tls-vault-vault", Source::Vault, Source::Vault),
        ("tls-vault-file", Source::Vault, Source::Files),
        ("tls-files-open", Source::Files, Source::Nowhere),
        ("tls-files-vault", Source::Files, Source::Vault),
        ("tls-files-file", Source::Files, Source::Files),
    ];
    let cases = combinations.map(|(name, page, scrapers)| {
        let (cluster, issuers) = (&cluster, &issuers);
        async move { combination(cluster, issuers, name, page, scrapers).await.context(name) }.boxed_local()
    });
    try_join_all(cases).await.map(drop)
}

async fn combination(
    cluster: &Arc<Cluster>,
    issuers: &Issuers,
    name: &'static str,
    page: Source,
    scrapers: Source,
) -> Result<()> {
    let path = format!("/var/lib/{name}");
    let folder = Folder::new(cluster, &path)?;
    renew(&folder, issuers)?;
    let mut plan = Plan::new(name);
    let tls = &mut plan.prometheus;
    *tls = json!({"address": format!(":{PORT}"), "tls": {}});
    let mut set = |key: &str, value: Value| tls["tls"][key] = value;
    match page {
        Source::Vault => {
            set("vaultCertBackend", json!(issuers.pki.mount));
            set("vaultCertRole", json!("metrics"));
        }
        _ => {
            set("certFile", json!("/tls/tls.crt"));
            set("certKey", json!("/tls/tls.key"));
        }
    }
    match scrapers {
        Source::Nowhere => {}
        Source::Vault => set("vaultCABackends", json!([issuers.scraper_pki.mount])),
        Source::Files => set("caCert", json!("/tls/ca.crt")),
    }
    plan.rules = issuers.pki.rule("metrics");
    plan.volumes = vec![json!({"name": "tls", "hostPath": {"path": path, "type": "DirectoryOrCreate"}})];
    plan.mounts = vec![json!({"name": "tls", "mountPath": "/tls", "readOnly": true})];
    let stage = Stage::up(cluster, plan).await?;
    let rotated = rotates(&stage, issuers, &folder, page, scrapers).await;
    stage.blame(rotated).await
}

/// New files, of the page and of scrapers.
fn renew(folder: &Folder, issuers: &Issuers) -> Result<()> {
    let pair = issuers.files.issue(&[NAME])?;
    let files = [("tls.crt", &*pair.certificate), ("tls.key", &pair.key), ("ca.crt", &issuers.scraper_files.pem())];
    folder.swap(&files)
}

async fn rotates(stage: &Stage, issuers: &Issuers, folder: &Folder, page: Source, scrapers: Source) -> Result<()> {
    let cluster = &stage.cluster;
    let ip = address(stage).await?;
    let ca = match page {
        Source::Vault => issuers.pki.ca(&cluster.vault).await?,
        _ => issuers.files.pem(),
    };
    let own = RefCell::new(scraper(cluster, issuers, scrapers).await?);
    let renewed = Cell::new(Instant::now());
    let keep_fresh = || async {
        if renewed.get().elapsed() >= FILES_EVERY {
            renew(folder, issuers)?;
            *own.borrow_mut() = scraper(cluster, issuers, scrapers).await?;
            renewed.set(Instant::now());
        }
        anyhow::Ok(())
    };
    let scraped = || {
        let own = own.borrow().clone();
        let ca = &ca;
        async move { scrape(ip, ca, own.as_ref()).await }
    };
    // A busy machine may take longer to start it than a certificate lives.
    let served = || async {
        keep_fresh().await?;
        Ok(scraped().await.ok().map(drop))
    };
    eventually("metrics page over TLS", LIMIT, served).await?;

    let (mut shown, mut scrapes) = (BTreeSet::new(), 0);
    let begun = Instant::now();
    while shown.len() <= ROTATIONS {
        ensure!(begun.elapsed() < PATIENCE, "only {} certificates were shown in {PATIENCE:?}", shown.len());
        keep_fresh().await?;
        let (_, certificate) = scraped().await.with_context(|| format!("scrape {scrapes}"))?;
        shown.insert(certificate);
        scrapes += 1;
        sleep(SCRAPE_EVERY).await;
    }

    let (metrics, _) = scraped().await?;
    let reloads = "kubernetesvault_tls_reloads_total{result=\"ok\",use=\"metrics\"}";
    ensure!(sample::<u64>(&metrics, reloads).is_some_and(|times| times >= 3), "not counted:\n{metrics}");
    let renewals = "kubernetesvault_vault_certificate_renewal_requests_total";
    let asked: u64 = sample(&metrics, renewals).context("no renewals")?;
    ensure!((page == Source::Vault) == (asked > 0), "{asked} requests for certificates");
    let expiry = "kubernetesvault_certificate_expiry_timestamp_seconds{use=\"metrics\"}";
    ensure!(sample::<i64>(&metrics, expiry).is_some_and(|at| at > 0), "no expiry:\n{metrics}");
    strangers(ip, &ca, scrapers).await
}

/// A certificate for whoever scrapes, where one is asked for.
async fn scraper(cluster: &Cluster, issuers: &Issuers, from: Source) -> Result<Option<Pair>> {
    Ok(match from {
        Source::Nowhere => None,
        Source::Vault => Some(issuers.scraper_pki.issue(&cluster.vault, "scraper").await?),
        Source::Files => Some(issuers.scraper_files.issue(&["prometheus"])?),
    })
}

/// Whoever has no certificate, or one of another CA, gets no page; where none is asked for, whoever comes does.
async fn strangers(ip: IpAddr, ca: &str, scrapers: Source) -> Result<()> {
    let other = FileCa::new("another CA")?.issue(&["prometheus"])?;
    for own in [None, Some(&other)] {
        let served = scrape(ip, ca, own).await.is_ok();
        ensure!(served == (scrapers == Source::Nowhere), "with a certificate: {}, served: {served}", own.is_some());
    }
    Ok(())
}

async fn address(stage: &Stage) -> Result<IpAddr> {
    let pod = stage.controller.pod(&stage.cluster).await?;
    let ip = |pod: &Value| pod.pointer("/status/podIP").and_then(Value::as_str).map(str::to_owned);
    let namespace = &stage.controller.namespace;
    let seen = stage.cluster.pod_when(namespace, &pod, "address", |pod| ip(pod).is_some()).await?;
    Ok(ip(&seen).context("no address")?.parse()?)
}
