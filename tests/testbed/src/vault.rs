//! Vault: a real server on the bridge, with everything in memory.
//!
//! Owns: its process, unseal key and root token.
//!
//! It starts as a server would, not in development mode: initialised and unsealed over the API, so that
//! a case can seal it, unseal it, restart it and serve it over TLS. What development mode adds, it
//! gets too: a root token that everybody knows, and a KV store at `secret/`.

mod api;
mod setup;

pub use setup::{ControllerPolicy, KV_MOUNT, TokenRole, controller_rules};

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::pki::Authority;
use crate::process::Server;

/// Vault's port.
pub(crate) const VAULT_PORT: u16 = 8200;
/// Where it wants a certificate of its clients, if it serves TLS.
const STRICT_PORT: u16 = 8210;
/// The root token of every testbed. It opens nothing but a server on a private network.
pub const ROOT_TOKEN: &str = "testbed-root-token";
/// It takes about a second; both cores may be busy with the control plane.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What may differ between Vaults.
#[derive(Clone, Debug, Default)]
pub struct VaultOptions {
    /// Serve over TLS with a certificate of an own authority ([`Vault::ca`]).
    pub tls: bool,
    /// Keep the data on the tmpfs, so that it survives [`Vault::restart`]. Slower than memory.
    pub lasting: bool,
}

/// A running Vault.
pub struct Vault {
    program: PathBuf,
    directory: PathBuf,
    address: String,
    authority: Option<Authority>,
    http: reqwest::Client,
    unseal_key: String,
    process: Mutex<Option<Server>>,
}

impl Vault {
    /// Starts, initialises and unseals it.
    pub(crate) async fn start(
        program: &Path,
        options: &VaultOptions,
        directory: PathBuf,
        ip: Ipv4Addr,
    ) -> Result<Self> {
        let authority = options.tls.then(|| Authority::new("testbed-vault")).transpose()?;
        write_config(options, authority.as_ref(), &directory, ip)?;
        let scheme = if options.tls { "https" } else { "http" };
        let mut vault = Self {
            program: program.to_owned(),
            address: format!("{scheme}://{ip}:{VAULT_PORT}"),
            http: api::client(authority.as_ref().map(Authority::pem).as_deref())?,
            authority,
            unseal_key: String::new(),
            process: Mutex::new(None),
            directory,
        };
        vault.spawn().await?;
        let request = json!({"secret_shares": 1, "secret_threshold": 1});
        let answer = vault.call(Method::PUT, "sys/init", None, Some(&request)).await?;
        let text = |pointer: &str| -> Result<String> {
            let value = answer.pointer(pointer).and_then(Value::as_str);
            Ok(value.with_context(|| format!("Vault's sys/init lacks {pointer}"))?.to_owned())
        };
        vault.unseal_key = text("/keys/0")?;
        let first_token = text("/root_token")?;
        vault.unseal().await?;
        let known = json!({"id": ROOT_TOKEN, "policies": ["root"], "no_parent": true});
        vault.call(Method::POST, "auth/token/create", Some(&first_token), Some(&known)).await?;
        vault.write(&format!("sys/mounts/{KV_MOUNT}"), &json!({"type": "kv", "options": {"version": "2"}})).await?;
        Ok(vault)
    }

    /// `VAULT_ADDR`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The authority that signed its certificate, PEM, where it serves TLS.
    #[must_use]
    pub fn ca(&self) -> Option<String> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// Its address for those who show a certificate of [`Vault::client_certificate`]'s authority, where it serves TLS.
    #[must_use]
    pub fn strict_address(&self) -> String {
        self.address.replace(&VAULT_PORT.to_string(), &STRICT_PORT.to_string())
    }

    /// A client's certificate that it believes, and its key, PEM, where it serves TLS.
    pub fn client_certificate(&self) -> Result<(String, String)> {
        let authority = self.authority.as_ref().context("this Vault serves no TLS")?;
        let pair = authority.client("kubernetes-vault", "controllers")?;
        Ok((pair.certificate, pair.key))
    }

