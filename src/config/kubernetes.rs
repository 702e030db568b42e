//! The section `kubernetes`.

use super::lenient::{Context, Section};
use super::names::{LABEL_ACCEPTED, is_dns_label};
use super::namespace::WatchNamespace;

/// What is watched, and where the controller itself lives.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// `kubernetes.watchNamespace` (required): a namespace, or `~` and a regular expression that is found anywhere
    /// in a namespace's name. Case does not matter in either.
    pub watch_namespace: WatchNamespace,
    /// `kubernetes.serviceNamespace` (required): the namespace of the controller's service.
    pub service_namespace: String,
    /// `kubernetes.service` (required): the name of the controller's headless service.
    pub service: String,
}

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Option<Kubernetes> {
    let watch_namespace = watch_namespace(section, cx);
    let service_namespace = label(section, "serviceNamespace", "the namespace of the controller's service", cx);
    let service = label(section, "service", "the name of the controller's service", cx);
    Some(Kubernetes { watch_namespace: watch_namespace?, service_namespace: service_namespace?, service: service? })
}

fn watch_namespace(section: &Section<'_>, cx: &mut Context<'_>) -> Option<WatchNamespace> {
    let Some(setting) = section.text("watchNamespace", cx) else {
        let spot = section.spot("watchNamespace");
        cx.problem(
            &spot,
            "is required: a namespace, or \"~\" and a regular expression (in quotes: a bare ~ is YAML's null)",
        );
        return None;
    };
    WatchNamespace::parse(&setting.value).map_err(|text| cx.problem(&setting.spot, text)).ok()
}

fn label(section: &Section<'_>, name: &str, what: &str, cx: &mut Context<'_>) -> Option<String> {
    let Some(setting) = section.text(name, cx) else {
        cx.problem(&section.spot(name), format!("is required: {what}"));
        return None;
    };
    if !is_dns_label(&setting.value) {
        cx.problem(&setting.spot, format!("must be {what} ({LABEL_ACCEPTED})"));
        return None;
    }
    Some(setting.value)
}
