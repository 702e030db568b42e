//! What the Prometheus operator and Grafana need: whom to scrape, the alerts, the dashboard.
//!
//! Alerts and dashboard are those of `deploy/monitoring`, compiled in. The operator's kinds are small types of our own:
//! its library would bring a second version of everything for three objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::kustomize::Generated;
use super::parts::{labelled, labels, selector};
use super::settings::{NAME, Settings};

const DASHBOARD: &str = include_str!("../../deploy/monitoring/dashboard.json");
const RULES: &str = include_str!("../../deploy/monitoring/rules.yaml");
/// The file of the dashboard, in the folder and in the ConfigMap.
const DASHBOARD_FILE: &str = "dashboard.json";
const DASHBOARD_NAME: &str = "kubernetes-vault-dashboard";
const API: &str = "monitoring.coreos.com/v1";
/// The one that the service monitor is in, also where it stands as a patch.
pub(super) const MONITOR_FILE: &str = "service-monitor.yaml";
/// As Grafana's sidecar looks for dashboards unless told otherwise.
const DASHBOARD_LABEL: (&str, &str) = ("grafana_dashboard", "1");
/// Where Prometheus' own certificate is, where the documented case has one.
pub(super) const SCRAPER_SECRET: &str = "kubernetes-vault-scraper";

/// An object of the operator.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: S,
}

#[derive(Serialize)]
struct ServiceMonitor {
    selector: LabelSelector,
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    port: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_config: Option<TlsConfig>,
    relabelings: Vec<Relabeling>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsConfig {
    server_name: &'static str,
    ca: SecretOrConfigMap,
    cert: SecretOrConfigMap,
    key_secret: Key,
}

#[derive(Serialize)]
struct SecretOrConfigMap {
    secret: Key,
}

#[derive(Serialize)]
struct Key {
    name: String,
    key: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relabeling {
    source_labels: [&'static str; 1],
    target_label: &'static str,
}

/// A rules file of Prometheus, which is the spec of a `PrometheusRule` as well.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Whom to scrape.
pub(super) fn service_monitor(settings: &Settings) -> Document {
    let key = |key| Key { name: settings.tls_secret.clone().unwrap_or_default(), key };
    let tls = settings.tls_secret.is_some().then(|| TlsConfig {
        server_name: NAME,
        ca: SecretOrConfigMap { secret: key("ca.crt") },
        cert: SecretOrConfigMap { secret: key("tls.crt") },
        key_secret: key("tls.key"),
    });
    let endpoint = Endpoint {
        port: "metrics",
        scheme: tls.as_ref().map(|_| "https"),
        tls_config: tls,
        relabelings: vec![Relabeling { source_labels: ["__meta_kubernetes_pod_name"], target_label: "instance" }],
    };
    let monitor = Object {
        api_version: API,
        kind: "ServiceMonitor",
        metadata: labelled(&settings.namespace, NAME),
        spec: ServiceMonitor { selector: selector(labels(NAME)), endpoints: vec![endpoint] },
    };
    let document = Document::new(MONITOR_FILE, &monitor)
        .head(
            "Each replica has a page of its own: all of them behind the headless service are scraped. Where your Prometheus \
             selects by a label, such as release, add it in an overlay.",
        )
        .note("/spec/endpoints/0/relabelings", "By the pod's name, as the dashboard shows replicas.");
    if settings.tls_secret.is_none() {
        return document;
    }
    document
        .note(
            "/spec/endpoints/0/tlsConfig",
            "Prometheus' own certificate, its key, and the CA of the metrics page, in one Secret.",
        )
        .note("/spec/endpoints/0/tlsConfig/serverName", "The name in the certificate of each replica: the service's.")
}

/// The alerts.
pub(super) fn rules(settings: &Settings) -> Document {
    let rules: Rules = serde_yaml::from_str(RULES).expect("a test reads the rules that are compiled in");
    let rule =
        Object { api_version: API, kind: "PrometheusRule", metadata: labelled(&settings.namespace, NAME), spec: rules };
    Document::new("prometheus-rule.yaml", &rule).head(
        "The alerts of rules.yaml, where each has its reasons; what to do is in docs/runbooks.md. runbook_url is a path in \
         this repository: put the address in front at which your operators read it.",
    )
}

/// The dashboard, where no Kustomize puts it into its ConfigMap.
pub(super) fn dashboard(settings: &Settings) -> Document {
    let mut metadata = labelled(&settings.namespace, DASHBOARD_NAME);
    metadata.labels = Some(BTreeMap::from([(DASHBOARD_LABEL.0.to_owned(), DASHBOARD_LABEL.1.to_owned())]));
    let map = ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(DASHBOARD_FILE.to_owned(), DASHBOARD.to_owned())])),
        ..ConfigMap::default()
    };
    Document::new("dashboard.yaml", &map).head("Grafana's sidecar loads ConfigMaps with this label.")
}

/// The same for Kustomize, from a file.
pub(super) fn generated_dashboard() -> (Generated, (&'static str, &'static str)) {
    let generated = Generated::new(DASHBOARD_NAME, DASHBOARD_FILE, DASHBOARD_LABEL);
    (generated, (DASHBOARD_FILE, DASHBOARD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_of_the_rules_file_is_there_with_all_that_it_says() {
        let ours: serde_yaml::Value = serde_yaml::from_str(RULES).unwrap();
        let read: Rules = serde_yaml::from_str(RULES).unwrap();
        assert_eq!(serde_yaml::to_value(&read).unwrap(), ours);
        assert!(read.groups.iter().map(|group| group.rules.len()).sum::<usize>() > 10);
    }
}
