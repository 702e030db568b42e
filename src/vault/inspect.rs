//! A look at Vault for `check`: whether it can be reached, how it is, what our token is worth, and which of the roles that
//! waiting pods ask for it would give.
//!
//! Owns the order of the questions. Must never ask for a `secret_id`, renew or change anything; a token that was made by
//! a login of ours is revoked at the end.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::answer::{Answer, Capabilities as Answered};
use super::call::{ApiPath, Call};
use super::client::Client;
use super::error::{Fatal, Stopped, classify};
use super::options::{Ca, Login, Options};
use super::proxies::Proxies;
use super::tls::towards;
use super::token::Token;
use super::wrap::secret_id_path;
use super::{ca, login};
use crate::domain::delivery::VaultTrouble;
use crate::domain::findings::{Finding, Group, Level};
use crate::domain::ids::RoleName;
use crate::domain::vault_check::{self, Capabilities, Demand, Existence};
use crate::domain::wishes::{Wishes, named};

/// For all questions after the login. Each has a limit of its own; this is for many roles at a slow Vault.
const LIMIT: Duration = Duration::from_secs(30);

/// Paths in one question about our capabilities.
const PATHS_AT_ONCE: usize = 60;

/// Roles that are looked at, the most asked for first: an installation has dozens.
const MOST_ROLES: usize = 100;

/// An accessor that no `secret_id` has: Vault's are UUIDs.
const NO_ACCESSOR: &str = "kubernetes-vault-check";

/// A PKI role that certificates are issued by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRole {
    /// The section of the configuration that names it.
    pub section: &'static str,
    /// The PKI mount.
    pub mount: String,
    /// The role.
    pub role: String,
}

#[derive(Serialize)]
struct Paths<'a> {
    paths: &'a [String],
}

#[derive(Serialize)]
struct Destroy {
    secret_id_accessor: &'static str,
}

/// Looks at the Vault of `options`, for pods that wish `wishes`.
pub async fn inspect(options: &Options, wishes: &Wishes, certificates: &[CertificateRole]) -> Vec<Finding> {
    let mut found = Vec::new();
    let client = match connect(options, &mut found).await {
        Ok(Some(client)) => client,
        Ok(None) => return found,
        Err(stopped) => {
            found.push(why(stopped));
            return found;
        }
    };
    let token = match login::take(&client, &options.login).await {
        Ok(token) => token,
        Err(stopped) => {
            found.push(why(stopped));
            return found;
        }
    };
    let look = Look { client: &client, options, token: &token };
    if timeout(LIMIT, look.at_all(wishes, certificates, &mut found)).await.is_err() {
        let text = format!("Vault was too slow to look at everything within {} s; ask again", LIMIT.as_secs());
        found.push(Finding::new(Group::Vault, Level::Warning, &text));
    }
    if options.login.makes_tokens() {
        login::revoke(&client, &token).await;
    }
    found
}

fn why(stopped: Stopped) -> Finding {
    match stopped {
        Stopped::Fatal(fatal) => Finding::new(Group::Vault, Level::Error, &with_source(&fatal)),
        Stopped::Trouble(trouble) => vault_check::trouble(&trouble),
    }
}

fn with_source(fatal: &Fatal) -> String {
    crate::causes::with_causes(fatal)
}

/// A client for a Vault that serves; `None` if it does not, which was found.
async fn connect(options: &Options, found: &mut Vec<Finding>) -> Result<Option<Client>, Stopped> {
    let url = options.url()?;
    options.check_mounts()?;
    options.login.check()?;
    let proxies = Proxies::from_env();
    let bundle = ca::load(options, &url, &proxies, None).await?;
    let tls = towards(&url, bundle.as_deref(), &options.tls)?;
    // Health is a matter of the whole server: below a Vault namespace there is no such path.
    let whole = Client::new(&url, None, tls.clone(), &proxies)?;
    let answer = whole.exchange(&Call::get(ApiPath::default().then("sys/health"))).await.map_err(Stopped::Trouble)?;
    found.push(Finding::ok(Group::Vault, format!("{} answers{}", options.address, proof(options, &url))));
    let health = match url.scheme() {
        "http" => vault_check::health_in_clear(answer.status),
        _ => vault_check::health(answer.status),
    };
    let serves = health.level < Level::Error;
    found.push(health);
    if !serves {
        return Ok(None);
    }
    Ok(Some(Client::new(&url, options.namespace.as_deref(), tls, &proxies)?))
}

