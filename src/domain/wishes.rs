//! What the pods that wait ask for, all together.
//!
//! Pure. Owns how many of them are named: a cluster has thousands.

use std::collections::BTreeMap;

use super::findings::{Finding, Group, Level};
use super::ids::RoleName;
use super::pod::{Decision, Pod, decide};

/// Pods that are named one by one.
const MOST_NAMED: usize = 3;

/// Pods that cannot be served, told one by one.
const MOST_REFUSED: usize = 20;

/// The roles that pods ask for, and the pods that cannot be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Each role, and the pods that ask for it.
    pub roles: BTreeMap<RoleName, Vec<String>>,
    /// What is wrong with others.
    pub refused: Vec<Finding>,
}

/// Gathers what `pods` ask for.
pub fn gather<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Wishes {
    let mut wishes = Wishes::default();
    let mut left_out = 0;
    for pod in pods {
        let Some(wish) = &pod.wish else { continue };
        if let Decision::Refuse(refusal) = decide(pod) {
            if wishes.refused.len() >= MOST_REFUSED {
                left_out += 1;
                continue;
            }
            wishes.refused.push(Finding {
                group: Group::AppRoles,
                level: Level::Warning,
                cause: format!("{} gets no token: {refusal}", pod.reference),
                remedy: Some("correct the pod, or the template that it is made from".to_owned()),
            });
            continue;
        }
        if let Some(role) = wish.role.as_deref().and_then(|role| RoleName::parse(role).ok()) {
            wishes.roles.entry(role).or_default().push(pod.reference.to_string());
        }
    }
    if left_out > 0 {
        let text = format!("{left_out} more pods get no token as they are annotated");
        wishes.refused.push(Finding::new(Group::AppRoles, Level::Warning, &text));
    }
    wishes
}

/// A few of `pods` by name, and how many more there are.
pub fn named(pods: &[String]) -> String {
    let shown = pods[..pods.len().min(MOST_NAMED)].join(", ");
    match pods.len().saturating_sub(MOST_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PodRef, PodUid};
    use crate::domain::pod::{ContainerStatus, Phase, Target, Wish};

    fn pod(name: &str, role: Option<&str>) -> Pod {
        Pod {
            reference: PodRef { namespace: "team-a".into(), name: name.into(), uid: PodUid::from(name) },
            node: "".into(),
            service_account: "".into(),
            host_network: false,
            deleting: false,
            phase: Phase::Pending,
            ips: Vec::new(),
            wish: Some(Wish {
                role: role.map(Into::into),
                container: Some("install".into()),
                target: Target::Init {
                    sidecar: false,
                    never_restarts: false,
                    restarts: 0,
                    status: ContainerStatus::default(),
                },
            }),
        }
    }

    #[test]
    fn each_role_comes_once_with_its_pods_and_bad_ones_are_told() {
        let mut stranger = pod("stranger", None);
        stranger.wish = None;
        let pods = [pod("a", Some("web")), pod("b", Some("web")), pod("c", Some("../x")), pod("d", None), stranger];
        let wishes = gather(&pods);
        assert_eq!(wishes.roles.len(), 1);
        assert_eq!(wishes.roles[&RoleName::parse("web").unwrap()], ["team-a/a", "team-a/b"]);
        assert_eq!(wishes.refused.len(), 2);
        assert!(wishes.refused[0].cause.contains("team-a/c") && wishes.refused[1].cause.contains("is missing"));
    }

    #[test]
    fn thousands_of_pods_stay_a_short_list() {
        let pods: Vec<Pod> = (0..1_000).map(|n| pod(&format!("p{n}"), Some("a/b"))).collect();
        let wishes = gather(&pods);
        assert_eq!(wishes.refused.len(), MOST_REFUSED + 1);
        assert!(wishes.refused.last().unwrap().cause.starts_with("980 more pods"));
        let names: Vec<String> = (0..5).map(|n| format!("p{n}")).collect();
        assert_eq!(named(&names), "p0, p1, p2 and 2 more");
        assert_eq!(named(&names[..1]), "p0");
    }
}
