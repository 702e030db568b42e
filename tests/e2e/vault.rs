//! What an operator does in Vault, with a root token, over its HTTP API.
//!
//! Must never happen: a token in an error.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::ready;
use futures::{StreamExt as _, stream};
use reqwest::{Certificate, Method};
use serde_json::{Value, json};

/// Vault may be sealed or paused by a case; a request need not wait for it.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Requests at once where something is looked up for many.
const PARALLEL: usize = 16;

/// See the module.
pub(crate) struct Vault {
    address: String,
    /// How pods reach it.
    pub(crate) for_pods: String,
    /// The authority that signed its certificate, PEM.
    pub(crate) ca: Option<String>,
    token: String,
    http: reqwest::Client,
}

impl Vault {
    pub(crate) fn new(address: &str, for_pods: &str, token: &str, ca: Option<String>) -> Result<Self> {
        let roots = ca.iter().map(|pem| Certificate::from_pem(pem.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let http = reqwest::Client::builder().no_proxy().timeout(CALL_LIMIT).tls_certs_only(roots).build()?;
        Ok(Self { address: address.to_owned(), for_pods: for_pods.to_owned(), ca, token: token.to_owned(), http })
    }

    /// What every case needs.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.enable_auth("approle", "approle").await
    }

    /// Mounts an auth method, unless it is there.
    pub(crate) async fn enable_auth(&self, mount: &str, kind: &str) -> Result<()> {
        let mounts = self.read("sys/auth").await?;
        if mounts.get(format!("{mount}/")).is_none() {
            self.write(&format!("sys/auth/{mount}"), &json!({"type": kind})).await?;
        }
        Ok(())
    }

    pub(crate) async fn write_policy(&self, name: &str, rules: &str) -> Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": rules})).await.map(drop)
    }

    pub(crate) async fn write(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// The keys below a path; none where there is nothing.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<String>> {
        let url = format!("{}/v1/{path}?list=true", self.address);
        let answer = self.http.get(url).header("X-Vault-Token", &self.token).send().await?;
        if answer.status().as_u16() == 404 {
            return Ok(Vec::new());
        }
        ensure!(answer.status().is_success(), "Vault answered the list of {path} with {}", answer.status());
        let answer: Value = answer.json().await?;
        Ok(serde_json::from_value(answer["data"]["keys"].clone())?)
    }

    /// The accessors of the secret_ids that a role still has.
    pub(crate) async fn secret_ids(&self, mount: &str, role: &str) -> Result<Vec<String>> {
        self.list(&format!("auth/{mount}/role/{role}/secret-id")).await
    }

    /// The tokens that came from logins with a role: one for each secret_id that was used.
    pub(crate) async fn logins(&self, mount: &str, role: &str) -> Result<Vec<String>> {
        let path = format!("auth/{mount}/login");
        self.tokens(|data| data["path"] == path.as_str() && data["meta"]["role_name"] == role).await
    }

    /// The accessors of the tokens that are such.
    pub(crate) async fn tokens(&self, is_such: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
        let accessors = self.list("auth/token/accessors").await?;
        let looked_up = stream::iter(accessors).map(|accessor| async {
            // Others come and go meanwhile.
            let answer = self.write("auth/token/lookup-accessor", &json!({"accessor": accessor})).await.ok()?;
            is_such(&answer["data"]).then_some(accessor)
        });
        Ok(looked_up.buffer_unordered(PARALLEL).filter_map(ready).collect().await)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let name = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.address));
        request = request.header("X-Vault-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("{name} failed"))?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "Vault answered {name} with {status}: {}", text.trim());
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}
