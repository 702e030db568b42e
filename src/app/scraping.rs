//! The metrics listener's TLS: where its certificate and its CAs come from, and the configuration made of both.
//!
//! Owns the moment from which there is a listener: metrics that are to be protected are never served in clear, so where
//! Vault issues the certificate there is none before it has done so.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ServerConfig;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Error, reload};
use crate::admin;
use crate::clock::Clock;
use crate::config::{ClientCas, Config, PrometheusTls, ServingCertificate};
use crate::metrics::{Metrics, TlsUse};
use crate::tls::{self, Named, ScraperCas, Shown};
use crate::vault::{CertificateRequest, Handle, IssuedCertificate};

const CERT: &str = "prometheus.tls.certFile";
const KEY: &str = "prometheus.tls.certKey";
const CA: &str = "prometheus.tls.caCert";

/// What the configuration is made of. A part that is still to come is `None`.
struct Parts {
    shown: Option<Shown>,
    clients: Clients,
}

enum Clients {
    /// Anybody may scrape.
    Anybody,
    /// Only those with a certificate, and it is not known yet of whom.
    Unknown,
    Known(ScraperCas),
}

/// See the module.
pub(super) struct ScraperTls {
    parts: Mutex<Parts>,
    config: watch::Sender<Option<Arc<ServerConfig>>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl ScraperTls {
    /// Reads what is there, and follows its changes until `stop`; asks Vault for the rest.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(super) fn start(
        config: &Config,
        tls: &PrometheusTls,
        vault: &Handle,
        (metrics, clock): (Arc<Metrics>, Arc<dyn Clock>),
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let clients = if tls.clients.is_some() { Clients::Unknown } else { Clients::Anybody };
        let parts = Mutex::new(Parts { shown: None, clients });
        let this = Arc::new(Self { parts, config: watch::Sender::new(None), metrics, clock });
        let follow = |work: BoxFuture<'static, ()>| {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(work).await });
        };
        match &tls.clients {
            None => {}
            Some(ClientCas::File(path)) => {
                this.believe_file(path).map_err(Error::ScraperTls)?;
                let (own, file) = (Arc::clone(&this), path.clone());
                let load = move || own.believe_file(&file).map_err(|error| with_causes(&error));
                let (paths, metrics) = (vec![path.clone()], Arc::clone(&this.metrics));
                follow(Box::pin(reload::follow(paths, TlsUse::MetricsClients, metrics, load)));
            }
            Some(ClientCas::VaultPki(mounts)) => {
                let (own, vault, mounts) = (Arc::clone(&this), vault.clone(), mounts.clone());
                follow(Box::pin(async move {
                    let failing = |failing| own.metrics.tls_reloaded(TlsUse::MetricsClients, failing);
                    vault.follow_cas(&mounts, |bundle| own.believe_vault(bundle), failing).await;
                }));
            }
        }
        match &tls.certificate {
            ServingCertificate::Files { cert, key } => {
                this.show_files(cert, key).map_err(Error::ScraperTls)?;
                let (own, files) = (Arc::clone(&this), (cert.clone(), key.clone()));
                let load = move || own.show_files(&files.0, &files.1).map_err(|error| with_causes(&error));
                let (paths, metrics) = (vec![cert.clone(), key.clone()], Arc::clone(&this.metrics));
                follow(Box::pin(reload::follow(paths, TlsUse::Metrics, metrics, load)));
            }
            ServingCertificate::VaultPki { mount, role } => {
                let request = CertificateRequest {
                    mount: mount.clone(),
                    role: role.clone(),
                    common_name: config.kubernetes.service.clone(),
                    alt_names: std::env::var("HOSTNAME").unwrap_or_default(),
                    ip_sans: own_address().map(|ip| ip.to_string()).unwrap_or_default(),
                    ..CertificateRequest::default()
                };
                let (own, vault) = (Arc::clone(&this), vault.clone());
                let clock = own.clock.clone();
                follow(Box::pin(async move {
                    let (now, never) = (move || clock.now().0 / 1000, Notify::new());
                    vault
                        .keep_certificate(request, Duration::ZERO, &never, now, |issued| own.show_vault(&issued))
                        .await;
                }));
            }
        }
        Ok(this)
    }

    /// What admin listens with, once it is complete. Never completes where it never is.
    pub(super) async fn listening(self: &Arc<Self>) -> admin::Options {
        let mut config = self.config.subscribe();
        // The sender is `self`.
        let _ = config.wait_for(Option::is_some).await;
        admin::Options { tls: Some(config), door: Some(Arc::new(ScraperDoor(Arc::clone(&self.metrics)))) }
    }

    fn show_files(&self, cert: &Path, key: &Path) -> Result<(), tls::Error> {
        let shown = Shown::from_files(&Named::new(CERT, cert), &Named::new(KEY, key), self.clock.now())?;
        self.show(shown)
    }

    fn show_vault(&self, issued: &IssuedCertificate) -> Result<(), String> {
        let shown = Shown::from_vault(&issued.certificate, &issued.ca_chain, &issued.private_key, self.clock.now());
        let taken = shown.and_then(|shown| self.show(shown));
        self.metrics.tls_reloaded(TlsUse::Metrics, taken.is_err());
        taken.map_err(|error| with_causes(&error))
    }

    fn believe_file(&self, path: &Path) -> Result<(), tls::Error> {
        self.believe(ScraperCas::from_file(&Named::new(CA, path))?)
    }

    fn believe_vault(&self, bundle: &str) -> Result<(), String> {
        let taken = ScraperCas::from_vault(bundle).and_then(|cas| self.believe(cas));
        self.metrics.tls_reloaded(TlsUse::MetricsClients, taken.is_err());
        taken.map_err(|error| with_causes(&error))
    }

    fn show(&self, shown: Shown) -> Result<(), tls::Error> {
        let until = shown.validity.not_after;
        self.change(|parts| parts.shown = Some(shown))?;
        self.metrics.certificate_expires(TlsUse::Metrics, Some(until));
        Ok(())
    }

    fn believe(&self, cas: ScraperCas) -> Result<(), tls::Error> {
        let until = cas.validity.not_after;
        self.change(|parts| parts.clients = Clients::Known(cas))?;
        self.metrics.certificate_expires(TlsUse::MetricsClients, Some(until));
        Ok(())
    }

    /// Makes the configuration anew. What goes in was checked alone; together the parts do not depend on each other.
    fn change(&self, change: impl FnOnce(&mut Parts)) -> Result<(), tls::Error> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let (Some(shown), clients) = (&parts.shown, &parts.clients) else { return Ok(()) };
        let clients = match clients {
            Clients::Anybody => None,
            Clients::Unknown => return Ok(()),
            Clients::Known(cas) => Some(cas),
        };
        self.config.send_replace(Some(tls::scraper_config(shown, clients)?));
        Ok(())
    }
}

/// Counts who is not let in to the metrics.
pub(super) struct ScraperDoor(pub(super) Arc<Metrics>);

impl admin::Door for ScraperDoor {
    fn cause(&self, error: &io::Error) -> &'static str {
        tls::scraper_refusal(error)
    }

    fn refused(&self, cause: &'static str) {
        self.0.scraper_refused(cause);
    }
}

fn with_causes(error: &tls::Error) -> String {
    crate::causes::with_causes(error)
}

/// This replica's address, as its pod has it: from the downward API, or what packets to the API server would come from
/// (none is sent).
fn own_address() -> Option<IpAddr> {
    if let Some(ip) = std::env::var("POD_IP").ok().and_then(|text| text.parse().ok()) {
        return Some(ip);
    }
    let server: IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse().ok()? } else { "[::]:0".parse().ok()? };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((server, 443)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
