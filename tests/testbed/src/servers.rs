//! The servers' programs: found on PATH, in the cache, or built from their Go modules.
//!
//! Owns: the cache directory `${KV_CACHE:-~/.cache/kubernetes-vault}/servers`, one folder for each
//! set of sources and Go version, so that a fresh clone or `git clean` builds nothing again.
//!
//! Must never happen: a half-built folder under its final name. A build goes into a folder of its own
//! and is renamed when it is complete; a lock keeps two processes from building the same twice.

mod build;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use build::Recipe;

/// Where each program is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Servers {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub api_server: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kube-scheduler.
    pub scheduler: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
    /// Vault.
    pub vault: PathBuf,
}

const CONTROL_PLANE: Recipe = Recipe {
    name: "control-plane",
    go_mod: include_str!("../servers/control-plane/go.mod"),
    go_sum: include_str!("../servers/control-plane/go.sum"),
    main_go: include_str!("../servers/control-plane/main.go"),
    // Without these the API server reports version v0.0.0, and clients refuse features.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
              -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3",
    links: &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"],
    minutes: "6",
};

const VAULT: Recipe = Recipe {
    name: "vault",
    go_mod: include_str!("../servers/vault/go.mod"),
    go_sum: include_str!("../servers/vault/go.sum"),
    main_go: include_str!("../servers/vault/main.go"),
    ldflags: "-s -w",
    links: &[],
    minutes: "9",
};

/// What a program on PATH must print when asked for its version to be taken instead of a build.
const ON_PATH: [(&str, &[&str], &str); 6] = [
    ("etcd", &["--version"], "etcd Version: 3.6."),
    ("kube-apiserver", &["--version"], "Kubernetes v1.36."),
    ("kube-controller-manager", &["--version"], "Kubernetes v1.36."),
    ("kube-scheduler", &["--version"], "Kubernetes v1.36."),
    ("kubectl", &["version", "--client"], "v1.36."),
    ("vault", &["version"], "Vault v1.13."),
];

/// Finds every program, building what this machine does not have. Prints progress to stderr.
pub fn locate_or_build() -> Result<Servers> {
    let find = |name: &str, recipe: &Recipe| -> Result<PathBuf> {
        if let Some(path) = on_path(name) {
            return Ok(path);
        }
        Ok(recipe.locate_or_build(&cache_directory()?)?.join(name))
    };
    Ok(Servers {
        etcd: find("etcd", &CONTROL_PLANE)?,
        api_server: find("kube-apiserver", &CONTROL_PLANE)?,
        controller_manager: find("kube-controller-manager", &CONTROL_PLANE)?,
        scheduler: find("kube-scheduler", &CONTROL_PLANE)?,
        kubectl: find("kubectl", &CONTROL_PLANE)?,
        vault: find("vault", &VAULT)?,
    })
}

fn cache_directory() -> Result<PathBuf> {
    let base = match env::var_os("KV_CACHE") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => {
            let home = env::var_os("HOME").context("neither KV_CACHE nor HOME is set")?;
            Path::new(&home).join(".cache/kubernetes-vault")
        }
    };
    Ok(base.join("servers"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path =
        env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())?;
    let (_, arguments, wanted) = ON_PATH.iter().find(|(program, ..)| *program == name)?;
    let output = Command::new(&path).args(*arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).contains(wanted).then_some(path)
}
