//! The work on one admitted push: verify, unwrap, log in, write; and what its sender is told.
//!
//! Any answer but 200, 409 and 410 promises that nothing of the push is going to be used. So whatever has been
//! unwrapped or issued by then is dropped here, and a token that was issued is given back.
//!
//! Must never: take longer than [`WORK_MAX`], or say 200 before the files are in place.

use std::sync::Arc;

use tokio::time::Instant;
use wire::answer::{self, TokenFault, attempt_body};
use wire::gojson::{self, Value};
use wire::limits::{LOOKUP_MAX, WORK_MAX};
use wire::{Push, duration};
use zeroize::Zeroizing;

use crate::config::{Address, Config, Mode};
use crate::endpoint::Endpoint;
use crate::exit::{Cause, Failure};
use crate::gate::Verdict;
use crate::http_client::Client;
use crate::vault::{self, Failed, Fault, Login, SecretId, Vault};
use crate::write::Directory;
use crate::{clock, creation_path, log, tls};

/// Vault's words, old and new, for a wrapping token that it does not know.
const UNKNOWN_TOKEN: [&str; 2] = ["wrapping token is not valid or does not exist", "bad token"];

/// Vault's words, old and new, when the role_id and nothing else is at fault.
const UNKNOWN_ROLE_ID: [&str; 2] = ["invalid role ID", "invalid role_id"];

/// Time kept for giving back a token that could not be written.
const REVOKE_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// What the sender is told, and what becomes of the process.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Seconds for Retry-After.
    pub(crate) retry_after: Option<u64>,
    pub(crate) verdict: Verdict,
    /// Set when the verdict is hopeless.
    pub(crate) failure: Option<Failure>,
}

impl Outcome {
    /// Whether the process ends with it.
    pub(crate) fn ends(&self) -> bool {
        !matches!(self.verdict, Verdict::Again)
    }
}

/// What all pushes share.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) directory: Directory,
}

/// Why a push is not accepted.
enum Stop {
    Token(TokenFault, String),
    NotNow(String, Option<u64>),
    Hopeless(Failure),
}

impl Worker {
    /// Does the work, from the moment the push was read.
    pub(crate) async fn accept(&self, push: &Push) -> Outcome {
        let outcome = match self.work(push, Instant::now()).await {
            Ok(()) => Outcome {
                status: answer::DONE,
                body: push.attempt.as_deref().map(attempt_body).unwrap_or_default(),
                retry_after: None,
                verdict: Verdict::Accepted { attempt: push.attempt.clone() },
                failure: None,
            },
            Err(stop) => stop.into_outcome(),
        };
        if !matches!(outcome.verdict, Verdict::Accepted { .. }) {
            let next = if outcome.failure.is_some() { "Giving up." } else { "Waiting for another push." };
            let line = format!("Push not accepted ({}): {} {next}", outcome.status, outcome.body);
            if outcome.status == answer::TOKEN_REFUSED {
                log::error(&line);
            } else {
                log::debug(&line);
            }
        }
        outcome
    }

