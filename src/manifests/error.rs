//! Why there are no manifests: each in one line that names the remedy.

use std::io;
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Flags that contradict each other, or themselves.
    #[error("{0}")]
    Usage(String),
    /// A file that somebody else has made.
    #[error(
        "{} is in the way: it was not made by this command. Nothing was written; give another --output-dir, or move it",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// Files cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl Error {
    /// Whether trying again does not help: exit code 2.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}
