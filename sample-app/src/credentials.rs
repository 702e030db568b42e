//! What the init container left: one of three files, and perhaps a CA bundle.
//!
//! Owns: the names of the files and their fields. Must never: quote a file's content in an error.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::shorten::Secret;

/// Vault's CA certificates, where the controller was given any.
pub(crate) const CA_BUNDLE: &str = "ca.crt";

const TOKEN: &str = "vault-token";
const SECRET_ID: &str = "vault-secret-id";
const WRAPPED_SECRET_ID: &str = "vault-wrapped-secret-id";

/// The default mode: the init container has logged in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenFile {
    pub(crate) client_token: Secret,
    pub(crate) accessor: String,
    /// Seconds; 0: the token does not expire.
    pub(crate) lease_duration: i64,
    pub(crate) renewable: bool,
    pub(crate) vault_addr: String,
}

/// `RETRIEVE_TOKEN=false`: the application logs in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretIdFile {
    pub(crate) role_id: String,
    pub(crate) secret_id: Secret,
    pub(crate) accessor: String,
    pub(crate) vault_addr: String,
}

/// `RETRIEVE_TOKEN=false` and `UNWRAP_SECRET=false`: the application unwraps and logs in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WrappedSecretIdFile {
    pub(crate) role_id: String,
    pub(crate) wrapped_secret_id: Secret,
    pub(crate) vault_addr: String,
    /// Seconds, counted from when Vault made the wrapping token.
    pub(crate) ttl: i64,
}

/// What was left.
pub(crate) enum Credentials {
    Token(TokenFile),
    SecretId(SecretIdFile),
    WrappedSecretId(WrappedSecretIdFile),
}

impl Credentials {
    /// Reads what is in `directory`.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        if let Some(file) = load(directory, TOKEN)? {
            return Ok(Self::Token(file));
        }
        if let Some(file) = load(directory, SECRET_ID)? {
            return Ok(Self::SecretId(file));
        }
        if let Some(file) = load(directory, WRAPPED_SECRET_ID)? {
            return Ok(Self::WrappedSecretId(file));
        }
        bail!(
            "there is neither {TOKEN}, nor {SECRET_ID}, nor {WRAPPED_SECRET_ID} in {}: does the init container mount \
             the same volume, and do both have the same CREDENTIALS_PATH?",
            directory.display()
        )
    }

    /// Where Vault is.
    pub(crate) fn vault_address(&self) -> &str {
        match self {
            Self::Token(file) => &file.vault_addr,
            Self::SecretId(file) => &file.vault_addr,
            Self::WrappedSecretId(file) => &file.vault_addr,
        }
    }
}

/// The CA bundle in `directory`; `None` where there is none, and the public roots verify Vault.
pub(crate) fn bundle(directory: &Path) -> Result<Option<Vec<u8>>> {
    read_if_there(&directory.join(CA_BUNDLE)).map(|found| found.map(|bytes| bytes.to_vec()))
}

fn load<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>> {
    let path = directory.join(name);
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    // Its message may quote a value of the wrong type, and that could be a token.
    let parsed = serde_json::from_slice(&bytes).map_err(|error| {
        anyhow::anyhow!("{} is not what an init container writes (at column {})", path.display(), error.column())
    });
    parsed.map(Some)
}

fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn each_mode_is_told_by_its_file() {
        let token = r#"{"clientToken":"hvs.EXAMPLE","accessor":"nnHdjjzv","leaseDuration":21600,"renewable":true,"vaultAddr":"http://vault:8200"}"#;
        let read = Credentials::read(left(&[(TOKEN, token)]).path()).unwrap();
        assert_eq!(read.vault_address(), "http://vault:8200");
        let Credentials::Token(file) = read else { panic!("another mode") };
        assert_eq!((file.client_token.expose(), file.accessor.as_str()), ("hvs.EXAMPLE", "nnHdjjzv"));
        assert_eq!((file.lease_duration, file.renewable), (21_600, true));

        let secret_id = r#"{"roleId":"52a8","secretId":"0ac2","accessor":"30e9","vaultAddr":"http://vault:8200"}"#;
        let read = Credentials::read(left(&[(SECRET_ID, secret_id)]).path()).unwrap();
        let Credentials::SecretId(file) = read else { panic!("another mode") };
        assert_eq!((file.role_id.as_str(), file.secret_id.expose(), file.accessor.as_str()), ("52a8", "0ac2", "30e9"));

        let wrapped = r#"{"roleId":"52a8","wrappedSecretId":"hvs.EXAMPLE","vaultAddr":"http://vault:8200","ttl":60}"#;
        let read = Credentials::read(left(&[(WRAPPED_SECRET_ID, wrapped)]).path()).unwrap();
        let Credentials::WrappedSecretId(file) = read else { panic!("another mode") };
        assert_eq!((file.wrapped_secret_id.expose(), file.ttl), ("hvs.EXAMPLE", 60));
    }

    #[test]
    fn nothing_there_says_what_was_expected_where() {
        let directory = left(&[]);
        let error = Credentials::read(directory.path()).err().unwrap().to_string();
        assert!(error.contains("vault-token") && error.contains("CREDENTIALS_PATH"), "{error}");
        assert!(bundle(directory.path()).unwrap().is_none());
    }

    #[test]
    fn an_error_quotes_nothing_of_the_file() {
        for content in [r#"{"clientToken":"hvs.canary","renewable":"hvs.canary"}"#, "hvs.canary", ""] {
            let error = Credentials::read(left(&[(TOKEN, content)]).path()).err().unwrap();
            assert!(!format!("{error:#}").contains("canary"), "{error:#}");
        }
    }
}
