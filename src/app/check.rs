//! `check`: the configuration, then what can be seen of Kubernetes and Vault with the controller's own rights.
//!
//! Owns the order, and what is left out where an earlier part is missing. It takes nothing of the running controller's:
//! no port, no file of `raftDir`, no token that it would have to give back.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

use super::settings;
use crate::causes::with_causes;
use crate::check::{of_error, of_warnings};
use crate::config::{Config, PeerIdentity, ServingCertificate, Source};
use crate::domain::findings::{Finding, Group, Level};
use crate::domain::rights;
use crate::domain::wishes::{Wishes, gather, named};
use crate::k8s::access;
use crate::k8s::client::{self, Client, ClientError, Where};
use crate::k8s::watch::Feed;
use crate::vault;

/// For the list of waiting pods; a large cluster's takes seconds.
const LIST_LIMIT: Duration = Duration::from_secs(30);

/// What was found, and whether there is a configuration at all.
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) configured: bool,
}

/// Checks the configuration at `source`, and all that it names.
pub(super) async fn check(source: &Source) -> Checked {
    let (config, warnings) = match Config::load(source) {
        Ok(loaded) => loaded,
        Err(error) => return Checked { findings: of_error(&error), configured: false },
    };
    let mut findings = of_warnings(&warnings);
    findings.push(Finding::ok(Group::Configuration, format!("{source} can be used")));
    findings.extend(peers(&config.raft.identity));
    let (kubernetes, wishes) = kubernetes(&config).await;
    findings.extend(kubernetes);
    let unknown = wishes.is_none();
    let wishes = wishes.unwrap_or_default();
    let nobody = wishes.roles.is_empty() && wishes.refused.is_empty();
    findings.extend(vault::inspect(&settings::vault_options(&config), &wishes, &certificates(&config)).await);
    findings.extend(wishes.refused);
    if unknown {
        let text = "which AppRoles pods ask for is not known; see Kubernetes";
        findings.push(Finding::new(Group::AppRoles, Level::Warning, text));
    } else if nobody {
        findings.push(Finding::ok(Group::AppRoles, "no annotated pod is pending, so there is no AppRole to look at"));
    }
    Checked { findings, configured: true }
}

fn peers(identity: &PeerIdentity) -> Option<Finding> {
    let PeerIdentity::None { why } = identity else { return None };
    let text = format!(
        "a second replica is not possible, as they would share no secret ({why}); set raft.secrets, or leave it at one"
    );
    Some(Finding::new(Group::Configuration, Level::Warning, &text))
}

fn certificates(config: &Config) -> Vec<vault::CertificateRole> {
    let metrics = config.prometheus.tls.as_ref().and_then(|tls| match &tls.certificate {
        ServingCertificate::VaultPki { mount, role } => Some((mount, role)),
        ServingCertificate::Files { .. } => None,
    });
    let of = |section, (mount, role): (&String, &String)| vault::CertificateRole {
        section,
        mount: mount.clone(),
        role: role.clone(),
    };
    let peers = match &config.raft.identity {
        PeerIdentity::VaultPki(pki) => Some((&pki.mount, &pki.role)),
        _ => None,
    };
    let metrics = metrics.map(|issuer| of("prometheus.tls", issuer));
    metrics.into_iter().chain(peers.map(|issuer| of("raft.tls", issuer))).collect()
}

/// What Kubernetes says, and what pods wish; `None` where that is not known.
async fn kubernetes(config: &Config) -> (Vec<Finding>, Option<Wishes>) {
    let error = |text: &str| Finding::new(Group::Kubernetes, Level::Error, text);
    let (kube, at) = match client::connect_from_anywhere().await {
        Ok(connected) => connected,
        Err(cause) => return (vec![of_failure(&cause)], None),
    };
    let mut findings = Vec::new();
    match access::who_am_i(&kube).await {
        Ok(name) => {
            let name = name.map_or_else(String::new, |name| format!(" to {name}"));
            findings.push(Finding::ok(Group::Kubernetes, format!("the API server answers{name}")));
        }
        Err(cause) => return (vec![error(&cause.to_string())], None),
    }
    if at == Where::Kubeconfig {
        let text = "what follows are the rights of the kubeconfig's user, not those of the controller's service account; \
                    run check in the controller's pod to see the latter";
        findings.push(Finding::new(Group::Kubernetes, Level::Warning, text));
    }
    let kubernetes = &config.kubernetes;
    let service = (kubernetes.service_namespace.as_str(), kubernetes.service.as_str());
    let service = config.raft.peers.is_empty().then_some(service);
    match access::review(&kube, rights::uses(kubernetes.watch_namespace.exact(), service)).await {
        Ok(answers) => findings.extend(rights::judge(&answers)),
        Err(cause) => findings.push(error(&cause.to_string())),
    }
    let wishes = wishes(kube, config, &mut findings).await;
    (findings, wishes)
}

/// Our words end with the remedy: what the library says belongs before it.
fn of_failure(error: &ClientError) -> Finding {
    let mut finding = Finding::new(Group::Kubernetes, Level::Error, &error.to_string());
    if let Some(cause) = error.source() {
        finding.cause += &format!(": {}", with_causes(cause));
    }
    finding
}

async fn wishes(kube: Client, config: &Config, findings: &mut Vec<Finding>) -> Option<Wishes> {
    let warning = |text: &str| Finding::new(Group::Kubernetes, Level::Warning, text);
    let feed = Feed::new(kube, settings::namespaces(&config.kubernetes.watch_namespace));
    let waiting = match timeout(LIST_LIMIT, feed.waiting()).await {
        Ok(Ok(waiting)) => waiting,
        Ok(Err(error)) => {
            findings.push(warning(&format!("the pods that wait cannot be listed: {}", error.0)));
            return None;
        }
        Err(_) => {
            findings.push(warning(&format!("the pods that wait were not listed within {} s", LIST_LIMIT.as_secs())));
            return None;
        }
    };
    if waiting.cut {
        findings
            .push(warning("there are more pending pods than are looked at; the AppRoles of the rest are not checked"));
    }
    if !waiting.undecodable.is_empty() {
        let pods = named(&waiting.undecodable);
        findings.push(warning(&format!("pods that cannot be decoded are not served: {pods}; explain pod tells why")));
    }
    findings.push(Finding::ok(Group::Kubernetes, format!("annotated pods that are pending: {}", waiting.pods.len())));
    Some(gather(&waiting.pods))
}
