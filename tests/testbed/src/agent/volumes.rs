//! A pod's volumes as folders, laid out as a kubelet lays them out.
//!
//! Owns: `<kubelet>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>`. The path shows in the container's
//! `/proc/self/mountinfo`, as it does under a real kubelet. What pods call a path of the node lies in `<kubelet>/host`,
//! and outlives them.
//!
//! Must never happen: a half-written file, for each is written beside its place and renamed; a pod that reaches the
//! machine's own files.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::mount::{MountFlags, mount};

use super::env::{Fields, config_map, field, secret};
use super::patience::patiently;

/// What Kubernetes gives files where the pod does not say.
const DEFAULT_MODE: i32 = 0o644;
/// Lifetime of a token where the pod does not say.
const TOKEN_SECONDS: i64 = 3600;

type Data = BTreeMap<String, Vec<u8>>;

/// A token file that must be written anew before it runs out.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    mode: i32,
    source: ServiceAccountTokenProjection,
}

impl TokenFile {
    /// When to renew: at 80 % of the lifetime, as a kubelet does.
    pub(crate) fn renew_after(&self) -> Duration {
        let seconds = self.source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default()) * 4 / 5
    }

    /// Asks for a token and writes it.
    pub(crate) async fn renew(&self, client: &Client, pod: &Pod) -> Result<()> {
        let token = request_token(client, pod, &self.source).await?;
        write_file(&self.path, token.as_bytes(), self.mode)
    }
}

/// Makes every volume's folder; returns the token files, which the caller keeps fresh.
pub(crate) async fn prepare(client: &Client, fields: &Fields<'_>, directory: &Path) -> Result<Vec<TokenFile>> {
    let tokens = token_files(fields.pod, directory)?;
    for token in &tokens {
        token.renew(client, fields.pod).await?;
    }
    write(client, fields, directory).await?;
    Ok(tokens)
}

/// Writes everything but the tokens, (again) from what the API server has now.
pub(crate) async fn write(client: &Client, fields: &Fields<'_>, directory: &Path) -> Result<()> {
    let spec = fields.pod.spec.as_ref().context("the pod has no spec")?;
    for volume in spec.volumes.iter().flatten() {
        let path = folder(directory, volume)?;
        let must_exist = volume.host_path.as_ref().and_then(|source| source.type_.as_deref()) == Some("Directory");
        if must_exist && !path.is_dir() {
            bail!("volume {}: hostPath type check failed: {} is not a directory", volume.name, path.display());
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        fill(client, fields, volume, &path).await.with_context(|| format!("volume {}", volume.name))?;
    }
    Ok(())
}

fn token_files(pod: &Pod, directory: &Path) -> Result<Vec<TokenFile>> {
    let mut tokens = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let path = folder(directory, volume)?;
        let Some(projected) = &volume.projected else {
            continue;
        };
        let sources = projected.sources.iter().flatten();
        let sources = sources.filter_map(|source| source.service_account_token.clone());
        tokens.extend(sources.map(|source| TokenFile {
            path: path.join(&source.path),
            mode: projected.default_mode.unwrap_or(DEFAULT_MODE),
            source,
        }));
    }
    Ok(tokens)
}

/// Where a volume of the pod is.
pub(crate) fn folder(directory: &Path, volume: &Volume) -> Result<PathBuf> {
    if let Some(source) = &volume.host_path {
        return on_node(directory, source).with_context(|| format!("volume {}", volume.name));
    }
    let kind = if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.projected.is_some() {
        "projected"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        bail!("volume {} is of a kind that the testbed does not know", volume.name);
    };
    Ok(directory.join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name))
}

/// A path of the node, which is a folder of the agent's: no pod sees the machine.
fn on_node(directory: &Path, source: &HostPathVolumeSource) -> Result<PathBuf> {
    if !matches!(source.type_.as_deref(), None | Some("" | "Directory" | "DirectoryOrCreate")) {
        bail!("a hostPath of another type than a directory is not known to the testbed");
    }
    // `<kubelet>/pods/<uid>`
    let kubelet = directory.ancestors().nth(2).context("a pod's folder lies in the kubelet's")?;
    in_agent(kubelet, &source.path)
}

/// The folder of the machine that is `path` on an agent's node.
pub(crate) fn in_agent(kubelet: &Path, path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        bail!("{path:?} is no path of a node");
    }
    Ok(kubelet.join("host").join(path.strip_prefix("/")?))
}