    async fn work(&self, push: &Push, started: Instant) -> Result<(), Stop> {
        // Before anything is unwrapped: a push that cannot be used should stay whole.
        self.directory.check()?;
        let expires = push.expires_at();
        if expires <= clock::now() {
            let text = format!("its time was up at {expires} by this node's clock");
            return Err(Stop::Token(TokenFault::Expired, text));
        }
        let address = self.config.vault_addr.as_ref().map_or(push.vault_addr.as_str(), |a| a.text.as_str());
        let bundle = self.config.vault_cas.as_deref().or(push.vault_cas.as_deref());
        if self.config.mode == Mode::WrappedSecretId {
            let content = gojson::object(&[
                ("roleId", Value::String(&self.config.role_id)),
                ("wrappedSecretId", Value::String(&push.token)),
                ("vaultAddr", Value::String(address)),
                ("ttl", Value::Number(push.ttl_secs)),
            ]);
            return Ok(self.write(bundle, "vault-wrapped-secret-id", &content)?);
        }
        let mut vault = self.vault(push, bundle)?;
        let (mount, secret_id) = self.unwrap(&mut vault, push, started).await?;
        if self.config.mode == Mode::SecretId {
            let content = gojson::object(&[
                ("roleId", Value::String(&self.config.role_id)),
                ("secretId", Value::String(&secret_id.secret_id.0)),
                ("accessor", Value::String(&secret_id.secret_id_accessor)),
                ("vaultAddr", Value::String(address)),
            ]);
            return Ok(self.write(bundle, "vault-secret-id", &content)?);
        }
        let login = self.login(&mut vault, &mount, &secret_id, started).await?;
        let written = self.write(bundle, "vault-token", &token_file(&login, address));
        if let Err(failure) = written {
            let deadline = (started + WORK_MAX).min(Instant::now() + REVOKE_MAX);
            if vault.revoke_self(&login.client_token.0, deadline).await.is_err() {
                log::error(&format!(
                    "The token with accessor {} could not be written and could not be revoked; it expires by itself in {} seconds.",
                    login.accessor, login.lease_duration
                ));
            }
            return Err(Stop::Hopeless(failure));
        }
        Ok(())
    }

    /// The CA bundle first: who sees the credentials may rely on it.
    fn write(&self, bundle: Option<&[u8]>, name: &str, content: &[u8]) -> Result<(), Failure> {
        if let Some(pem) = bundle {
            self.directory.write("ca.crt", pem)?;
        }
        self.directory.write(name, content)
    }

    fn vault(&self, push: &Push, bundle: Option<&[u8]>) -> Result<Vault, Stop> {
        let endpoint = match &self.config.vault_addr {
            Some(Address { endpoint, .. }) => endpoint.clone(),
            None => Endpoint::parse(&push.vault_addr)
                .map_err(|why| Stop::NotNow(format!("vaultAddr cannot be used: {why}"), None))?,
        };
        let not_now = |why| Stop::NotNow(why, None);
        let public = self.config.public_roots.as_deref();
        let tls = if endpoint.https { Some(tls::client(bundle, public).map_err(not_now)?) } else { None };
        let proxy = match self.config.proxies.for_target(&endpoint) {
            // The bundle is Vault's; a proxy has a public certificate or none.
            Some(proxy) if proxy.endpoint.https => {
                Some((proxy.clone(), Some(tls::client(None, public).map_err(not_now)?)))
            }
            Some(proxy) => Some((proxy.clone(), None)),
            None => None,
        };
        let via = proxy.as_ref().map(|(p, _)| format!(" by way of {}", p.endpoint)).unwrap_or_default();
        log::debug(&format!("Asking Vault at {endpoint}{via}."));
        let namespace = self.namespace(push);
        Vault::new(Client::new(endpoint, tls, proxy), namespace)
            .ok_or_else(|| Stop::NotNow("the namespace cannot be sent as a header".to_owned(), None))
    }

    fn namespace<'a>(&'a self, push: &'a Push) -> Option<&'a str> {
        self.config.vault_namespace.as_deref().or(push.namespace.as_deref())
    }

    /// The secret_id, once it is known to be one, and the mount that made it.
    async fn unwrap(&self, vault: &mut Vault, push: &Push, started: Instant) -> Result<(String, SecretId), Stop> {
        let path = vault
            .lookup(&push.token, started + LOOKUP_MAX)
            .await
            // Looking up uses nothing up, so a lost answer leaves no doubt.
            .map_err(|failed| stop_at_token(Failed { lost: false, ..failed }, push))?;
        let Some(mount) = creation_path::mount(&path, self.namespace(push)) else {
            let text = format!(
                "it was made at {path}, not at auth/<mount>/role/<role>/secret-id. SECURITY: somebody may have \
                 intercepted the push and put something else in its place"
            );
            return Err(Stop::Token(TokenFault::Path, text));
        };
        let body = vault.unwrap(&push.token, started + WORK_MAX).await.map_err(|failed| stop_at_token(failed, push))?;
        match vault::secret_id_in(&body) {
            Some(secret_id) => Ok((mount, secret_id)),
            None => Err(Stop::Token(TokenFault::Path, "there is no secret_id in it".to_owned())),
        }
    }

