//! The control plane that cases share, the command under test, and `deploy/` as it is in the tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::future::LocalBoxFuture;
use serde::Deserialize as _;
use serde_json::Value;
use testbed::Testbed;
use tokio::runtime::Runtime;

/// What one case checks.
pub(crate) type Case = for<'a> fn(&'a Beds) -> LocalBoxFuture<'a, Result<()>>;

/// For one step of a case. Two busy cores may be slow; nothing waits for this where all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The documented cases, with the folder of each.
pub(crate) const DOCUMENTED: [(&str, &[&str]); 11] = [
    ("quick-start", &["quick-start"]),
    ("replicated", &["replicated"]),
    ("production", &["production"]),
    ("external-ca", &["external-ca"]),
    ("one-namespace", &["one-namespace"]),
    ("reference", &["reference"]),
    ("monitoring", &["monitoring"]),
    ("monitoring-tls", &["monitoring", "--tls-secret=kubernetes-vault-scraper"]),
    ("sample-app/token", &["sample-app"]),
    ("sample-app/secret-id", &["sample-app", "--mode=secret-id"]),
    ("sample-app/wrapped-secret-id", &["sample-app", "--mode=wrapped-secret-id"]),
];

/// See the module.
#[derive(Default)]
pub(crate) struct Beds {
    runtime: OnceLock<Runtime>,
    plane: OnceLock<Result<Testbed, String>>,
    /// Cases apply objects of the same names.
    one_at_a_time: Mutex<()>,
}

impl Beds {
    /// Runs a case by itself.
    pub(crate) fn run(&self, case: Case) -> Result<()> {
        // A case that failed leaves nothing half done here: poison means nothing.
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime().block_on(case(self))
    }

    /// A control plane without nodes: objects are taken or refused, and nothing runs.
    pub(crate) fn plane(&self) -> Result<&Testbed> {
        self.plane.get().map_or_else(
            || Err(anyhow!("no control plane was started")),
            |started| started.as_ref().map_err(|error| anyhow!("the control plane did not start: {error}")),
        )
    }

    /// Starts it, if no case before has done so.
    pub(crate) async fn start_plane(&self) -> Result<&Testbed> {
        if self.plane.get().is_none() {
            let started = Testbed::builder().nodes(0).without_vault().start().await;
            // Cases run one at a time: nobody else sets it.
            let _ = self.plane.set(started.map_err(|error| format!("{error:#}")));
        }
        self.plane()
    }

    /// Ends what was started.
    pub(crate) fn stop(&self) {
        if let Some(Ok(bed)) = self.plane.get() {
            self.runtime().block_on(bed.stop());
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built")
        })
    }
}

/// `deploy/` in the tree.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Runs `kubernetes-vault manifests`.
pub(crate) fn run(arguments: &[&str]) -> Result<Output> {
    let program = env!("CARGO_BIN_EXE_kubernetes-vault");
    Command::new(program).arg("manifests").args(arguments).output().context("cannot start the command")
}

/// What it prints.
pub(crate) fn printed(arguments: &[&str]) -> Result<String> {
    let output = run(arguments)?;
    ensure!(output.status.success(), "manifests {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of a manifest.
pub(crate) fn objects(manifest: &str) -> Result<Vec<Value>> {
    serde_yaml::Deserializer::from_str(manifest)
        .map(|document| Value::deserialize(document).context("a manifest is not YAML"))
        .collect()
}

/// A file of this testbed with `text` in it, for kubectl.
pub(crate) fn file(bed: &Testbed, name: &str, text: &str) -> Result<String> {
    let path = bed.directory().join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}
