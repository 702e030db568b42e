//! Where a configuration is read from.
//!
//! Owns the order of `--config`, the variable and the default, and how much is read. Must never: print what it has read.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Where the configuration is read from unless something else is said: in the working directory.
pub const DEFAULT_PATH: &str = "kubernetes-vault.yml";

/// The same, of the image's entry point: pods of the Go version mount their ConfigMap there and give no argument.
pub const IMAGE_PATH: &str = "/kubernetes-vault/kubernetes-vault.yml";

/// The environment variable that may hold a whole configuration. The Go version's entry point wrote it to a file; a
/// read-only root and a user without rights have none, so that it is read where it stands.
pub const LOCAL_CONFIG: &str = "KUBERNETES_VAULT_LOCAL_CONFIG";

/// A configuration is written by hand; a file beyond this is not one (a wrong path, a device).
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where a configuration is. No `Debug`: it may hold one, and that may hold a token.
#[derive(Clone)]
pub struct Source(Kind);

#[derive(Clone)]
enum Kind {
    File(PathBuf),
    Variable(Zeroizing<Vec<u8>>),
}

impl Source {
    /// The file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// What `--config` names; else what is in the variable, unless that is empty; else the file at `default`.
    pub fn choose(named: Option<&Path>, variable: Option<OsString>, default: &str) -> Self {
        match (named, variable.filter(|text| !text.is_empty())) {
            (Some(path), _) => Self::file(path),
            (None, Some(text)) => Self(Kind::Variable(Zeroizing::new(text.into_encoded_bytes()))),
            (None, None) => Self::file(default),
        }
    }

    pub(super) fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        match &self.0 {
            Kind::File(path) => read_file(path),
            Kind::Variable(text) => Ok(text.clone()),
        }
    }
}

/// Its name for people: a path, or the variable's name.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File(path) => path.display().fmt(f),
            Kind::Variable(_) => write!(f, "${LOCAL_CONFIG}"),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: Option<&str>, variable: Option<&str>) -> String {
        Source::choose(named.map(Path::new), variable.map(OsString::from), IMAGE_PATH).to_string()
    }

    #[test]
    fn a_named_file_wins_over_the_variable_and_that_over_the_default() {
        assert_eq!(chosen(Some("/a.yml"), Some("vault: {}")), "/a.yml");
        assert_eq!(chosen(None, Some("vault: {}")), "$KUBERNETES_VAULT_LOCAL_CONFIG");
        assert_eq!(chosen(None, Some("")), IMAGE_PATH);
        assert_eq!(chosen(None, None), IMAGE_PATH);
    }

    #[test]
    fn the_variable_is_read_as_it_stands() {
        let source = Source::choose(None, Some("log: {}\n".into()), DEFAULT_PATH);
        assert_eq!(source.read().unwrap().as_slice(), b"log: {}\n");
    }
}
