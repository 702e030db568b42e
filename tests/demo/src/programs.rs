//! Which local programs stand for the images of the manifests.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use testbed::{Builder, Image};

/// Where the controller is in its container: its manifest calls it by name, and mounts a folder at /kubernetes-vault.
const CONTROLLER_PATH: &str = "/app/kubernetes-vault";
const CONTROLLER_SEARCH: &str = "/app:/usr/bin:/bin";

/// The three programs.
pub(crate) struct Programs {
    controller: PathBuf,
    init: PathBuf,
    sample: PathBuf,
}

impl Programs {
    /// Reads the variables that the Makefile sets.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self {
            controller: program("KV_CONTROLLER_BIN", "the controller")?,
            init: program("KV_INIT_BIN", "the init container's program")?,
            sample: program("KV_SAMPLE_BIN", "the sample application")?,
        })
    }

    pub(crate) fn into_images(self, builder: Builder) -> Builder {
        let controller = Image::new(self.controller).at(CONTROLLER_PATH).env("PATH", CONTROLLER_SEARCH);
        builder
            .image("kubernetes-vault/controller", controller)
            .image("kubernetes-vault/init", Image::new(self.init))
            .image("kubernetes-vault/sample-app", Image::new(self.sample))
    }
}

fn program(variable: &str, what: &str) -> Result<PathBuf> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        bail!("{variable} does not say where {what} is: run `make demo`, which builds it and sets this");
    };
    let path = PathBuf::from(path);
    ensure!(
        path.is_file(),
        "{variable}: there is no file {}: run `make demo`, which builds it and sets this",
        path.display()
    );
    // Containers have another working directory.
    Ok(std::path::absolute(path)?)
}
