//! The four requests to Vault: unwrap (after a look at where the wrapping token comes from), log in, read.
//!
//! Must never: follow a redirect with a token, verify Vault by more than the CA bundle where there is one, or put a
//! token into an error.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::shorten::Secret;

/// A healthy Vault answers in milliseconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A Vault.
pub(crate) struct Vault {
    client: Client,
    address: String,
    namespace: Option<String>,
}

/// What a login gives.
#[derive(Deserialize)]
pub(crate) struct Login {
    pub(crate) client_token: Secret,
    #[serde(default)]
    pub(crate) accessor: String,
    #[serde(default)]
    pub(crate) lease_duration: i64,
    #[serde(default)]
    pub(crate) renewable: bool,
}

#[derive(Deserialize)]
struct Auth {
    auth: Login,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Created {
    creation_path: String,
}

#[derive(Deserialize)]
struct SecretId {
    secret_id: Secret,
}

/// The body of an error.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    errors: Vec<String>,
}

impl Vault {
    /// The Vault at `address`. Where a `bundle` was left it alone verifies Vault, else the public roots do.
    pub(crate) fn new(address: &str, namespace: Option<&str>, bundle: Option<&[u8]>) -> Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls(bundle)?)
            .redirect(Policy::none())
            .timeout(REQUEST_LIMIT)
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { client, address: address.trim_end_matches('/').to_owned(), namespace: namespace.map(str::to_owned) })
    }

    /// Unwraps a wrapped secret_id, once it is known to be one: whoever caught the push on its way could have unwrapped
    /// it and wrapped something else. The path that made a wrapping token cannot be forged.
    pub(crate) async fn unwrap_secret_id(&self, mount: &str, wrapping: &Secret) -> Result<Secret> {
        let body = json!({"token": wrapping.expose()});
        let created: Data<Created> =
            self.ask(Method::POST, "sys/wrapping/lookup", Some(wrapping), Some(&body))
                .await
                .context("the wrapping token cannot be looked up; it is good for one use, and for its TTL only")?;
        ensure!(
            made_by(&created.data.creation_path, mount, self.namespace.as_deref()),
            "the wrapping token was made at {}, not at auth/{mount}/role/<role>/secret-id: somebody may have put \
             something else in its place",
            created.data.creation_path
        );
        let found: Data<SecretId> = self
            .ask(Method::POST, "sys/wrapping/unwrap", Some(wrapping), None)
            .await
            .context("the secret_id cannot be unwrapped")?;
        Ok(found.data.secret_id)
    }

    /// Logs in with AppRole.
    pub(crate) async fn log_in(&self, mount: &str, role_id: &str, secret_id: &Secret) -> Result<Login> {
        let body = json!({"role_id": role_id, "secret_id": secret_id.expose()});
        let path = format!("auth/{mount}/login");
        let login: Auth = self.ask(Method::POST, &path, None, Some(&body)).await.with_context(|| {
            format!("cannot log in at {path}; a secret_id is good for one use unless its role says otherwise")
        })?;
        Ok(login.auth)
    }

    /// Reads a secret of a KV store, version 1 or 2.
    pub(crate) async fn read(&self, path: &str, token: &Secret) -> Result<Map<String, Value>> {
        let answer: Data<Map<String, Value>> = self
            .ask(Method::GET, path, Some(token), None)
            .await
            .with_context(|| format!("cannot read {path}; does the AppRole's policy allow it, and is it there?"))?;
        Ok(innermost(answer.data))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<T> {
        let mut request = self.client.request(method, format!("{}/v1/{path}", self.address));
        // Vault Agent and Vault Proxy can be told to refuse requests without it.
        request = request.header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.context("Vault cannot be reached")?;
        let status = answer.status();
        let bytes = answer.bytes().await.context("Vault's answer broke off")?;
        if !status.is_success() {
            let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
            bail!("Vault answers {status}{}", words(&refusal.errors));
        }
        // Without the parser's message: it could quote a value.
        serde_json::from_slice(&bytes).map_err(|_| anyhow::anyhow!("Vault's answer has another form than expected"))
    }
}

fn words(errors: &[String]) -> String {
    // Vault lays its errors out in lines and bullets; ours are one line.
    let text: Vec<&str> = errors.iter().flat_map(|error| error.split_whitespace()).collect();
    if text.is_empty() { String::new() } else { format!(": {}", text.join(" ")) }
}

/// Version 2 of the KV store puts the data one level deeper, beside its metadata.
fn innermost(mut data: Map<String, Value>) -> Map<String, Value> {
    match (data.remove("data"), data.contains_key("metadata")) {
        (Some(Value::Object(inner)), true) => inner,
        (Some(value), _) => {
            data.insert("data".to_owned(), value);
            data
        }
        (None, _) => data,
    }
}

/// Whether `path` is `auth/<mount>/role/<role>/secret-id`; a Vault with namespaces may put its own in front.
fn made_by(path: &str, mount: &str, namespace: Option<&str>) -> bool {
    let namespace = namespace.map(|name| name.trim_matches('/')).filter(|name| !name.is_empty());
    let path = match namespace.and_then(|name| path.strip_prefix(name)?.strip_prefix('/')) {
        Some(inner) => inner,
        None => path,
    };
    path.strip_prefix("auth/")
        .and_then(|rest| rest.strip_prefix(mount))
        .and_then(|rest| rest.strip_prefix("/role/"))
        .and_then(|rest| rest.strip_suffix("/secret-id"))
        .is_some_and(|role| !matches!(role, "" | "." | "..") && !role.contains('/'))
}

fn tls(bundle: Option<&[u8]>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match bundle {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|_| anyhow::anyhow!("the CA bundle is not a valid PEM bundle"))?;
            let (added, _) = roots.add_parsable_certificates(found);
            ensure!(added > 0, "there is no usable certificate in the CA bundle");
        }
    }
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_id_of_a_role_of_that_mount_is_taken() {
        for path in ["auth/approle/role/sample/secret-id", "team/auth/approle/role/sample/secret-id"] {
            assert!(made_by(path, "approle", Some("team/")), "{path}");
        }
        assert!(made_by("auth/a/b/role/sample/secret-id", "a/b", None));
        for path in [
            "sys/wrapping/wrap",
            "cubbyhole/response",
            "auth/other/role/sample/secret-id",
            "auth/approle/role/secret-id",
            "auth/approle/role//secret-id",
            "auth/approle/role/a/b/secret-id",
            "auth/approle/role/../secret-id",
            "auth/approle/role/sample/secret-id/x",
            "team/auth/approle/role/sample/secret-id",
        ] {
            assert!(!made_by(path, "approle", None), "{path}");
        }
    }

    #[test]
    fn both_versions_of_the_kv_store_are_read() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        let expected = map(json!({"message": "hello"}));
        assert_eq!(innermost(map(json!({"data": {"message": "hello"}, "metadata": {}}))), expected);
        assert_eq!(innermost(expected.clone()), expected);
        let odd = map(json!({"data": {"message": "hello"}}));
        assert_eq!(innermost(odd.clone()), odd);
    }

    #[test]
    fn vaults_words_are_one_line() {
        assert_eq!(
            words(&["1 error occurred:\n\t* permission denied\n\n".to_owned()]),
            ": 1 error occurred: * permission denied"
        );
        assert_eq!(words(&[]), "");
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        assert!(tls(Some(b"")).is_err());
        assert!(tls(Some(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")).is_err());
        assert!(tls(None).is_ok());
    }
}