    /// That authority with its key, PEM: for a PKI mount that is to stand for whoever signed its certificate.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<String> {
        self.authority.as_ref().map(Authority::bundle)
    }

    /// The program, which is the command-line client as well.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes with the root token; the answer is the whole JSON, null where there is none.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(ROOT_TOKEN), Some(body)).await
    }

    /// Reads with the root token.
    pub async fn read(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, Some(ROOT_TOKEN), None).await
    }

    /// Lists with the root token: the keys, none where there is nothing.
    pub async fn list(&self, path: &str) -> Result<Vec<String>> {
        let url = format!("{path}?list=true");
        let answer = match self.call(Method::GET, &url, Some(ROOT_TOKEN), None).await {
            Err(error) if error.downcast_ref::<api::Refused>().is_some_and(|r| r.status == 404) => {
                return Ok(Vec::new());
            }
            answer => answer?,
        };
        Ok(serde_json::from_value(answer["data"]["keys"].clone())?)
    }

    /// Deletes with the root token.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, Some(ROOT_TOKEN), None).await.map(drop)
    }

    /// Calls with any token (or none). An answer other than 2xx is an error that names it.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}/v1/{path}", self.address);
        api::call(&self.http, method, &url, token, body).await
    }

    /// Seals it.
    pub async fn seal(&self) -> Result<()> {
        self.call(Method::PUT, "sys/seal", Some(ROOT_TOKEN), None).await.map(drop)
    }

    /// Unseals it, and waits until it is active.
    pub async fn unseal(&self) -> Result<()> {
        let answer = self.call(Method::PUT, "sys/unseal", None, Some(&json!({"key": self.unseal_key}))).await?;
        ensure!(answer["sealed"] == false, "Vault is still sealed: {answer}");
        let mut process = self.process.lock().await;
        let process = process.as_mut().context("Vault is stopped")?;
        process
            .wait_until("active node", START_LIMIT, || async {
                self.call(Method::GET, "sys/health", None, None).await.map(drop)
            })
            .await
    }

    /// Pauses the process: connections are accepted by the kernel and never answered.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP).await
    }

    /// Lets a paused process go on.
    pub async fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT).await
    }

    /// Ends the process as a crash would; without [`VaultOptions::lasting`] its data is gone.
    pub async fn kill(&self) {
        if let Some(mut process) = self.process.lock().await.take() {
            process.kill().await;
        }
    }

    /// Starts it again after [`kill`](Self::kill) and unseals it. Wants [`VaultOptions::lasting`].
    pub async fn restart(&self) -> Result<()> {
        self.spawn().await?;
        self.unseal().await
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("vault.log")
    }

    pub(crate) async fn stop(&self) {
        if let Some(mut process) = self.process.lock().await.take() {
            process.stop(STOP_GRACE).await;
        }
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        self.process.lock().await.as_ref().context("Vault is stopped")?.signal(signal)
    }

    async fn spawn(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        ensure!(slot.is_none(), "Vault runs already");
        let arguments = ["server".to_owned(), format!("-config={}", self.directory.join("vault.json").display())];
        let process = slot.insert(Server::spawn("vault", &self.program, &arguments, &self.directory)?);
        process
            .wait_until("listener", START_LIMIT, || async {
                self.call(Method::GET, "sys/seal-status", None, None).await.map(drop)
            })
            .await
    }
}

fn write_config(options: &VaultOptions, authority: Option<&Authority>, directory: &Path, ip: Ipv4Addr) -> Result<()> {
    let mut listener = json!({"address": format!("{ip}:{VAULT_PORT}")});
    let mut strict = None;
    if let Some(authority) = authority {
        let pair = authority.server("vault", &["vault", "vault.default.svc", "localhost"], &[ip])?;
        let (certificate, key) = (directory.join("vault.crt"), directory.join("vault.key"));
        fs::write(&certificate, pair.certificate)?;
        fs::write(&key, pair.key)?;
        listener["tls_cert_file"] = json!(certificate);
        listener["tls_key_file"] = json!(key);
        let believed = directory.join("vault-clients.crt");
        fs::write(&believed, authority.pem())?;
        let mut other = listener.clone();
        other["address"] = json!(format!("{ip}:{STRICT_PORT}"));
        other["tls_require_and_verify_client_cert"] = json!(true);
        other["tls_client_ca_file"] = json!(believed);
        strict = Some(json!({"tcp": other}));
    } else {
        listener["tls_disable"] = json!(true);
    }
    let storage =
        if options.lasting { json!({"file": {"path": directory.join("vault-data")}}) } else { json!({"inmem": {}}) };
    let listeners: Vec<Value> = [json!({"tcp": listener})].into_iter().chain(strict).collect();
    let config = json!({
        "listener": listeners,
        "storage": storage,
        "disable_mlock": true,
        "log_level": "info",
    });
    let path = directory.join("vault.json");
    fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
