//! Putting a `secret_id` that nobody will use out of the world.
//!
//! Owns what is known of our right to destroy by accessor, role by role. Short, bounded retries: what is left over
//! runs out with its wrapping token.

use std::collections::HashMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::answer::Capabilities;
use super::call::{ApiPath, Call, Empty};
use super::client::Client;
use super::error::classify;
use super::handle::Shared;
use super::token::Token;
use crate::deliver::ports::Neutralised;
use crate::domain::backoff::Backoff;
use crate::domain::delivery::VaultTrouble;
use crate::domain::ids::RoleName;
use crate::domain::ledger::Accessors;

/// How often one way is tried. More would hold up whoever settles the attempt, for something that expires anyway.
const TRIES: u32 = 3;

/// Between them.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(1) };

/// For everything together. A wrapping token lives 60 s by default: beyond half of that, leaving it is as good.
const LIMIT: Duration = Duration::from_secs(30);

/// For how long an answer about our capabilities is believed.
pub(super) const CAPABILITY_AGE: Duration = Duration::from_secs(600);

/// How many are under way at once: a burst of refusals must not take Vault from the pods that wait.
pub(super) const MAX_AT_ONCE: usize = 16;

#[derive(Serialize)]
struct Paths<'a> {
    paths: [&'a str; 1],
}

#[derive(Serialize)]
struct Destroy<'a> {
    secret_id_accessor: &'a str,
}

/// By accessor, else by unwrapping, else not at all.
pub(super) async fn neutralise(
    shared: &Shared,
    role: &RoleName,
    accessors: &Accessors,
    token: Option<SecretString>,
) -> Neutralised {
    // The semaphore is never closed, so there always is a permit in the end.
    let _permit = shared.neutralising.acquire().await;
    tokio::time::timeout(LIMIT, first_possible(shared, role, accessors, token))
        .await
        .unwrap_or(Neutralised::LeftToExpire)
}

async fn first_possible(
    shared: &Shared,
    role: &RoleName,
    accessors: &Accessors,
    token: Option<SecretString>,
) -> Neutralised {
    let Some(client) = shared.session.client() else { return Neutralised::LeftToExpire };
    if let Some(accessor) = &accessors.secret_id
        && destroy_if_allowed(shared, &client, role, accessor).await
    {
        return Neutralised::Destroyed;
    }
    if let Some(token) = token.and_then(|token| Token::parse(token.expose_secret()))
        && unwrap_and_drop(&client, &token).await
    {
        return Neutralised::Unwrapped;
    }
    Neutralised::LeftToExpire
}

/// Whether the `secret_id` is certainly gone.
pub(super) async fn destroy_if_allowed(shared: &Shared, client: &Client, role: &RoleName, accessor: &str) -> bool {
    let path = destroy_path(shared, role);
    if !may_destroy(shared, client, role, &path).await {
        return false;
    }
    for failures in 1..=TRIES {
        let Ok((_, token)) = shared.session.ready() else { return false };
        let call = Call::post(path.clone(), &Destroy { secret_id_accessor: accessor }).with_token(&token);
        match destroyed(client, &call).await {
            Destruction::Done => return true,
            Destruction::Refused => {
                // The policy was changed since we asked for our capabilities.
                shared.may_destroy.forget(role);
                return false;
            }
            Destruction::Failed => {}
        }
        if failures < TRIES {
            tokio::time::sleep(RETRY.wait(failures, rand::random())).await;
        }
    }
    false
}

fn destroy_path(shared: &Shared, role: &RoleName) -> ApiPath {
    ApiPath::default()
        .then("auth")
        .then(&shared.mount)
        .then("role")
        .name(role.as_str())
        .then("secret-id-accessor/destroy")
}

enum Destruction {
    Done,
    Refused,
    Failed,
}

async fn destroyed(client: &Client, call: &Call) -> Destruction {
    let Ok(answer) = client.exchange(call).await else { return Destruction::Failed };
    let words = answer.errors().unwrap_or_default();
    match answer.status {
        200..=299 => Destruction::Done,
        // It is not there, so neither is the secret_id: Vault says so with 404 or, up to today, with 500. The same
        // holds for a role that is gone.
        404 | 500 if words.contains("failed to find accessor entry") => Destruction::Done,
        404 | 500 if words.contains("role") && words.contains("does not exist") => Destruction::Done,
        404 if words.is_empty() && answer.errors().is_some() => Destruction::Done,
        400 | 403 | 404 | 405 => Destruction::Refused,
        _ => Destruction::Failed,
    }
}

/// Whether our policy allows it, as Vault itself says. Not knowing means no, and is asked again at the next chance.
async fn may_destroy(shared: &Shared, client: &Client, role: &RoleName, path: &ApiPath) -> bool {
    if let Some(known) = shared.may_destroy.get(role) {
        return known;
    }
    let Ok((_, token)) = shared.session.ready() else { return false };
    let ask = ApiPath::default().then("sys/capabilities-self");
    let call = Call::post(ask, &Paths { paths: [path.plain()] }).with_token(&token);
    let allowed = match client.exchange(&call).await {
        Ok(answer) if answer.is_success() => {
            let Ok(Capabilities { data }) = answer.read() else { return false };
            grants_update(&data, path.plain())
        }
        // A policy without "default" may not even ask.
        Ok(answer) if matches!(classify(&answer), VaultTrouble::Forbidden(_)) => false,
        Ok(_) | Err(_) => return false,
    };
    shared.may_destroy.put(role.clone(), allowed);
    if !allowed && shared.session.quiet.allows("may not destroy") {
        tracing::warn!(
            missing = %format!("\"update\" on {}", path.plain()),
            "our policy does not allow to destroy unused secret_ids; they are unwrapped where we still hold the \
             wrapping token, and otherwise run out with it"
        );
    }
    allowed
}

fn grants_update(capabilities: &HashMap<String, Vec<String>>, path: &str) -> bool {
    let of_path = capabilities.get(path).or_else(|| capabilities.get("capabilities"));
    of_path.is_some_and(|granted| granted.iter().any(|one| matches!(one.as_str(), "update" | "root")))
}

/// Whether the wrapping token was used up by us. The `secret_id` in the answer is wiped unread.
async fn unwrap_and_drop(client: &Client, token: &Token) -> bool {
    for failures in 1..=TRIES {
        let call = Call::post(ApiPath::default().then("sys/wrapping/unwrap"), &Empty {}).with_token(token);
        match client.exchange(&call).await {
            Ok(answer) if answer.is_success() => return true,
            // It has run out, or somebody else has used it: nothing is left to do.
            Ok(answer) if matches!(answer.status, 400 | 403 | 404) => return false,
            Ok(_) | Err(_) => {}
        }
        if failures < TRIES {
            tokio::time::sleep(RETRY.wait(failures, rand::random())).await;
        }
    }
    false
}

#[cfg(test)]
mod tests;
