//! Getting a token, in each of the three ways, and checking it before it is used.
//!
//! Owns the files that tokens are read from. A token that did not pass is never handed on; one that we made
//! ourselves and that did not pass is revoked.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{Authenticated, Data, TokenInfo, TokenRole};
use super::call::{ApiPath, Call, Empty};
use super::check::{self, Demands, TokenFault};
use super::client::Client;
use super::error::{Fatal, Stopped, is_verdict, words};
use super::options::Login;
use super::renew::Lease;
use super::session::lookup_self;
use super::token::Token;
use crate::domain::delivery::VaultTrouble;

/// Tokens have 100 to some 2,000 bytes. A file that is longer is another file.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// A token that passed, and what is known of its life.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) lease: Lease,
}

impl Login {
    /// Where the token comes from, for humans.
    pub(super) fn origin(&self) -> &'static str {
        match self {
            Self::Token { .. } => "vault.token",
            Self::File(_) => "the token in vault.tokenFile",
            Self::Kubernetes { .. } => "the token of vault.kubernetesAuth",
        }
    }

    /// Whether tokens are made for us alone: only such may be revoked.
    pub(super) fn makes_tokens(&self) -> bool {
        matches!(self, Self::Kubernetes { .. })
    }

    /// What is asked of the token.
    fn demands(&self) -> Demands {
        match self {
            Self::Token { skip_token_role, .. } => Demands::Static { token_role: !skip_token_role },
            Self::File(_) | Self::Kubernetes { .. } => Demands::Replaced,
        }
    }

    /// What can be checked before Vault is asked.
    pub(super) fn check(&self) -> Result<(), Fatal> {
        match self {
            Self::Token { token, .. } => static_token(token.expose_secret()).map(drop),
            Self::File(_) | Self::Kubernetes { .. } => Ok(()),
        }
    }
}

/// Gets a token and checks it.
pub(super) async fn obtain(client: &Client, login: &Login) -> Result<Held, Stopped> {
    let token = take(client, login).await?;
    let held = verify(client, login, token.clone()).await;
    if held.is_err() && login.makes_tokens() {
        revoke(client, &token).await;
    }
    held
}

/// Gets a token that was not checked yet. Whoever takes one that was made for us has to revoke it.
pub(super) async fn take(client: &Client, login: &Login) -> Result<Token, Stopped> {
    match login {
        Login::Token { token, .. } => Ok(static_token(token.expose_secret())?),
        Login::File(path) => read_token_file(path).await.map_err(Stopped::Trouble),
        Login::Kubernetes { mount, role, token_path } => log_in(client, mount, role, token_path).await,
    }
}

fn static_token(text: &str) -> Result<Token, Fatal> {
    Token::parse(text.trim()).ok_or(Fatal::Header { key: "vault.token" })
}

/// The token in a file. Everything that is wrong with the file may be mended by whoever writes it.
pub(super) async fn read_token_file(path: &Path) -> Result<Token, VaultTrouble> {
    let trouble = |why: &str| VaultTrouble::NotLoggedIn(format!("vault.tokenFile {}: {why}", path.display()));
    let text = read_small(path).await.map_err(|cause| trouble(&cause.to_string()))?;
    if text.trim().is_empty() {
        return Err(trouble("it is empty"));
    }
    Token::parse(text.trim()).ok_or_else(|| trouble("it holds characters that no token has (a line break inside?)"))
}

async fn read_small(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let file = tokio::fs::File::open(path).await?;
    let mut text = Zeroizing::new(String::with_capacity(4 * 1024));
    file.take(MAX_TOKEN_FILE).read_to_string(&mut text).await?;
    Ok(text)
}

#[derive(Serialize)]
struct KubernetesLogin<'a> {
    role: &'a str,
    jwt: &'a str,
}

