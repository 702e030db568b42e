//! Names of pods and services: a hosts file for each pod, kept as the endpoints change.
//!
//! Owns: the one file `etc-hosts` of each pod's folder. It is written in place, because containers have
//! that very file mounted. There is no DNS: a headless service's name is all its ready addresses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label that names the service of an EndpointSlice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// What Kubernetes calls the cluster unless told otherwise.
const DOMAIN: &str = "cluster.local";

/// Addresses by slice, so that a changed slice replaces what it said before.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slices: BTreeMap<String, Vec<(String, String)>>,
    /// Names that the testbed's user gave: address, name.
    fixed: Vec<(String, String)>,
}

impl Names {
    /// Knows no service yet.
    pub(crate) fn new(fixed: Vec<(String, String)>) -> Self {
        Self { slices: BTreeMap::new(), fixed }
    }

    /// Takes in a slice; true where something changed.
    pub(crate) fn apply(&mut self, slice: &EndpointSlice) -> bool {
        let key = key(slice);
        let lines = lines(slice);
        self.slices.insert(key, lines.clone()) != Some(lines)
    }

    /// Forgets a slice; true where it was known.
    pub(crate) fn remove(&mut self, slice: &EndpointSlice) -> bool {
        self.slices.remove(&key(slice)).is_some()
    }

    /// The hosts file of one pod.
    pub(crate) fn file_for(&self, pod: &Pod, ips: &[String], hostname: &str) -> String {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let mut text = String::from("# Written by the testbed.\n127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for ip in ips {
            text.push_str(&format!("{ip} {hostname}\n"));
        }
        let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
        for alias in aliases {
            text.push_str(&format!(
                "{} {}\n",
                alias.ip,
                alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join(" ")
            ));
        }
        for (ip, name) in &self.fixed {
            text.push_str(&format!("{ip} {name}\n"));
        }
        for (ip, name) in self.slices.values().flatten() {
            let short =
                name.strip_suffix(&format!(".{namespace}")).map(|short| format!(" {short}")).unwrap_or_default();
            text.push_str(&format!("{ip} {name}.svc.{DOMAIN} {name}.svc {name}{short}\n"));
        }
        text
    }
}

/// Writes in place; longer old content is cut off last, so that a reader never finds the file empty.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let open = || -> std::io::Result<()> {
        let mut file = File::options().create(true).write(true).truncate(false).open(path)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    };
    open().with_context(|| format!("cannot write {}", path.display()))
}

fn key(slice: &EndpointSlice) -> String {
    let meta = &slice.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Address and `service.namespace`, with the pod's own host name in front where it has one.
fn lines(slice: &EndpointSlice) -> Vec<(String, String)> {
    let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)) else {
        return Vec::new();
    };
    let name = format!("{service}.{}", slice.metadata.namespace.as_deref().unwrap_or_default());
    let mut lines = Vec::new();
    for endpoint in slice.endpoints.iter() {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        for ip in &endpoint.addresses {
            lines.push((ip.clone(), name.clone()));
            if let Some(host) = &endpoint.hostname {
                lines.push((ip.clone(), format!("{host}.{name}")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(ip: &str, ready: bool) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "n", "labels": {SERVICE_LABEL: "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
        }))
        .unwrap()
    }

    #[test]
    fn services_are_known_by_short_and_long_names() {
        let mut names = Names::default();
        assert!(names.apply(&slice("10.77.0.9", true)));
        assert!(!names.apply(&slice("10.77.0.9", true)));
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}})).unwrap();
        let file = names.file_for(&pod, &["10.77.0.2".to_owned()], "p");
        assert!(file.contains("10.77.0.2 p\n"));
        assert!(file.contains("10.77.0.9 s.n.svc.cluster.local s.n.svc s.n s\n"));
    }

    #[test]
    fn addresses_that_are_not_ready_are_left_out() {
        let mut names = Names::default();
        names.apply(&slice("10.77.0.9", false));
        assert!(!names.file_for(&Pod::default(), &[], "p").contains("10.77.0.9"));
    }

    #[test]
    fn a_shorter_file_replaces_a_longer_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        write(&path, "long text\n").unwrap();
        write(&path, "short\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
    }
}
