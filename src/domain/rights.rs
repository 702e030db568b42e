//! The rights that the controller uses at the API server, and what is missing without each.
//!
//! Pure. Owns the list: a request that the controller makes, and that is not here, is one that `check` overlooks.

use std::fmt;

use super::findings::{Finding, Group, Level};

/// One right, as an access review asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource, plural.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// In this namespace; `None`: in all.
    pub namespace: Option<String>,
    /// On the object of this name; `None`: on all.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in the namespace {namespace}"),
            None => f.write_str(" in all namespaces"),
        }
    }
}

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To see which pods wait. The Go version has it.
    Pods,
    /// To tell the pods' authors.
    Events,
    /// To find peers, and to hear of each change.
    Slices,
    /// To find peers by asking again and again. The Go version has it.
    Endpoints,
    /// To see whether a peer that does not answer runs at all.
    PeerPods,
}

/// A right, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What for.
    pub purpose: Purpose,
    /// The right.
    pub right: Right,
}

/// Every right that a controller uses: one that watches `watched` (`None`: all namespaces), behind the service that is
/// named by its namespace and name (`None`: peers are listed in the configuration).
pub fn uses(watched: Option<&str>, service: Option<(&str, &str)>) -> Vec<Use> {
    let right = |purpose, group, resource, verb, namespace: Option<&str>| Use {
        purpose,
        right: Right { group, resource, verb, namespace: namespace.map(str::to_owned), name: None },
    };
    let mut all = vec![
        right(Purpose::Pods, "", "pods", "list", watched),
        right(Purpose::Pods, "", "pods", "watch", watched),
        right(Purpose::Events, "events.k8s.io", "events", "create", watched),
        right(Purpose::Events, "events.k8s.io", "events", "patch", watched),
    ];
    if let Some((namespace, name)) = service {
        let here = Some(namespace);
        all.push(right(Purpose::Slices, "discovery.k8s.io", "endpointslices", "list", here));
        all.push(right(Purpose::Slices, "discovery.k8s.io", "endpointslices", "watch", here));
        let mut endpoints = right(Purpose::Endpoints, "", "endpoints", "get", here);
        endpoints.right.name = Some(name.to_owned());
        all.push(endpoints);
        all.push(right(Purpose::PeerPods, "", "pods", "list", here));
    }
    all
}

/// What follows from the answers to [`uses`]: for each purpose one finding.
pub fn judge(answers: &[(Use, bool)]) -> Vec<Finding> {
    let missing = |purpose: Purpose| -> Vec<String> {
        let refused = answers.iter().filter(|(used, granted)| used.purpose == purpose && !granted);
        refused.map(|(used, _)| used.right.to_string()).collect()
    };
    let asked = |purpose: Purpose| answers.iter().any(|(used, _)| used.purpose == purpose);
    let has_endpoints = missing(Purpose::Endpoints).is_empty();
    let mut findings = Vec::new();
    for (purpose, granted, without) in [
        (Purpose::Pods, "pods may be listed and watched", "no pod is seen, and so none is served"),
        (Purpose::Events, "Events may be written", "the authors of pods are told nothing, and all else works"),
        (
            Purpose::Slices,
            "EndpointSlices of the service may be listed and watched",
            if has_endpoints {
                "peers are asked for every 2 to 15 s instead of being watched"
            } else {
                "replicas do not find each other, and so none of them delivers"
            },
        ),
        (
            Purpose::Endpoints,
            "Endpoints of the service may be read",
            "kubernetesvault_kubernetes_discovered_nodes_total stays 0, and there is no way to fall back to",
        ),
        (
            Purpose::PeerPods,
            "pods of peers may be listed",
            "a peer that does not answer is waited for while it is listed, also when it does not run",
        ),
    ] {
        if !asked(purpose) {
            continue;
        }
        let lacks = missing(purpose);
        if lacks.is_empty() {
            findings.push(Finding::ok(Group::Kubernetes, granted));
            continue;
        }
        let fatal = purpose == Purpose::Pods || (purpose == Purpose::Slices && !has_endpoints);
        findings.push(Finding {
            group: Group::Kubernetes,
            level: if fatal { Level::Error } else { Level::Warning },
            cause: format!("the right to {} is missing: {without}", lacks.join(", and to ")),
            remedy: Some(remedy(purpose, answers)),
        });
    }
    findings
}

fn remedy(purpose: Purpose, answers: &[(Use, bool)]) -> String {
    let cluster_wide = answers.iter().any(|(used, _)| used.purpose == purpose && used.right.namespace.is_none());
    let kind = if cluster_wide { "ClusterRole" } else { "Role" };
    let file = match purpose {
        Purpose::Pods | Purpose::Events if cluster_wide => "deploy/quick-start/rbac.yaml",
        Purpose::Pods | Purpose::Events => "deploy/one-namespace/rbac.yaml",
        Purpose::Slices | Purpose::Endpoints | Purpose::PeerPods => "deploy/base/rbac.yaml",
    };
    format!("grant it by a {kind} and its binding to the controller's service account, as {file} does")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(watched: Option<&str>, refused: &[&str]) -> Vec<Finding> {
        let all = uses(watched, Some(("vault-system", "kubernetes-vault")));
        let answer = |used: Use| {
            let text = used.right.to_string();
            let granted = !refused.iter().any(|refused| text.starts_with(refused));
            (used, granted)
        };
        judge(&all.into_iter().map(answer).collect::<Vec<_>>())
    }

    fn bad(findings: &[Finding]) -> Vec<(Level, &str)> {
        let bad = findings.iter().filter(|finding| finding.level > Level::Ok);
        bad.map(|finding| (finding.level, finding.cause.as_str())).collect()
    }

    #[test]
    fn with_every_right_there_is_nothing_to_say() {
        let findings = judged(None, &[]);
        assert_eq!((findings.len(), bad(&findings)), (5, vec![]));
    }

    #[test]
    fn what_the_go_version_has_is_needed_and_what_is_beyond_it_is_a_warning() {
        let reference = judged(
            None,
            &[
                "create events",
                "patch events",
                "list endpointslices",
                "watch endpointslices",
                "list pods in the namespace",
            ],
        );
        let found = bad(&reference);
        assert!(found.len() == 3 && found.iter().all(|(level, _)| *level == Level::Warning), "{found:?}");
        assert!(found.iter().any(|(_, cause)| cause.contains("every 2 to 15 s")), "{found:?}");
        let none = judged(None, &["list pods in all"]);
        let found = bad(&none);
        assert!(
            matches!(found[..], [(Level::Error, cause)] if cause.contains("list pods in all namespaces")),
            "{found:?}"
        );
    }

    #[test]
    fn with_no_way_to_find_peers_none_delivers() {
        let findings = judged(Some("team-a"), &["list endpointslices", "get endpoints"]);
        let found = bad(&findings);
        assert!(found.contains(&(
            Level::Error,
            "the right to list endpointslices.discovery.k8s.io in the namespace vault-system is missing: replicas do not \
             find each other, and so none of them delivers"
        )), "{found:?}");
    }

    #[test]
    fn one_namespace_needs_a_role_only_and_a_list_of_peers_no_service() {
        let rights: Vec<String> = uses(Some("team-a"), None).iter().map(|used| used.right.to_string()).collect();
        assert_eq!(rights.len(), 4);
        assert!(rights.iter().all(|right| right.ends_with("in the namespace team-a")), "{rights:?}");
        let findings = judged(Some("team-a"), &["list pods in the namespace team-a"]);
        assert!(findings[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("deploy/one-namespace")));
    }
}
