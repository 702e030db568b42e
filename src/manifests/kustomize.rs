//! The same objects as folders for Kustomize (`kubectl apply -k`): what most cases have in common is in `base`.
//!
//! An overlay adds whole objects and patches none of the base, so that what is applied can be read as it stands.

use std::collections::BTreeMap;

use serde::Serialize;

use super::case::Case;
use super::document::{self, Document, MARK};
use super::settings::Settings;
use super::{base, monitoring, own};

/// Where the base is.
const BASE: &str = "base";
const FILE: &str = "kustomization.yaml";

/// A file to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct File {
    /// Below the folder that was asked for.
    pub(super) path: String,
    /// All of it.
    pub(super) text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kustomization {
    api_version: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    config_map_generator: Vec<Generated>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    patches: Vec<Patch>,
}

/// A ConfigMap that Kustomize makes of a file.
#[derive(Serialize)]
pub(super) struct Generated {
    name: &'static str,
    files: [&'static str; 1],
    options: GeneratorOptions,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GeneratorOptions {
    disable_name_suffix_hash: bool,
    labels: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Patch {
    path: &'static str,
}

impl Generated {
    /// Under that very name, with one label.
    pub(super) fn new(name: &'static str, file: &'static str, label: (&'static str, &'static str)) -> Self {
        let options = GeneratorOptions { disable_name_suffix_hash: true, labels: BTreeMap::from([label]) };
        Self { name, files: [file], options }
    }
}

impl Kustomization {
    fn new(namespace: Option<String>) -> Self {
        Self {
            api_version: "kustomize.config.k8s.io/v1beta1",
            kind: "Kustomization",
            namespace,
            resources: Vec::new(),
            config_map_generator: Vec::new(),
            patches: Vec::new(),
        }
    }

    fn file(&self, folder: &str, head: &str) -> File {
        let document = Document::new(FILE, self).head(head);
        File { path: format!("{folder}/{FILE}"), text: format!("{MARK}\n{}", document.text()) }
    }
}

/// The base, which goes to `namespace`.
pub(super) fn base_folder(namespace: &str) -> Vec<File> {
    let (mut files, resources) = written(BASE, &base(namespace));
    let kustomization = Kustomization { resources, ..Kustomization::new(None) };
    files.push(
        kustomization.file(BASE, "What all installations have but the Go version's. It is not applied by itself."),
    );
    files
}

/// The folder of a case. `base`: the namespace that the base beside it goes to.
pub(super) fn folder(settings: &Settings, base: &str) -> Vec<File> {
    let name = folder_name(settings);
    if settings.case == Case::Monitoring {
        return monitoring_folder(settings, &name);
    }
    let (mut files, own) = written(&name, &own(settings));
    // The base stands in another namespace. All of this case is in one, so that Kustomize may put it there.
    let namespace = (settings.case.has_base() && base != settings.namespace).then(|| settings.namespace.clone());
    let mut kustomization = Kustomization::new(namespace);
    if settings.case.has_base() {
        kustomization.resources.push(format!("../{BASE}"));
    }
    kustomization.resources.extend(own);
    files.push(kustomization.file(&name, &head(settings, &name)));
    files
}

/// The documented case over https, beside the one over http.
pub(super) fn secured_monitoring_folder(settings: &Settings) -> Vec<File> {
    let name = "monitoring-tls";
    let (mut files, _) = written(name, &[monitoring::service_monitor(settings)]);
    let mut kustomization = Kustomization::new(None);
    kustomization.resources.push("../monitoring".to_owned());
    kustomization.patches.push(Patch { path: monitoring::MONITOR_FILE });
    files.push(kustomization.file(name, &head(settings, name)));
    files
}

fn monitoring_folder(settings: &Settings, name: &str) -> Vec<File> {
    let objects = [monitoring::service_monitor(settings), monitoring::rules(settings)];
    let (mut files, resources) = written(name, &objects);
    let (generated, (file, text)) = monitoring::generated_dashboard();
    files.push(File { path: format!("{name}/{file}"), text: text.to_owned() });
    let kustomization = Kustomization {
        resources,
        config_map_generator: vec![generated],
        ..Kustomization::new(Some(settings.namespace.clone()))
    };
    files.push(kustomization.file(name, &head(settings, name)));
    files
}

fn folder_name(settings: &Settings) -> String {
    match settings.case {
        Case::SampleApp => format!("{}/{}", settings.case.name(), settings.mode.name()),
        case => case.name().to_owned(),
    }
}

/// Documents in their files, and the names of these.
fn written(folder: &str, documents: &[Document]) -> (Vec<File>, Vec<String>) {
    let mut names: Vec<&str> = documents.iter().map(|document| document.file).collect();
    names.dedup();
    let file = |name: &&str| File {
        path: format!("{folder}/{name}"),
        text: document::join(documents.iter().filter(|document| document.file == *name)),
    };
    (names.iter().map(file).collect(), names.into_iter().map(str::to_owned).collect())
}

/// What the folder is, how it is applied, and what has to be there before.
fn head(settings: &Settings, folder: &str) -> String {
    let Settings { namespace, secret, .. } = settings;
    let keys = if settings.vault_addr.is_some() { "the key `token`" } else { "the keys `addr` and `token`" };
    let needs = format!("Needs a Secret `{secret}` in {namespace} with {keys}");
    let tls = settings.tls_secret.as_deref().unwrap_or_default();
    let what = match settings.case {
        Case::QuickStart => format!("One controller, for a trial. {needs}."),
        Case::Replicated => format!(
            "Three controllers, which know each other by a key that each derives from the token. {needs}. From a running \
             quick start: delete its Deployment first, since this has a StatefulSet in its place."
        ),
        Case::Production => format!(
            "Three controllers with TLS everywhere; their certificates are issued by Vault's PKI, as deploy/vault/pki.sh sets \
             it up. {needs}, and a Secret `{tls}` with the CA of Vault's certificate, `vault-ca.crt`."
        ),
        Case::ExternalCa => format!(
            "As production, with certificates of a CA of your own: docs/secured-examples.md has the commands that make them. \
             {needs}, and a Secret `{tls}` with `ca.crt`, `vault-ca.crt`, `metrics.crt`, `metrics.key`, `peer.crt` and \
             `peer.key`."
        ),
        Case::OneNamespace => format!(
            "The controller inside of the namespace `{namespace}`, for the pods of `{namespace}`, with rights in `{namespace}` \
             alone: no ClusterRole. {needs}."
        ),
        Case::Reference => format!(
            "The quick start of the Go version, for those who have it. Needs a Secret `{secret}` in {namespace} with the key \
             `token`, and in Vault a PKI mount `intermediate-ca` with a role `kubernetes-vault`."
        ),
        Case::Monitoring if settings.tls_secret.is_some() => format!(
            "For production and external-ca: metrics are scraped over https. Needs the kinds of the Prometheus operator, and \
             a Secret `{tls}` in {namespace} with `ca.crt`, `tls.crt` and `tls.key` of Prometheus."
        ),
        Case::Monitoring => {
            "Whom to scrape, alerts, and a dashboard. Needs the kinds of the Prometheus operator. rules.yaml and \
             rules-test.yaml are for who has no operator: they are no part of this."
                .to_owned()
        }
        Case::SampleApp => format!(
            "An application that shows what it was given. Needs a Secret `{secret}` in {namespace} with the key `role-id`."
        ),
    };
    format!("  kubectl apply -k deploy/{folder}\n\n{what}")
}
