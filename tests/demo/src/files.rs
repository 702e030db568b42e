//! The files of `deploy/`, byte for byte as they are in the tree, laid out for kubectl and the shell.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

macro_rules! deploy {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../", $name)))),*]
    };
}

/// Path from the root of the tree, content. Compiled in, so that the demonstration needs no tree.
const FILES: &[(&str, &str)] = deploy![
    "deploy/base/kustomization.yaml",
    "deploy/base/rbac.yaml",
    "deploy/base/service.yaml",
    "deploy/quick-start/configmap.yaml",
    "deploy/quick-start/deployment.yaml",
    "deploy/quick-start/kustomization.yaml",
    "deploy/quick-start/namespace.yaml",
    "deploy/quick-start/rbac.yaml",
    "deploy/replicated/configmap.yaml",
    "deploy/replicated/disruption-budget.yaml",
    "deploy/replicated/kustomization.yaml",
    "deploy/replicated/namespace.yaml",
    "deploy/replicated/rbac.yaml",
    "deploy/replicated/statefulset.yaml",
    "deploy/sample-app/token/deployment.yaml",
    "deploy/sample-app/token/kustomization.yaml",
    "deploy/vault/kubernetes-vault-minimal.hcl",
    "deploy/vault/kubernetes-vault.hcl",
    "deploy/vault/pki.hcl",
    "deploy/vault/pki.sh",
    "deploy/vault/sample-app.hcl",
    "deploy/vault/setup.sh",
];

/// Writes all of them below `directory`, under their paths.
pub(crate) fn lay_out(directory: &Path) -> Result<()> {
    for (name, content) in FILES {
        let path = directory.join(name);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The text of one of them.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, content)| *content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn below(folder: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { below(path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn no_file_is_forgotten() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = Vec::new();
        for folder in
            ["deploy/base", "deploy/quick-start", "deploy/replicated", "deploy/sample-app/token", "deploy/vault"]
        {
            below(root.join(folder), &mut found);
        }
        let mut found: Vec<String> =
            found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
        found.sort();
        let known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(found, known);
    }
}
