//! The controller's configuration file, in its ConfigMap.
//!
//! Must never happen: a token in it. Everybody who may read ConfigMaps would have it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use super::case::Case;
use super::document::Document;
use super::network::METRICS_PORT;
use super::parts::named;
use super::settings::{NAME, Settings};
use super::yaml;

/// The PKI mount of `deploy/vault/pki.sh`.
const PKI: &str = "pki";
const FILE: &str = "configmap.yaml";
/// How far a file in a ConfigMap is indented.
const MARGIN: usize = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    vault: Vault,
    kubernetes: Kubernetes,
    #[serde(skip_serializing_if = "Option::is_none")]
    raft: Option<Raft>,
    prometheus: Prometheus,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
}

#[derive(Serialize)]
struct Vault {
    addr: String,
    token: &'static str,
    #[serde(rename = "wrappingTTL", skip_serializing_if = "Option::is_none")]
    wrapping_ttl: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<VaultTls>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VaultTls {
    ca_cert: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kubernetes {
    watch_namespace: String,
    service_namespace: String,
    service: &'static str,
}

#[derive(Serialize)]
struct Raft {
    tls: Certificates,
}

#[derive(Serialize)]
struct Prometheus {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Certificates>,
}

#[derive(Serialize)]
struct Log {
    level: &'static str,
}

/// Where certificates come from, and who is believed.
#[derive(Serialize)]
#[serde(untagged)]
enum Certificates {
    #[serde(rename_all = "camelCase")]
    Files { cert_file: &'static str, cert_key: &'static str, ca_cert: &'static str },
    #[serde(rename_all = "camelCase")]
    Vault {
        vault_cert_backend: &'static str,
        vault_cert_role: &'static str,
        #[serde(rename = "vaultCABackends", skip_serializing_if = "Option::is_none")]
        vault_ca_backends: Option<[&'static str; 1]>,
    },
}

/// The ConfigMap of all cases but the Go version's.
pub(super) fn config_map(settings: &Settings) -> Document {
    let map = map(settings, &configuration(settings), &notes(settings));
    let secret = &settings.secret;
    let head = if settings.vault_addr.is_some() {
        format!(
            "$NAME is replaced by the environment variable NAME. The controller takes VAULT_TOKEN from the Secret {secret}, \
             so that no token stands here."
        )
    } else {
        format!(
            "$NAME is replaced by the environment variable NAME. The controller takes VAULT_ADDR and VAULT_TOKEN from the \
             Secret {secret}, so that nothing has to be edited here, and no token stands here."
        )
    };
    Document::new(FILE, &map).head(head)
}

/// The ConfigMap of the Go version's quick start.
pub(super) fn of_the_go_version(settings: &Settings) -> Document {
    let namespace = "${KUBERNETES_NAMESPACE}".to_owned();
    let configuration = Configuration {
        vault: Vault {
            addr: settings.vault_addr.clone().unwrap_or_else(|| "http://vault:8200".to_owned()),
            token: "$VAULT_TOKEN",
            wrapping_ttl: None,
            tls: None,
        },
        kubernetes: Kubernetes { watch_namespace: namespace.clone(), service_namespace: namespace, service: NAME },
        raft: None,
        prometheus: Prometheus {
            address: None,
            tls: Some(Certificates::Vault {
                vault_cert_backend: "intermediate-ca",
                vault_cert_role: NAME,
                vault_ca_backends: None,
            }),
        },
        log: None,
    };
    let notes = [(
        "/prometheus".to_owned(),
        "On port 443, the default. Where a process without privileges cannot bind it, there is a warning and no metrics."
            .to_owned(),
    )];
    Document::new(FILE, &map(settings, &configuration, &notes)).head(
        "The Go version had the token itself in here, where everybody who may read ConfigMaps could read it. It comes from \
         a Secret now.",
    )
}

fn map(settings: &Settings, configuration: &Configuration, notes: &[yaml::Note]) -> ConfigMap {
    let value = serde_yaml::to_value(configuration).expect("a configuration has a form in YAML");
    let file = yaml::emit(&value, notes, MARGIN);
    ConfigMap {
        metadata: named(&settings.namespace, NAME),
        data: Some(BTreeMap::from([("kubernetes-vault.yml".to_owned(), file)])),
        ..ConfigMap::default()
    }
}

fn configuration(settings: &Settings) -> Configuration {
    let is_secured = settings.case.is_secured();
    Configuration {
        vault: Vault {
            addr: settings.vault_addr.clone().unwrap_or_else(|| "$VAULT_ADDR".to_owned()),
            token: "$VAULT_TOKEN",
            wrapping_ttl: Some("60s"),
            tls: is_secured.then_some(VaultTls { ca_cert: "/tls/vault-ca.crt" }),
        },
        kubernetes: Kubernetes {
            watch_namespace: settings.watch.text().to_owned(),
            service_namespace: settings.namespace.clone(),
            service: NAME,
        },
        raft: peers(settings.case).map(|tls| Raft { tls }),
        prometheus: Prometheus { address: Some(format!(":{METRICS_PORT}")), tls: metrics(settings.case) },
        log: Some(Log { level: "info" }),
    }
}

fn peers(case: Case) -> Option<Certificates> {
    match case {
        Case::Production => Some(Certificates::Vault {
            vault_cert_backend: PKI,
            vault_cert_role: "kubernetes-vault-peer",
            vault_ca_backends: None,
        }),
        Case::ExternalCa => {
            Some(Certificates::Files { cert_file: "/tls/peer.crt", cert_key: "/tls/peer.key", ca_cert: "/tls/ca.crt" })
        }
        _ => None,
    }
}

fn metrics(case: Case) -> Option<Certificates> {
    match case {
        Case::Production => Some(Certificates::Vault {
            vault_cert_backend: PKI,
            vault_cert_role: "kubernetes-vault-metrics",
            vault_ca_backends: Some([PKI]),
        }),
        Case::ExternalCa => Some(Certificates::Files {
            cert_file: "/tls/metrics.crt",
            cert_key: "/tls/metrics.key",
            ca_cert: "/tls/ca.crt",
        }),
        _ => None,
    }
}

fn notes(settings: &Settings) -> Vec<yaml::Note> {
    let watched = if settings.watch.one().is_some() {
        "A plain name: only this namespace is watched, and a Role in it is enough. Every pod in there may ask for every \
         AppRole that the controller's Vault policy covers."
    } else {
        "A namespace, or ~ and a regular expression. Keep it narrow: every pod in there may ask for every AppRole that the \
         controller's Vault policy covers."
    };
    let addr = if settings.case.is_secured() {
        "Pods get this address as it is written, so it must be one that they can reach."
    } else {
        "Pods get this address as it is written, so it must be one that they can reach. Over http:// tokens cross the \
         network in clear: for a trial. For anything else see production and external-ca."
    };
    let mut notes = vec![
        ("/vault/addr", addr),
        ("/vault/token", "A renewable, periodic token of a token role; the controller renews it."),
        ("/vault/wrappingTTL", "How long an init container has to unwrap its secret_id."),
        ("/kubernetes/watchNamespace", watched),
    ];
    match settings.case {
        Case::Production => notes.extend([
            (
                "/vault/tls",
                "The one CA that Vault's certificate is believed by, here and in the pods, which get it as ca.crt. From a \
                 file, so that nobody in between can show another one.",
            ),
            (
                "/raft/tls",
                "How replicas know each other: certificates of a PKI role that is for them alone. So whoever has the \
                 controller's token for Vault cannot pass for a replica by it.",
            ),
            (
                "/prometheus/tls/vaultCABackends",
                "Only who has a client certificate of this mount may scrape. Metrics name AppRoles and nodes.",
            ),
        ]),
        Case::ExternalCa => notes.extend([
            (
                "/vault/tls",
                "The one CA that Vault's certificate is believed by, here and in the pods, which get it as ca.crt.",
            ),
            (
                "/raft/tls",
                "How replicas know each other: by the URI kubernetes-vault://NAMESPACE/kubernetes-vault/peer in their \
                 certificate. A renewed file is in use ten seconds after the kubelet has brought it.",
            ),
            ("/prometheus/tls/caCert", "Only who has a client certificate of this CA may scrape."),
        ]),
        _ => notes.push((
            "/prometheus/address",
            "The default is port 80, which a process without privileges cannot bind everywhere.",
        )),
    }
    notes.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::case::Mode;

    #[test]
    fn every_comment_in_the_file_stands_above_something() {
        for (_, case) in Case::ALL.into_iter().filter(|(_, case)| case.has_base()) {
            let settings = Settings::documented(case, Mode::Token, BTreeMap::new());
            let value = serde_json::to_value(configuration(&settings)).unwrap();
            for (path, _) in notes(&settings) {
                assert!(value.pointer(&path).is_some(), "{case:?}: {path}");
            }
        }
    }
}
