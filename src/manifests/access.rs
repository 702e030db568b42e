//! What the controller may do in the cluster: the rights that `check` asks for, and no other.
//!
//! The rules are made from [`crate::domain::rights`], so that what is granted cannot differ from what is used.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::document::Document;
use super::parts::{cluster_wide, named};
use super::settings::{NAME, Settings, Watch};
use crate::domain::rights::{Purpose, Use, uses};

const FILE: &str = "rbac.yaml";
const API_GROUP: &str = "rbac.authorization.k8s.io";
/// Beside the Role for pods, which may be in the same namespace.
const PEERS: &str = "kubernetes-vault-peers";

/// The account, and what it may do in its own namespace: the same in each installation.
pub(super) fn base(namespace: &str) -> [Document; 3] {
    let account = ServiceAccount { metadata: named(namespace, NAME), ..ServiceAccount::default() };
    let rights = rights(namespace, None, is_for_peers);
    let role = Role { metadata: named(namespace, PEERS), rules: Some(rules(&rights)) };
    [
        Document::new(FILE, &account).head(
            "What the controller may do in its own namespace. It has no right to read a Secret anywhere, and none to \
             change a pod.",
        ),
        explained(Document::new(FILE, &role), &rights).head(
            "To find its own peers, and to see whether one that does not answer runs at all. With `endpoints: get` alone \
             it polls Endpoints instead, and waits for peers that are down; it says so once in its log.",
        ),
        Document::new(FILE, &role_binding(namespace, PEERS, namespace)),
    ]
}

/// What it may do where the pods are.
pub(super) fn pods(settings: &Settings) -> [Document; 2] {
    let rights = rights(&settings.namespace, settings.watch.one(), |purpose| !is_for_peers(purpose));
    let rules = Some(rules(&rights));
    match &settings.watch {
        Watch::One(namespace) => {
            let role = Role { metadata: named(namespace, NAME), rules };
            let binding = role_binding(namespace, NAME, &settings.namespace);
            [
                explained(Document::new(FILE, &role), &rights).head(
                    "A Role, since one namespace is watched: outside of it and of its own namespace the controller may do \
                     nothing.",
                ),
                Document::new(FILE, &binding),
            ]
        }
        Watch::Matching(_) => {
            let role = ClusterRole { metadata: cluster_wide(NAME), rules, ..ClusterRole::default() };
            let binding = ClusterRoleBinding {
                metadata: cluster_wide(NAME),
                role_ref: role_ref("ClusterRole", NAME),
                subjects: Some(vec![subject(&settings.namespace)]),
            };
            [
                explained(Document::new(FILE, &role), &rights).head(
                    "A ClusterRole, since a regular expression is watched: Kubernetes knows no rights for namespaces that \
                     match. Where one namespace is enough, --watch-namespace with its name makes this a Role.",
                ),
                Document::new(FILE, &binding),
            ]
        }
    }
}

fn is_for_peers(purpose: Purpose) -> bool {
    match purpose {
        Purpose::Pods | Purpose::Events => false,
        Purpose::Slices | Purpose::Endpoints | Purpose::PeerPods => true,
    }
}

fn rights(own: &str, watched: Option<&str>, wanted: impl Fn(Purpose) -> bool) -> Vec<Use> {
    uses(watched, Some((own, NAME))).into_iter().filter(|used| wanted(used.purpose)).collect()
}

/// A rule for each purpose, in their order.
fn purposes(rights: &[Use]) -> Vec<Purpose> {
    let mut purposes: Vec<Purpose> = rights.iter().map(|used| used.purpose).collect();
    purposes.dedup();
    purposes
}

fn rules(rights: &[Use]) -> Vec<PolicyRule> {
    let rule = |purpose: Purpose| {
        let of_it: Vec<&Use> = rights.iter().filter(|used| used.purpose == purpose).collect();
        let first = of_it.first().map(|used| &used.right);
        PolicyRule {
            api_groups: first.map(|right| vec![right.group.to_owned()]),
            resources: first.map(|right| vec![right.resource.to_owned()]),
            resource_names: first.and_then(|right| right.name.clone()).map(|name| vec![name]),
            verbs: of_it.iter().map(|used| used.right.verb.to_owned()).collect(),
            non_resource_urls: None,
        }
    };
    purposes(rights).into_iter().map(rule).collect()
}

fn explained(document: Document, rights: &[Use]) -> Document {
    let why = |purpose| match purpose {
        Purpose::Pods => "To see which init containers wait.",
        Purpose::Events => {
            "To tell a pod's author what happened. Without this the controller says so once in its log, and goes on."
        }
        Purpose::Slices => "Their names are made up by Kubernetes, so that no resourceNames can narrow this.",
        Purpose::Endpoints => "Those of its own service alone. For the gauge of discovered nodes, and to fall back to.",
        Purpose::PeerPods => "A peer whose container does not run is not waited for.",
    };
    let indexed = purposes(rights).into_iter().enumerate();
    indexed.fold(document, |document, (index, purpose)| document.note(format!("/rules/{index}"), why(purpose)))
}

fn role_binding(namespace: &str, role: &str, of: &str) -> RoleBinding {
    RoleBinding {
        metadata: named(namespace, role),
        role_ref: role_ref("Role", role),
        subjects: Some(vec![subject(of)]),
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: API_GROUP.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: NAME.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}