/// Mounts a disk of `bytes` at a path of the node. Returns where it is for the agent.
pub(crate) fn mount_disk(kubelet: &Path, path: &str, bytes: u64) -> Result<PathBuf> {
    let place = in_agent(kubelet, path)?;
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    let options = CString::new(format!("size={bytes}"))?;
    // Its name is not "tmpfs": that is how an emptyDir in memory is called, which goes with its pod.
    mount("disk", &place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .with_context(|| format!("cannot mount a disk at {}", place.display()))?;
    Ok(place)
}

async fn fill(client: &Client, fields: &Fields<'_>, volume: &Volume, path: &Path) -> Result<()> {
    let namespace = fields.pod.metadata.namespace.as_deref().unwrap_or("default");
    if volume.empty_dir.is_some() {
        // Pods may run as any user; a kubelet makes these open to all.
        fs::set_permissions(path, Permissions::from_mode(0o777))?;
    }
    if let Some(source) = &volume.config_map {
        let data = required(config_map(client, namespace, &source.name).await?, source.optional, &source.name)?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        write_items(path, &data, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let data = required(secret(client, namespace, &name).await?, source.optional, &name)?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        write_items(path, &data, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        write_fields(path, source.items.as_deref(), mode, fields)?;
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            project(client, fields, source, path, mode).await?;
        }
    }
    Ok(())
}

async fn project(
    client: &Client,
    fields: &Fields<'_>,
    source: &VolumeProjection,
    path: &Path,
    mode: i32,
) -> Result<()> {
    let namespace = fields.pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(source) = &source.config_map {
        let data = required(config_map(client, namespace, &source.name).await?, source.optional, &source.name)?;
        write_items(path, &data, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &source.secret {
        let data = required(secret(client, namespace, &source.name).await?, source.optional, &source.name)?;
        write_items(path, &data, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &source.downward_api {
        write_fields(path, source.items.as_deref(), mode, fields)?;
    }
    Ok(())
}

fn required(data: Option<Data>, optional: Option<bool>, name: &str) -> Result<Data> {
    match data {
        Some(data) => Ok(data),
        None if optional == Some(true) => Ok(Data::new()),
        None => bail!("{name:?} not found"),
    }
}

fn write_items(path: &Path, data: &Data, items: Option<&[KeyToPath]>, mode: i32, optional: Option<bool>) -> Result<()> {
    let Some(items) = items else {
        return data.iter().try_for_each(|(key, value)| write_file(&path.join(key), value, mode));
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => write_file(&path.join(&item.path), value, item.mode.unwrap_or(mode))?,
            None if optional == Some(true) => {}
            None => bail!("there is no key {:?}", item.key),
        }
    }
    Ok(())
}

fn write_fields(path: &Path, items: Option<&[DownwardAPIVolumeFile]>, mode: i32, fields: &Fields<'_>) -> Result<()> {
    for item in items.unwrap_or_default() {
        let reference = item.field_ref.as_ref().context("resourceFieldRef is not known to the testbed")?;
        let value = field(&reference.field_path, fields)?;
        write_file(&path.join(&item.path), value.as_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

fn write_file(path: &Path, content: &[u8], mode: i32) -> Result<()> {
    let parent = path.parent().context("a file needs a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let temporary = parent.join(format!("..{}", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&temporary, content).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::set_permissions(&temporary, Permissions::from_mode(mode.cast_unsigned()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

async fn request_token(client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(TOKEN_SECONDS)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let parameters = PostParams::default();
    let answer = patiently(|| accounts.create_token_request(account, &parameters, &request))
        .await
        .with_context(|| format!("cannot get a token of service account {account}"))?;
    Ok(answer.status.context("the token request has no answer")?.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_and_with_their_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        write_file(&path, b"x", 0o440).unwrap();
        write_file(&path, b"y", 0o440).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"y");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let directory = tempfile::tempdir().unwrap();
        let item = KeyToPath { key: "k".into(), path: "p".into(), mode: None };
        let data = Data::new();
        assert!(write_items(directory.path(), &data, Some(std::slice::from_ref(&item)), 0o644, None).is_err());
        assert!(write_items(directory.path(), &data, Some(&[item]), 0o644, Some(true)).is_ok());
    }

    #[test]
    fn volumes_lie_where_a_kubelet_puts_them() {
        let volume = Volume { name: "v".into(), empty_dir: Some(Default::default()), ..Volume::default() };
        let path = folder(Path::new("/k/pods/uid"), &volume).unwrap();
        assert_eq!(path, Path::new("/k/pods/uid/volumes/kubernetes.io~empty-dir/v"));
    }

    #[test]
    fn a_nodes_paths_are_folders_of_the_agent() {
        let volume = |path: &str, kind: Option<&str>| {
            let source = HostPathVolumeSource { path: path.into(), type_: kind.map(Into::into) };
            folder(Path::new("/k/pods/uid"), &Volume { name: "v".into(), host_path: Some(source), ..Volume::default() })
        };
        assert_eq!(volume("/var/lib/kv", None).unwrap(), Path::new("/k/host/var/lib/kv"));
        assert!(volume("/var/lib/kv", Some("DirectoryOrCreate")).is_ok());
        for (path, kind) in [("var", None), ("/a/../../etc", None), ("/run/x.sock", Some("Socket"))] {
            assert!(volume(path, kind).is_err(), "{path}");
        }
    }
}
