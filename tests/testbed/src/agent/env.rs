//! A container's environment: `env`, `envFrom`, and what each `valueFrom` names.
//!
//! Owns: the reads of ConfigMaps and Secrets for variables.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client};

use super::expand::expand;
use super::patience::patiently;

/// What stands in a `fieldRef`, of a pod that is about to run.
pub(crate) struct Fields<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ip: &'a str,
}

/// The variables that the pod's author sets, in order; later ones win.
pub(crate) async fn resolve(
    client: &Client,
    container: &Container,
    fields: &Fields<'_>,
) -> Result<Vec<(String, String)>> {
    let namespace = fields.pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut values: Vec<(String, String)> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let (data, optional, what) = if let Some(reference) = &source.config_map_ref {
            (config_map(client, namespace, &reference.name).await?, reference.optional, &reference.name)
        } else if let Some(reference) = &source.secret_ref {
            (secret(client, namespace, &reference.name).await?, reference.optional, &reference.name)
        } else {
            bail!("envFrom names neither a ConfigMap nor a Secret");
        };
        match data {
            Some(data) => values.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), text(value)))),
            None if optional == Some(true) => {}
            None => bail!("envFrom: {what:?} not found"),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, |name| lookup(&values, name))),
            (None, Some(source)) => from_source(client, namespace, source, fields)
                .await
                .with_context(|| format!("variable {}", variable.name))?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            values.retain(|(name, _)| *name != variable.name);
            values.push((variable.name.clone(), value));
        }
    }
    Ok(values)
}

/// The last value of a variable.
pub(crate) fn lookup(values: &[(String, String)], name: &str) -> Option<String> {
    values.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

async fn from_source(
    client: &Client,
    namespace: &str,
    source: &EnvVarSource,
    fields: &Fields<'_>,
) -> Result<Option<String>> {
    if let Some(reference) = &source.field_ref {
        return field(&reference.field_path, fields).map(Some);
    }
    let (data, key, optional, name) = if let Some(reference) = &source.config_map_key_ref {
        (config_map(client, namespace, &reference.name).await?, &reference.key, reference.optional, &reference.name)
    } else if let Some(reference) = &source.secret_key_ref {
        (secret(client, namespace, &reference.name).await?, &reference.key, reference.optional, &reference.name)
    } else {
        bail!("valueFrom is of a kind that the testbed does not know");
    };
    match data.and_then(|mut data| data.remove(key)) {
        Some(value) => Ok(Some(text(value))),
        None if optional == Some(true) => Ok(None),
        None => bail!("{name:?} or its key {key:?} not found"),
    }
}

/// A field of the downward API.
pub(crate) fn field(path: &str, fields: &Fields<'_>) -> Result<String> {
    let meta = &fields.pod.metadata;
    let spec = fields.pod.spec.as_ref();
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(fields.host_ip.to_owned()),
        "status.podIP" => fields.pod_ips.first().cloned(),
        "status.podIPs" => Some(fields.pod_ips.join(",")),
        _ => {
            let (map, key) = match path.split_once("['").and_then(|(map, key)| Some((map, key.strip_suffix("']")?))) {
                Some(("metadata.labels", key)) => (meta.labels.as_ref(), key),
                Some(("metadata.annotations", key)) => (meta.annotations.as_ref(), key),
                _ => bail!("the testbed does not know the field {path:?}"),
            };
            Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
        }
    };
    Ok(text.unwrap_or_default())
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The data of a ConfigMap, none where it is missing.
pub(crate) async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(object) =
        patiently(|| api.get_opt(name)).await.with_context(|| format!("cannot read ConfigMap {name}"))?
    else {
        return Ok(None);
    };
    let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    Ok(Some(text.chain(binary).collect()))
}

/// The data of a Secret, none where it is missing.
pub(crate) async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let object = patiently(|| api.get_opt(name)).await.with_context(|| format!("cannot read Secret {name}"))?;
    Ok(object.map(|object| object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_the_downward_api() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": [], "nodeName": "node"},
        }))
        .unwrap();
        let ips = ["10.0.0.2".to_owned()];
        let fields = Fields { pod: &pod, pod_ips: &ips, host_ip: "10.0.0.1" };
        let value = |path| field(path, &fields).unwrap();
        assert_eq!(value("metadata.name"), "p");
        assert_eq!(value("status.podIP"), "10.0.0.2");
        assert_eq!(value("status.hostIP"), "10.0.0.1");
        assert_eq!(value("metadata.labels['app']"), "web");
        assert_eq!(value("metadata.annotations['none']"), "");
        assert!(field("spec.hostPID", &fields).is_err());
    }
}
