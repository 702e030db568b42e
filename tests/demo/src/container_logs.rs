//! The log of every container under a name that a person can find.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use testbed::Testbed;

/// Name for people, and the file.
pub(crate) type Log = (String, PathBuf);

/// The newest log with content of each container, in all namespaces.
pub(crate) async fn all(bed: &Testbed) -> Result<Vec<Log>> {
    let pods: Api<Pod> = Api::all(bed.client());
    let mut found = Vec::new();
    for pod in pods.list(&ListParams::default()).await?.items {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let Ok(node) = bed.node_of(&namespace, &name) else { continue };
        let Some(spec) = &pod.spec else { continue };
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            // A container that has not been started has no log.
            let files = node.log_files(&namespace, &name, &container.name).unwrap_or_default();
            let label = format!("{name}.{}", container.name);
            // One that was just started again has said nothing yet; why it ended is in the one before.
            let says_something = |file: &&PathBuf| fs::metadata(file).is_ok_and(|data| data.len() > 0);
            found.extend(files.iter().rfind(says_something).map(|file| (label, file.clone())));
        }
    }
    Ok(found)
}

/// Makes a link to each in `folder`.
pub(crate) async fn link(bed: &Testbed, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, file) in all(bed).await? {
        let path = folder.join(name);
        symlink(&file, &path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
}
