//! What the environment asks for.
//!
//! Owns: names and defaults of the environment variables.

use std::path::PathBuf;

use anyhow::{Result, ensure};

const CREDENTIALS_PATH: &str = "/var/run/secrets/boostport.com";
const SECRET_PATH: &str = "secret/data/sample";
const APPROLE_MOUNT: &str = "approle";

/// The environment, with defaults.
pub(crate) struct Settings {
    /// `CREDENTIALS_PATH`: where the init container wrote to.
    pub(crate) credentials_path: PathBuf,
    /// `SECRET_PATH`: what to read, as in the HTTP API (of a KV store version 2 with `data/` in it).
    pub(crate) secret_path: String,
    /// Whether values are printed, or the names of keys alone. Values of the demonstration's own secret are; for
    /// another `SECRET_PATH` only with `SHOW_VALUES=true`: somebody may point this at a secret that is one.
    pub(crate) show_values: bool,
    /// `APPROLE_MOUNT`: where AppRole is mounted, without `auth/`.
    pub(crate) approle_mount: String,
    /// `VAULT_NAMESPACE`.
    pub(crate) namespace: Option<String>,
    /// `EXIT_AFTER_SHOW`: end at once instead of waiting for SIGTERM.
    pub(crate) exit_after_show: bool,
}

impl Settings {
    /// Reads them through `get`. An empty variable counts as unset.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let is_true = |name: &str| get(name).map(|value| value.eq_ignore_ascii_case("true"));
        let secret_path = get("SECRET_PATH").unwrap_or_else(|| SECRET_PATH.to_owned());
        let approle_mount = get("APPROLE_MOUNT").unwrap_or_else(|| APPROLE_MOUNT.to_owned());
        for (name, path) in [("SECRET_PATH", &secret_path), ("APPROLE_MOUNT", &approle_mount)] {
            ensure!(is_path(path), "{name}: not a path such as {SECRET_PATH}");
        }
        Ok(Self {
            credentials_path: get("CREDENTIALS_PATH").map_or_else(|| PathBuf::from(CREDENTIALS_PATH), PathBuf::from),
            show_values: is_true("SHOW_VALUES").unwrap_or(secret_path == SECRET_PATH),
            secret_path: secret_path.trim_matches('/').to_owned(),
            approle_mount: approle_mount.trim_matches('/').to_owned(),
            namespace: get("VAULT_NAMESPACE"),
            exit_after_show: is_true("EXIT_AFTER_SHOW").unwrap_or(false),
        })
    }
}

/// It becomes part of a URL as it is.
fn is_path(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().all(is_plain) && text.trim_matches('/').split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn defaults_are_those_of_the_init_container_and_the_demonstration() {
        let settings = read(&[("EXIT_AFTER_SHOW", ""), ("SECRET_PATH", "")]).unwrap();
        assert_eq!(settings.credentials_path, PathBuf::from("/var/run/secrets/boostport.com"));
        assert_eq!((settings.secret_path.as_str(), settings.approle_mount.as_str()), ("secret/data/sample", "approle"));
        assert!(settings.show_values && !settings.exit_after_show && settings.namespace.is_none());
    }

    #[test]
    fn values_of_another_secret_are_shown_only_on_demand() {
        assert!(!read(&[("SECRET_PATH", "kv/data/real")]).unwrap().show_values);
        assert!(read(&[("SECRET_PATH", "kv/data/real"), ("SHOW_VALUES", "true")]).unwrap().show_values);
        assert!(!read(&[("SHOW_VALUES", "false")]).unwrap().show_values);
    }

    #[test]
    fn what_is_no_path_is_refused_by_name() {
        for path in ["a/../b", "a//b", "a?b", "a b", "/", "a%2fb"] {
            let error = read(&[("SECRET_PATH", path)]).err().unwrap();
            assert!(error.to_string().starts_with("SECRET_PATH"), "{path}");
        }
        assert_eq!(read(&[("APPROLE_MOUNT", "/team/approle/")]).unwrap().approle_mount, "team/approle");
    }
}
