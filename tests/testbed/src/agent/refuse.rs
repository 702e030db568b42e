//! What of a pod's spec this kubelet does not know. Pure.
//!
//! Must never happen: a field that is silently ignored though it would change what a case observes.
//! So the fields that are understood are listed, and with them those that do not matter here.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};

const POD: &[&str] = &[
    "automountServiceAccountToken",
    "containers",
    "initContainers",
    "volumes",
    "restartPolicy",
    "nodeName",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "hostNetwork",
    "hostAliases",
    "hostname",
    "subdomain",
    // What only the scheduler or admission looks at.
    "affinity",
    "nodeSelector",
    "tolerations",
    "topologySpreadConstraints",
    "schedulerName",
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "imagePullSecrets",
    // One user id is mapped and nothing is confined: the agent says so once in its log.
    "securityContext",
    // There is no DNS: names come from the hosts file.
    "dnsPolicy",
    "enableServiceLinks",
];
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "env",
    "envFrom",
    "workingDir",
    "volumeMounts",
    "ports",
    "restartPolicy",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "resources",
    "securityContext",
    "stdin",
    "tty",
];
const VOLUME: &[&str] = &["name", "emptyDir", "hostPath", "configMap", "secret", "projected", "downwardAPI"];
const MOUNT: &[&str] = &["name", "mountPath", "readOnly", "subPath", "subPathExpr"];
const SOURCE: &[&str] = &["serviceAccountToken", "configMap", "secret", "downwardAPI"];
const PROBE: &[&str] = &[
    "httpGet",
    "tcpSocket",
    "exec",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
];

/// The paths of fields that are set and not understood; none means that the pod can run.
pub(crate) fn unsupported(pod: &Pod) -> Vec<String> {
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    let mut found = Vec::new();
    check(&spec, "spec", POD, &mut found);
    for kind in ["initContainers", "containers"] {
        for (path, container) in items(&spec, "spec", kind) {
            check(container, &path, CONTAINER, &mut found);
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                check(&container[probe], &format!("{path}.{probe}"), PROBE, &mut found);
            }
            for (path, mount) in items(container, &path, "volumeMounts") {
                check(mount, &path, MOUNT, &mut found);
            }
            for (path, variable) in items(container, &path, "env") {
                if variable.pointer("/valueFrom/resourceFieldRef").is_some() {
                    found.push(format!("{path}.valueFrom.resourceFieldRef"));
                }
            }
        }
    }
    for (path, volume) in items(&spec, "spec", "volumes") {
        check(volume, &path, VOLUME, &mut found);
        for (path, source) in items(&volume["projected"], &format!("{path}.projected"), "sources") {
            check(source, &path, SOURCE, &mut found);
        }
    }
    found
}

fn check(value: &Value, path: &str, known: &[&str], found: &mut Vec<String>) {
    let fields: Option<&Map<String, Value>> = value.as_object();
    found.extend(
        fields
            .into_iter()
            .flat_map(Map::keys)
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| format!("{path}.{key}")),
    );
}

fn items<'a>(value: &'a Value, path: &str, key: &str) -> Vec<(String, &'a Value)> {
    let list = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().enumerate().map(|(index, item)| (format!("{path}.{key}[{index}]"), item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(spec: &Value) -> Vec<String> {
        unsupported(&serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    #[test]
    fn an_ordinary_pod_runs() {
        let spec = json!({
            "containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
            "tolerations": [{"operator": "Exists"}],
        });
        assert_eq!(refused(&spec), Vec::<String>::new());
    }

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let spec = json!({
            "hostPID": true,
            "containers": [{"name": "a", "lifecycle": {}, "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}],
        });
        assert_eq!(
            refused(&spec),
            [
                "spec.hostPID",
                "spec.containers[0].lifecycle",
                "spec.containers[0].livenessProbe.grpc",
                "spec.volumes[0].nfs"
            ]
        );
    }
}
