//! The name by which people ask for a pod: `NAMESPACE/NAME`.
//!
//! Pure. What passes here can stand in a path and in a selector of the API server.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a pod: a DNS subdomain.
const MAX_NAME_BYTES: usize = 253;

/// Longest name of a namespace: a DNS label.
const MAX_NAMESPACE_BYTES: usize = 63;

/// A pod's namespace and name, both as Kubernetes takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodName {
    namespace: String,
    name: String,
}

/// A text that names no pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPodName {
    /// There is no slash.
    #[error("a pod is named NAMESPACE/NAME, such as default/web-0; the namespace is missing")]
    NoNamespace,
    /// Other characters than Kubernetes takes.
    #[error("a pod is named NAMESPACE/NAME: lower-case letters, digits, hyphens, and periods in the name")]
    Characters,
}

impl PodName {
    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for PodName {
    type Err = InvalidPodName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidPodName::NoNamespace)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_namespace = (1..=MAX_NAMESPACE_BYTES).contains(&namespace.len()) && namespace.chars().all(plain);
        let is_name = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(|c| plain(c) || c == '.');
        // A dot segment would name another path than the one it is put into.
        if !is_namespace || !is_name || name.split('.').any(str::is_empty) {
            return Err(InvalidPodName::Characters);
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl TryFrom<String> for PodName {
    type Error = InvalidPodName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PodName> for String {
    fn from(name: PodName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_takes_is_kept_as_written() {
        for good in ["default/web-0", "a/b", "team-1/web.example.com", "kube-system/x-7d9c5b7f4-x2k8p"] {
            let name: PodName = good.parse().unwrap();
            assert_eq!(name.to_string(), good);
            assert_eq!(serde_json::from_str::<PodName>(&serde_json::to_string(&name).unwrap()).unwrap(), name);
        }
    }

    #[test]
    fn what_could_be_another_path_or_selector_is_no_name() {
        assert_eq!("web-0".parse::<PodName>(), Err(InvalidPodName::NoNamespace));
        let long = format!("default/{}", "x".repeat(254));
        for bad in
            ["/web", "default/", "a/b/c", "../x", "a/..", "a/b,c", "a/b=c", "A/b", "a/B", "a/b c", "a/b\n", &long]
        {
            assert_eq!(bad.parse::<PodName>(), Err(InvalidPodName::Characters), "{bad:?}");
            assert!(serde_json::from_value::<PodName>(bad.into()).is_err());
        }
    }
}
