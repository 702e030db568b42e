//! What the environment asks for.
//!
//! Owns: the names, defaults and checks of the environment variables, in the reference's order.
//!
//! Must never: print a value of VAULT_ROLE_ID; read the environment after the start.

use std::path::PathBuf;

use jiff::SignedDuration;
use wire::duration;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::exit::{Cause, Failure};
use crate::identity::Identity;
use crate::proxy::Proxies;

const CREDENTIALS_PATH: &str = "/var/run/secrets/boostport.com";
const TIMEOUT: &str = "5m";

/// The longest CA bundle that is read from a file; the one that fits into a push.
const CA_BYTES_MAX: u64 = wire::limits::BODY_BYTES_MAX as u64;

/// What is written for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Log in, write `vault-token`.
    Token,
    /// Unwrap, write `vault-secret-id`.
    SecretId,
    /// Write `vault-wrapped-secret-id`; Vault is never called.
    WrappedSecretId,
}

/// A Vault address as written, and as read.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) text: String,
    pub(crate) endpoint: Endpoint,
}

/// The environment, checked.
pub(crate) struct Config {
    pub(crate) role_id: Zeroizing<String>,
    pub(crate) credentials_path: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) timeout: SignedDuration,
    /// VAULT_ADDR: wins over the push.
    pub(crate) vault_addr: Option<Address>,
    /// The content of VAULT_CACERT: wins over the push.
    pub(crate) vault_cas: Option<Vec<u8>>,
    /// VAULT_NAMESPACE: wins over the push.
    pub(crate) vault_namespace: Option<String>,
    pub(crate) identity: Identity,
    pub(crate) proxies: Proxies,
    /// SSL_CERT_FILE: the public roots, where they are others than those compiled in.
    pub(crate) public_roots: Option<PathBuf>,
}

/// Whether debug lines are wanted. Read before all else: the other complaints are log lines already.
pub(crate) fn debug_wanted(get: impl Fn(&str) -> Option<String>) -> Result<bool, Failure> {
    match value(&get, "LOG_LEVEL").as_deref() {
        None | Some("debug") => Ok(true),
        Some("error") => Ok(false),
        Some(_) => Err(wrong("Invalid LOG_LEVEL. Valid values are \"debug\" and \"error\".")),
    }
}

impl Config {
    /// Reads the environment through `get`, which gives a variable's value by its name.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let get = |name: &str| value(&get, name);
        let role_id =
            get("VAULT_ROLE_ID").ok_or_else(|| wrong("The VAULT_ROLE_ID environment variable must be set."))?;
        let mode = match (is_true(get("RETRIEVE_TOKEN")), is_true(get("UNWRAP_SECRET"))) {
            (true, true) => Mode::Token,
            (true, false) => {
                return Err(wrong("UNWRAP_SECRET cannot be false if RETRIEVE_TOKEN is true."));
            }
            (false, true) => Mode::SecretId,
            (false, false) => Mode::WrappedSecretId,
        };
        let timeout = get("TIMEOUT").unwrap_or_else(|| TIMEOUT.to_owned());
        let timeout = duration::parse(&timeout).map_err(|e| wrong(format!("Invalid timeout ({timeout}): {e}.")))?;
        let vault_addr = match get("VAULT_ADDR") {
            Some(text) => {
                let endpoint = Endpoint::parse(&text).map_err(|e| wrong(format!("Invalid VAULT_ADDR: {e}.")))?;
                Some(Address { text, endpoint })
            }
            None => None,
        };
        let vault_cas = get("VAULT_CACERT").map(|path| read_bundle(&path)).transpose()?;
        Ok(Self {
            role_id: Zeroizing::new(role_id),
            credentials_path: get("CREDENTIALS_PATH").map_or_else(|| PathBuf::from(CREDENTIALS_PATH), PathBuf::from),
            mode,
            timeout,
            vault_addr,
            vault_cas,
            vault_namespace: get("VAULT_NAMESPACE"),
            identity: Identity { name: get("POD_NAME"), namespace: get("POD_NAMESPACE"), uid: get("POD_UID") },
            proxies: Proxies::read(&get).map_err(wrong)?,
            public_roots: get("SSL_CERT_FILE").map(PathBuf::from),
        })
    }

    /// Lines that say which of our own variables win over what a push says.
    pub(crate) fn overrides(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(address) = &self.vault_addr {
            lines.push(format!("VAULT_ADDR is set: Vault is {}, whatever a push says.", address.text));
        }
        if self.vault_cas.is_some() {
            lines.push("VAULT_CACERT is set: it verifies Vault, whatever a push says.".to_owned());
        }
        if let Some(namespace) = &self.vault_namespace {
            lines.push(format!("VAULT_NAMESPACE is set: it is {namespace}, whatever a push says."));
        }
        lines
    }
}