fn proof(options: &Options, url: &url::Url) -> &'static str {
    match (url.scheme(), &options.tls.ca) {
        ("http", _) => ", in clear: everybody in between reads the tokens",
        (_, Ca::Public) => ", with a certificate of a public CA",
        (_, Ca::File(_)) => ", with a certificate of a CA in vault.tls.caCert",
        (_, Ca::Pki { fingerprints, .. }) if fingerprints.is_empty() => {
            ", with a certificate of vault.tls.vaultCABackends, whose CA is trusted on first use (vault.tls.caFingerprint \
             pins it)"
        }
        (_, Ca::Pki { .. }) => ", with a certificate of vault.tls.vaultCABackends, whose CA is the pinned one",
    }
}

/// What is looked at with a token.
struct Look<'a> {
    client: &'a Client,
    options: &'a Options,
    token: &'a Token,
}

impl Look<'_> {
    async fn at_all(&self, wishes: &Wishes, certificates: &[CertificateRole], found: &mut Vec<Finding>) {
        if !self.at_the_token(found).await {
            return;
        }
        let mut roles: Vec<(&RoleName, &Vec<String>)> = wishes.roles.iter().collect();
        roles.sort_by_key(|(_, pods)| std::cmp::Reverse(pods.len()));
        let left_out = roles.len().saturating_sub(MOST_ROLES);
        roles.truncate(MOST_ROLES);
        let demands = self.demands(certificates);
        let mut paths: Vec<String> = demands.iter().map(|demand| demand.path.clone()).collect();
        for (role, _) in &roles {
            paths.extend(
                [self.ask_path(role), self.destroy_path(role), self.role_path(role)]
                    .map(|path| path.plain().to_owned()),
            );
        }
        let said = match self.capabilities(&paths).await {
            Ok(said) => said,
            Err(VaultTrouble::Forbidden(_)) => {
                let text = "what the policy grants cannot be told: \"update\" on sys/capabilities-self is denied; give the \
                            token the policy \"default\" too";
                found.push(Finding::new(Group::Vault, Level::Warning, text));
                return;
            }
            Err(trouble) => {
                found.push(vault_check::trouble(&trouble));
                return;
            }
        };
        found.extend(demands.iter().map(|demand| vault_check::demand(demand, &said)));
        for (role, pods) in &roles {
            let path = self.ask_path(role).plain().to_owned();
            let existence = self.existence(role, &said).await;
            found.push(vault_check::role(role, &named(pods), grants(&said, &path, "update"), &existence, &path));
        }
        if left_out > 0 {
            let text = format!("{left_out} more AppRoles that pods ask for were not looked at");
            found.push(Finding::new(Group::AppRoles, Level::Warning, &text));
        }
        found.extend(self.destruction(&roles, &said));
    }

    /// Returns whether Vault knows it.
    async fn at_the_token(&self, found: &mut Vec<Finding>) -> bool {
        let origin = self.options.login.origin();
        match login::verify(self.client, &self.options.login, self.token.clone()).await {
            Ok(_) => {
                found.push(Finding::ok(Group::Vault, format!("{origin} passes the checks of the start")));
                true
            }
            Err(Stopped::Fatal(Fatal::Token { faults, .. })) => {
                let texts = faults.iter().map(|fault| format!("{origin} must not be used: {fault}"));
                found.extend(texts.map(|text| Finding::new(Group::Vault, Level::Error, &text)));
                true
            }
            Err(stopped) => {
                found.push(why(stopped));
                false
            }
        }
    }

    /// What the policy has to grant, whatever pods ask for.
    fn demands(&self, certificates: &[CertificateRole]) -> Vec<Demand> {
        let renewal = |level, without: &str| Demand {
            group: Group::Vault,
            path: "auth/token/renew-self".to_owned(),
            capability: "update",
            level,
            granted: "the token may renew itself".to_owned(),
            without: without.to_owned(),
        };
        let renewal = match &self.options.login {
            Login::Token { .. } => Some(renewal(Level::Error, "the token runs out, and nothing replaces it")),
            Login::Kubernetes { .. } => Some(renewal(Level::Warning, "each token is replaced by a login instead")),
            // Somebody else keeps it fresh.
            Login::File(_) => None,
        };
        let certificates = certificates.iter().map(|issuer| Demand {
            group: Group::Vault,
            path: ApiPath::default().then(&issuer.mount).then("issue").name(&issuer.role).plain().to_owned(),
            capability: "update",
            level: Level::Error,
            granted: format!("certificates of {} may be issued", issuer.section),
            without: format!("there is no certificate for {}", issuer.section),
        });
        renewal.into_iter().chain(certificates).collect()
    }

    /// One finding for all roles: a policy has this rule, or has it not.
    fn destruction(&self, roles: &[(&RoleName, &Vec<String>)], said: &Capabilities) -> Option<Finding> {
        // Of a role that may not be asked for there is nothing to destroy.
        let asked = |role: &RoleName| grants(said, self.ask_path(role).plain(), "update");
        let lacks = |role: &RoleName| asked(role) && !grants(said, self.destroy_path(role).plain(), "update");
        let lacking: Vec<String> =
            roles.iter().filter(|(role, _)| lacks(role)).map(|(role, _)| role.to_string()).collect();
        if !roles.iter().any(|(role, _)| asked(role)) {
            return None;
        }
        if lacking.is_empty() {
            return Some(Finding::ok(Group::AppRoles, "secret_ids that came to nothing may be destroyed"));
        }
        Some(Finding {
            group: Group::AppRoles,
            level: Level::Warning,
            cause: format!(
                "secret_ids of {} that came to nothing may not be destroyed: they are unwrapped where that is possible, else \
                 they run out",
                named(&lacking)
            ),
            remedy: Some(format!(
                "add path \"auth/{}/role/<role>/secret-id-accessor/destroy\" {{ capabilities = [\"update\"] }} to the policy, \
                 as deploy/vault/kubernetes-vault.hcl does",
                self.mount()
            )),
        })
    }

    async fn capabilities(&self, paths: &[String]) -> Result<Capabilities, VaultTrouble> {
        let mut all = Capabilities::new();
        for paths in paths.chunks(PATHS_AT_ONCE) {
            let path = ApiPath::default().then("sys/capabilities-self");
            let call = Call::post(path, &Paths { paths }).with_token(self.token);
            let answer: Answered = self.client.send(&call).await?.read()?;
            // Of a single path some versions tell under this name alone.
            if let ([only], Some(said)) = (paths, answer.data.get("capabilities")) {
                all.insert(only.clone(), said.clone());
            }
            all.extend(answer.data.into_iter().filter(|(path, _)| paths.contains(path)));
        }
        Ok(all)
    }

    /// Whether the role is there, by the first way that our rights allow. None of them makes anything.
    async fn existence(&self, role: &RoleName, said: &Capabilities) -> Existence {
        let (path, destroy) = (self.role_path(role), self.destroy_path(role));
        if grants(said, path.plain(), "read") {
            return match self.client.exchange(&Call::get(path).with_token(self.token)).await {
                Ok(answer) if answer.is_success() => Existence::There,
                Ok(answer) if answer.status == 404 => Existence::Missing,
                Ok(answer) => Existence::Trouble(classify(&answer)),
                Err(trouble) => Existence::Trouble(trouble),
            };
        }
        if !grants(said, destroy.plain(), "update") {
            return Existence::Untold;
        }
        // There is no such accessor, so nothing is destroyed: Vault looks for the role first, and says which of the two
        // it does not know.
        let call = Call::post(destroy, &Destroy { secret_id_accessor: NO_ACCESSOR }).with_token(self.token);
        match self.client.exchange(&call).await {
            Ok(answer) => by_words(&answer),
            Err(trouble) => Existence::Trouble(trouble),
        }
    }

    fn mount(&self) -> &str {
        self.options.approle_mount.trim_matches('/')
    }

    fn ask_path(&self, role: &RoleName) -> ApiPath {
        secret_id_path(self.mount(), role)
    }

    fn role_path(&self, role: &RoleName) -> ApiPath {
        ApiPath::default().then("auth").then(self.mount()).then("role").name(role.as_str())
    }

    fn destroy_path(&self, role: &RoleName) -> ApiPath {
        self.role_path(role).then("secret-id-accessor/destroy")
    }
}

fn grants(said: &Capabilities, path: &str, capability: &str) -> bool {
    said.get(path).is_some_and(|all| all.iter().any(|one| one == capability || one == "root"))
}

/// What Vault says to the destruction of what is not there.
fn by_words(answer: &Answer) -> Existence {
    let words = answer.errors().unwrap_or_default();
    if words.contains("does not exist") || words.contains("unsupported path") {
        return Existence::Missing;
    }
    if answer.is_success() || answer.status == 404 || words.contains("failed to find accessor entry") {
        return Existence::There;
    }
    Existence::Trouble(classify(answer))
}

#[cfg(test)]
mod tests;