async fn log_in(client: &Client, mount: &str, role: &str, token_path: &Path) -> Result<Token, Stopped> {
    let jwt = read_small(token_path).await.map_err(|cause| {
        let path = token_path.display();
        Stopped::Trouble(VaultTrouble::NotLoggedIn(format!("vault.kubernetesAuth.tokenPath {path}: {cause}")))
    })?;
    let path = ApiPath::default().then("auth").then(mount).then("login");
    let call = Call::post(path, &KubernetesLogin { role, jwt: jwt.trim() });
    let answer = client.send(&call).await.map_err(|trouble| match is_verdict(&trouble) {
        true => Stopped::Fatal(Fatal::Login { mount: mount.to_owned(), role: role.to_owned(), cause: words(&trouble) }),
        false => Stopped::Trouble(trouble),
    })?;
    let auth = answer.read::<Authenticated>().map_err(Stopped::Trouble)?.auth;
    let unusable = || Stopped::Trouble(VaultTrouble::WrongAnswer("the login's token is no header value".to_owned()));
    Token::parse(auth.client_token.expose_secret()).ok_or_else(unusable)
}

/// Looks a token up, and its token role where it must have one.
pub(super) async fn verify(client: &Client, login: &Login, token: Token) -> Result<Held, Stopped> {
    let origin = login.origin();
    let info = lookup_self(client, &token).await.map_err(|trouble| match is_verdict(&trouble) {
        true => Stopped::Fatal(Fatal::TokenRefused { origin, cause: words(&trouble) }),
        false => Stopped::Trouble(trouble),
    })?;
    let mut faults = check::token(&info, login.demands());
    let needs_role = login.demands() == Demands::Static { token_role: true };
    if needs_role && !info.role.is_empty() && !faults.contains(&TokenFault::Root) {
        faults.extend(token_role(client, &token, &info.role).await?);
    }
    if !faults.is_empty() {
        return Err(Fatal::Token { origin, faults }.into());
    }
    Ok(Held { token, lease: lease(&info) })
}

fn lease(info: &TokenInfo) -> Lease {
    // `explicit_max_ttl` counts from the token's creation, which for a token of our own is now; others are not
    // replaced by us, and so nothing follows from it for them.
    let max = (info.explicit_max_ttl > 0).then(|| Duration::from_secs(info.explicit_max_ttl));
    Lease::new(Instant::now(), Duration::from_secs(info.ttl), max, info.renewable)
}

async fn token_role(client: &Client, token: &Token, role: &str) -> Result<Vec<TokenFault>, Stopped> {
    let call = Call::get(ApiPath::default().then("auth/token/roles").name(role)).with_token(token);
    match client.send(&call).await {
        Ok(answer) => {
            let read = answer.read::<Data<TokenRole>>().map_err(Stopped::Trouble)?;
            Ok(check::role(role, &read.data))
        }
        Err(trouble) if is_verdict(&trouble) => {
            Ok(vec![TokenFault::RoleUnreadable { role: role.to_owned(), cause: words(&trouble) }])
        }
        Err(trouble) => Err(Stopped::Trouble(trouble)),
    }
}

/// Renews `token`; what it is granted.
pub(super) async fn renew(client: &Client, token: &Token) -> Result<(Duration, bool), VaultTrouble> {
    let call = Call::post(ApiPath::default().then("auth/token/renew-self"), &Empty {}).with_token(token);
    let auth = client.send(&call).await?.read::<Authenticated>()?.auth;
    Ok((Duration::from_secs(auth.lease_duration), auth.renewable))
}

/// Revokes a token that nobody uses any more. If it fails the token runs out by itself.
pub(super) async fn revoke(client: &Client, token: &Token) {
    let call = Call::post(ApiPath::default().then("auth/token/revoke-self"), &Empty {}).with_token(token);
    if let Err(trouble) = client.send(&call).await {
        tracing::debug!(cause = %trouble, "our former Vault token was not revoked; it runs out by itself");
    }
}
