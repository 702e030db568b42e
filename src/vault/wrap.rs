//! Asking for one response-wrapped `secret_id`.
//!
//! Owns the request's form and the checks of its answer, and remembers which roles refuse metadata. A `secret_id`
//! that came unwrapped is destroyed where our policy allows that, and never handed on.

use http::HeaderValue;
use serde::Serialize;

use super::answer::{Answer, MaybeWrapped, WrapInfo};
use super::call::{ApiPath, Call, Empty};
use super::client::Client;
use super::error::classify;
use super::handle::Shared;
use super::neutralise;
use super::token::Token;
use crate::deliver::ports::{SecretIdRequest, WrappedSecretId};
use crate::domain::delivery::VaultTrouble;
use crate::domain::ids::RoleName;
use crate::domain::ledger::Accessors;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    pod: &'a str,
    pod_namespace: &'a str,
    #[serde(rename = "podUID")]
    pod_uid: &'a str,
    service_account: &'a str,
    node: &'a str,
    attempt: &'a str,
}

#[derive(Serialize)]
struct Body {
    /// JSON in a string, as Vault's API wants it.
    metadata: String,
}

/// `auth/<mount>/role/<role>/secret-id`.
pub(super) fn secret_id_path(mount: &str, role: &RoleName) -> ApiPath {
    ApiPath::default().then("auth").then(mount).then("role").name(role.as_str()).then("secret-id")
}

/// One wrapped `secret_id`.
pub(super) async fn wrap(shared: &Shared, request: &SecretIdRequest) -> Result<WrappedSecretId, VaultTrouble> {
    let (client, token) = shared.session.ready()?;
    let outcome = ask(shared, &client, &token, request).await;
    let outcome = match outcome {
        // About the role, or about us?
        Err(VaultTrouble::Forbidden(_)) if shared.session.is_dead(&client, &token).await => {
            Err(VaultTrouble::NotLoggedIn("our token is not valid any more".to_owned()))
        }
        other => other,
    };
    shared.session.served(outcome.as_ref().map(|_| ()));
    outcome
}

async fn ask(
    shared: &Shared,
    client: &Client,
    token: &Token,
    request: &SecretIdRequest,
) -> Result<WrappedSecretId, VaultTrouble> {
    let path = secret_id_path(&shared.mount, &request.role);
    let ttl = &shared.wrapping_ttl;
    let bare = || secret_id_call(&path, token, ttl, &Empty {});
    let told_before = shared.without_metadata.get(&request.role).is_some();
    if told_before {
        return read(shared, client, &path, request, client.exchange(&bare()).await?).await;
    }
    let with_metadata = secret_id_call(&path, token, ttl, &Body { metadata: metadata(request) });
    let answer = client.exchange(&with_metadata).await?;
    if answer.status != 403 {
        return read(shared, client, &path, request, answer).await;
    }
    // A policy may limit the request's parameters. What may not be told is left out; what is forbidden stays so.
    let refused = classify(&answer);
    let answer = client.exchange(&bare()).await?;
    if answer.status == 403 {
        return Err(refused);
    }
    if answer.is_success() {
        shared.without_metadata.put(request.role.clone(), ());
        if shared.session.quiet.allows("metadata refused") {
            tracing::warn!(
                role = %request.role,
                "Vault refuses metadata on secret_ids of this role, so its audit log will not name the pods; allow \
                 the parameter \"metadata\" in the controller's policy"
            );
        }
    }
    read(shared, client, &path, request, answer).await
}

fn secret_id_call(path: &ApiPath, token: &Token, ttl: &HeaderValue, body: &impl Serialize) -> Call {
    Call { wrap_ttl: Some(ttl.clone()), ..Call::post(path.clone(), body).with_token(token) }
}

fn metadata(request: &SecretIdRequest) -> String {
    let metadata = Metadata {
        pod: &request.pod.name,
        pod_namespace: &request.pod.namespace,
        pod_uid: request.pod.uid.as_str(),
        service_account: &request.service_account,
        node: &request.node,
        attempt: request.attempt.as_str(),
    };
    // Strings alone: this cannot fail.
    serde_json::to_string(&metadata).unwrap_or_else(|_| "{}".to_owned())
}

async fn read(
    shared: &Shared,
    client: &Client,
    path: &ApiPath,
    request: &SecretIdRequest,
    answer: Answer,
) -> Result<WrappedSecretId, VaultTrouble> {
    if !answer.is_success() {
        return Err(refusal(classify(&answer)));
    }
    let body: MaybeWrapped = answer.read()?;
    let Some(info) = body.wrap_info else {
        // Readable by whoever stands in between, so nobody may have it.
        if let Some(accessor) = body.data.and_then(|bare| bare.secret_id_accessor) {
            let destroyed = neutralise::destroy_if_allowed(shared, client, &request.role, &accessor).await;
            let SecretIdRequest { role, pod, attempt, .. } = request;
            tracing::warn!(%pod, pod.uid = %pod.uid, %role, %attempt, destroyed,
                "Vault answered with a secret_id that is not wrapped");
        }
        return Err(VaultTrouble::WrongAnswer(
            "the secret_id is not wrapped; is vault.wrappingTTL 0, or does something drop X-Vault-Wrap-TTL?".to_owned(),
        ));
    };
    check_wrapping(&info, path, shared.namespace.as_deref())?;
    let creation_time = info.creation_time.parse();
    let creation_time = creation_time
        .map_err(|_| VaultTrouble::WrongAnswer("the wrapping token's creation_time is no RFC 3339 time".to_owned()))?;
    Ok(WrappedSecretId {
        token: info.token,
        creation_time,
        ttl_seconds: u32::try_from(info.ttl).unwrap_or(u32::MAX),
        accessors: Accessors {
            wrapping: info.accessor.into(),
            secret_id: info.wrapped_accessor.filter(|accessor| !accessor.is_empty()).map(Into::into),
        },
    })
}

/// Whether it wraps what was asked for: somebody in between could wrap something of theirs.
fn check_wrapping(info: &WrapInfo, path: &ApiPath, namespace: Option<&str>) -> Result<(), VaultTrouble> {
    // Vault keeps the path as it was asked for, letter case included, and without the namespace. Some versions
    // are said to put the namespace before it.
    let expected = path.plain();
    let prefixed = namespace.map(|namespace| format!("{}/{expected}", namespace.trim_matches('/')));
    if info.creation_path != expected && Some(&info.creation_path) != prefixed.as_ref() {
        let made_at: String = info.creation_path.chars().filter(|c| !c.is_control()).take(200).collect();
        let text = format!("the wrapping token was created at {made_at:?}, not at {expected:?}");
        return Err(VaultTrouble::WrongAnswer(text));
    }
    if info.ttl == 0 {
        return Err(VaultTrouble::WrongAnswer("the wrapping token has no TTL".to_owned()));
    }
    Ok(())
}

/// Tells an unknown role from an unknown mount, by Vault's own words: both are a 404.
fn refusal(trouble: VaultTrouble) -> VaultTrouble {
    match trouble {
        // "unsupported path" is said of names that no role can have (a space, a period at the end).
        VaultTrouble::Rejected { status: 400 | 404, ref cause }
            if cause.contains("does not exist") || cause.contains("unsupported path") =>
        {
            VaultTrouble::UnknownRole
        }
        VaultTrouble::Rejected { status, cause } if cause.contains("no handler for route") => {
            let cause = format!("{cause} Is the AppRole auth method mounted there (vault.approleMount)?");
            VaultTrouble::Rejected { status, cause }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
