//! What stands around the controller: its namespace, its budget, its priority.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::document::Document;
use super::parts::{cluster_wide, labels, named, selector};
use super::settings::{NAME, Settings};

const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// Above ordinary pods, which have 0, and far below those of the system, which begin at two thousand million.
const PRIORITY: i32 = 1_000_000;

/// The namespace, where it is the controller's own.
pub(super) fn namespace(settings: &Settings) -> Option<Document> {
    if settings.namespace_is_a_teams() {
        return None;
    }
    let labels = BTreeMap::from([(POD_SECURITY.to_owned(), "restricted".to_owned())]);
    let metadata = ObjectMeta { labels: Some(labels), ..cluster_wide(&settings.namespace) };
    let document = Document::new("namespace.yaml", &Namespace { metadata, ..Namespace::default() })
        .note("/metadata/labels/pod-security.kubernetes.io~1enforce", "The controller needs no privilege of any kind.");
    Some(document)
}

/// How many may be away on purpose.
pub(super) fn disruption_budget(settings: &Settings) -> Document {
    let budget = PodDisruptionBudget {
        metadata: named(&settings.namespace, NAME),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(labels(NAME))),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Document::new("disruption-budget.yaml", &budget)
        .head("Draining nodes takes one replica at a time: two of three are a majority.")
}

/// Its priority.
pub(super) fn priority_class() -> Document {
    let class = PriorityClass {
        metadata: cluster_wide(NAME),
        value: PRIORITY,
        description: Some("While kubernetes-vault does not run, no pod that waits for a secret starts.".to_owned()),
        ..PriorityClass::default()
    };
    Document::new("priority-class.yaml", &class)
        .note("/value", "Above ordinary pods, and far below those of the system.")
}