    async fn login(
        &self,
        vault: &mut Vault,
        mount: &str,
        secret_id: &SecretId,
        started: Instant,
    ) -> Result<Login, Stop> {
        let role_id = &self.config.role_id;
        let failed = match vault.login(mount, role_id, &secret_id.secret_id.0, started + WORK_MAX).await {
            Ok(login) => return Ok(login),
            Err(failed) => failed,
        };
        let text = format!("login at auth/{mount}: {}", failed.fault.text());
        if failed.fault.says(&UNKNOWN_ROLE_ID) {
            let what = format!("Vault does not know VAULT_ROLE_ID at auth/{mount}.");
            return Err(Stop::Hopeless(Failure::new(Cause::RoleId, what)));
        }
        Err(match &failed.fault {
            // An earlier try may have used the secret_id up; the refusal then says nothing about it.
            Fault::Refused { .. } if !failed.lost => Stop::Token(
                TokenFault::Refused,
                format!("{text}; perhaps VAULT_ROLE_ID is of another role than pod.boostport.com/vault-approle names"),
            ),
            fault => Stop::NotNow(text, fault.retry_after()),
        })
    }
}

fn token_file(login: &Login, address: &str) -> Zeroizing<Vec<u8>> {
    gojson::object(&[
        ("clientToken", Value::String(&login.client_token.0)),
        ("accessor", Value::String(&login.accessor)),
        ("leaseDuration", Value::Number(login.lease_duration)),
        ("renewable", Value::Bool(login.renewable)),
        ("vaultAddr", Value::String(address)),
    ])
}

/// What it means that the wrapping token could not be looked up or unwrapped.
fn stop_at_token(failed: Failed, push: &Push) -> Stop {
    let text = failed.fault.text();
    if !failed.fault.says(&UNKNOWN_TOKEN) {
        return match failed.fault {
            Fault::Refused { .. } => Stop::Token(TokenFault::Refused, text),
            fault => Stop::NotNow(text, fault.retry_after()),
        };
    }
    if failed.lost {
        return Stop::NotNow("Vault's answer to the unwrapping was lost, and the secret_id with it".to_owned(), None);
    }
    let left = push.expires_at().duration_since(clock::now());
    if left.is_negative() {
        return Stop::Token(TokenFault::Expired, "its time ran out while it was being used".to_owned());
    }
    let text = format!(
        "Vault does not know it, and its time is not up for another {}. SECURITY: SOMEBODY ELSE MAY HAVE UNWRAPPED \
         IT, and then holds a secret_id of this role. Look for its use in Vault's audit log",
        duration::format(jiff::SignedDuration::from_secs(left.as_secs()))
    );
    Stop::Token(TokenFault::Used, text)
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Hopeless(failure)
    }
}

impl Stop {
    fn into_outcome(self) -> Outcome {
        let again =
            |status, body, retry_after| Outcome { status, body, retry_after, verdict: Verdict::Again, failure: None };
        match self {
            Self::Token(fault, text) => again(answer::TOKEN_REFUSED, fault.body(&format!("{text}.")), None),
            Self::NotNow(text, retry_after) => again(answer::CANNOT_NOW, format!("{text}."), retry_after),
            Self::Hopeless(failure) => Outcome {
                status: answer::NO_PUSH_CAN_MEND,
                body: failure.what.clone(),
                retry_after: None,
                verdict: Verdict::Hopeless { why: failure.what.clone() },
                failure: Some(failure),
            },
        }
    }
}

/// A worker that connections can share.
pub(crate) type Shared = Arc<Worker>;

#[cfg(test)]
mod tests;