/// An empty variable counts as unset.
fn value(get: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    get(name).filter(|value| !value.is_empty())
}

/// Only `false`, in any letter case, is false.
fn is_true(value: Option<String>) -> bool {
    !value.is_some_and(|value| value.eq_ignore_ascii_case("false"))
}

fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Cause::Configuration, what)
}

fn read_bundle(path: &str) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CA_BYTES_MAX + 1).read_to_end(&mut pem))
        .map_err(|e| wrong(format!("Cannot read VAULT_CACERT ({path}): {e}.")))?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(wrong(format!("VAULT_CACERT ({path}) is longer than {CA_BYTES_MAX} bytes.")));
    }
    crate::tls::roots_of(&pem).map_err(|e| wrong(format!("VAULT_CACERT ({path}): {e}.")))?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Config, Failure> {
        Config::read(|name| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    }

    fn complaint(env: &[(&str, &str)]) -> String {
        let failure = read(env).err().unwrap();
        assert_eq!(failure.cause, Cause::Configuration);
        failure.what
    }

    const ROLE: (&str, &str) = ("VAULT_ROLE_ID", "r");

    #[test]
    fn the_defaults_are_the_references() {
        let config = read(&[ROLE]).ok().unwrap();
        assert_eq!(config.mode, Mode::Token);
        assert_eq!(config.timeout, SignedDuration::from_mins(5));
        assert_eq!(config.credentials_path, PathBuf::from("/var/run/secrets/boostport.com"));
        assert!(config.overrides().is_empty());
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(complaint(&[("VAULT_ROLE_ID", "")]), "The VAULT_ROLE_ID environment variable must be set.");
        let config = read(&[ROLE, ("TIMEOUT", ""), ("UNWRAP_SECRET", ""), ("VAULT_ADDR", "")]).ok().unwrap();
        assert_eq!(config.timeout, SignedDuration::from_mins(5));
        assert_eq!(config.mode, Mode::Token);
    }

    #[test]
    fn only_false_in_any_letter_case_is_false() {
        for (retrieve, unwrap, mode) in [
            ("false", "true", Mode::SecretId),
            ("FALSE", "0", Mode::SecretId),
            ("False", "fAlSe", Mode::WrappedSecretId),
            ("0", "no", Mode::Token),
            ("false ", "1", Mode::Token),
        ] {
            let config = read(&[ROLE, ("RETRIEVE_TOKEN", retrieve), ("UNWRAP_SECRET", unwrap)]);
            assert_eq!(config.ok().unwrap().mode, mode, "{retrieve} {unwrap}");
        }
    }

    // Bad-input table: RETRIEVE_TOKEN=true with UNWRAP_SECRET=false, bad TIMEOUT.
    #[test]
    fn what_cannot_be_is_named() {
        let expected = "UNWRAP_SECRET cannot be false if RETRIEVE_TOKEN is true.";
        assert_eq!(complaint(&[ROLE, ("UNWRAP_SECRET", "false"), ("TIMEOUT", "x")]), expected);
        for (timeout, expected) in [
            ("5", "Invalid timeout (5): time: missing unit in duration \"5\"."),
            ("abc", "Invalid timeout (abc): time: invalid duration \"abc\"."),
            ("5d", "Invalid timeout (5d): time: unknown unit \"d\" in duration \"5d\"."),
        ] {
            assert_eq!(complaint(&[ROLE, ("TIMEOUT", timeout)]), expected);
        }
        assert!(complaint(&[ROLE, ("VAULT_ADDR", "vault:8200")]).contains("VAULT_ADDR"));
        assert!(complaint(&[ROLE, ("VAULT_CACERT", "/nonexistent")]).contains("VAULT_CACERT"));
        assert!(complaint(&[ROLE, ("VAULT_CACERT", "/proc/self/status")]).contains("no certificate"));
    }

    #[test]
    fn the_letter_case_of_the_log_level_matters() {
        let level = |value: &'static str| debug_wanted(move |_| Some(value.to_owned())).ok();
        assert_eq!(level("debug"), Some(true));
        assert_eq!(level(""), Some(true));
        assert_eq!(level("error"), Some(false));
        assert_eq!(level("DEBUG"), None);
        assert_eq!(level("info"), None);
    }
}
