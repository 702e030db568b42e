//! The four requests to Vault: look the wrapping token up, unwrap it, log in, and give a token back.
//!
//! Owns: the paths, headers and bodies; what the answers mean is in [`meaning`].
//!
//! Must never: hand a secret on in an error text, send a token to another host, or follow Vault elsewhere.

mod meaning;

use std::time::Duration;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use tokio::time::Instant;
use wire::gojson::{self, Value};
use zeroize::Zeroizing;

pub(crate) use self::meaning::{Failed, Fault};
use self::meaning::{classify, same_server_path, wait_before_retry};
use crate::http_client::{Ask, Client, Error};

/// What one try of a lookup may take. A hanging Vault then still leaves time for a second try.
const LOOKUP_TRY_MAX: Duration = Duration::from_secs(5);

/// How often a request may be sent on within one server: a standby answers 307 to itself behind a balancer.
const REDIRECTS_MAX: usize = 2;

/// A text that is wiped when dropped.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Created {
    creation_path: String,
}

/// What a wrapped secret_id holds.
#[derive(Deserialize)]
pub(crate) struct SecretId {
    pub(crate) secret_id: Secret,
    #[serde(default)]
    pub(crate) secret_id_accessor: String,
}

#[derive(Deserialize)]
struct Auth {
    auth: Login,
}

/// A login that has succeeded.
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

/// A Vault, and the namespace in it.
pub(crate) struct Vault {
    client: Client,
    namespace: Option<HeaderValue>,
}

struct Call<'a> {
    path: &'a str,
    token: Option<&'a str>,
    body: Zeroizing<Vec<u8>>,
    /// What must not show up in an error text, should the other side repeat it.
    secrets: &'a [&'a str],
    try_max: Option<Duration>,
}

impl Vault {
    /// A Vault behind `client`. `None` when the namespace cannot be sent as a header.
    pub(crate) fn new(client: Client, namespace: Option<&str>) -> Option<Self> {
        let namespace = namespace.map(HeaderValue::from_str).transpose().ok()?;
        Some(Self { client, namespace })
    }

    /// The path that made the wrapping token.
    pub(crate) async fn lookup(&mut self, token: &str, deadline: Instant) -> Result<String, Failed> {
        let call = Call {
            path: "sys/wrapping/lookup",
            token: Some(token),
            body: gojson::object(&[("token", Value::String(token))]),
            secrets: &[token],
            try_max: Some(LOOKUP_TRY_MAX),
        };
        let reply = self.call(&call, deadline).await?;
        Ok(parse::<Data<Created>>(&reply, "lookup")?.data.creation_path)
    }

    /// Unwraps. The wrapping token is good for nothing afterwards, whatever comes back.
    pub(crate) async fn unwrap(&mut self, token: &str, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let call = Call {
            path: "sys/wrapping/unwrap",
            token: Some(token),
            body: Zeroizing::default(),
            secrets: &[token],
            try_max: None,
        };
        self.call(&call, deadline).await
    }

    /// Logs in at the auth method mounted at `mount`.
    pub(crate) async fn login(
        &mut self,
        mount: &str,
        role_id: &str,
        secret_id: &str,
        deadline: Instant,
    ) -> Result<Login, Failed> {
        let call = Call {
            path: &format!("auth/{mount}/login"),
            token: None,
            body: gojson::object(&[("role_id", Value::String(role_id)), ("secret_id", Value::String(secret_id))]),
            secrets: &[secret_id, role_id],
            try_max: None,
        };
        let reply = self.call(&call, deadline).await?;
        Ok(parse::<Auth>(&reply, "login")?.auth)
    }

    /// Gives a token back that nobody is going to use.
    pub(crate) async fn revoke_self(&mut self, token: &str, deadline: Instant) -> Result<(), Failed> {
        let call = Call {
            path: "auth/token/revoke-self",
            token: Some(token),
            body: Zeroizing::default(),
            secrets: &[token],
            try_max: None,
        };
        self.call(&call, deadline).await.map(drop)
    }

    /// One request, repeated while that can help and `deadline` allows.
    async fn call(&mut self, call: &Call<'_>, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let mut lost = false;
        for tries in 0.. {
            let this_try = call.try_max.map_or(deadline, |max| deadline.min(Instant::now() + max));
            let (fault, unseen) = match self.once(call, this_try).await {
                Ok(body) => return Ok(body),
                Err(failed) => (failed.fault, failed.lost),
            };
            lost |= unseen;
            let jitter = crate::entropy::random().unwrap_or(0);
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(wait) = wait_before_retry(&fault, tries, jitter, left) else {
                return Err(Failed { fault, lost });
            };
            crate::log::debug(&format!("{} failed, trying again in {wait:?}: {}", call.path, fault.text()));
            tokio::time::sleep(wait).await;
        }
        // The loop ends by returning only.
        Err(Failed { fault: Fault::Unreachable("no more tries".to_owned()), lost })
    }

    async fn once(&mut self, call: &Call<'_>, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let seen = |fault| Failed { fault, lost: false };
        let mut path = format!("{}/v1/{}", self.client.endpoint().base, call.path);
        for _ in 0..=REDIRECTS_MAX {
            let headers = self.headers(call.token).map_err(seen)?;
            let ask = Ask { method: Method::PUT, path: &path, headers, body: call.body.clone() };
            let reply = match self.client.send(ask, deadline).await {
                Ok(reply) => reply,
                Err(Error::Connect(why)) => return Err(seen(Fault::Unreachable(why))),
                Err(Error::Certificate(why)) => return Err(seen(Fault::Wrong(why))),
                Err(Error::Lost(why)) => {
                    return Err(Failed { fault: Fault::Unreachable(why), lost: true });
                }
            };
            if reply.status.is_redirection() {
                path = same_server_path(&reply, self.client.endpoint()).map_err(|why| seen(Fault::Wrong(why)))?;
                continue;
            }
            if reply.status.is_success() {
                return Ok(reply.body);
            }
            return Err(classify(&reply, call.secrets));
        }
        Err(seen(Fault::Wrong(format!("{} redirects in a circle", self.client.endpoint()))))
    }

    fn headers(&self, token: Option<&str>) -> Result<HeaderMap, Fault> {
        let mut headers = HeaderMap::new();
        // Vault Agent and Proxy can be set to refuse requests without it, as a guard against request forgery.
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token).map_err(|_| Fault::Refused {
                status: 0,
                words: "the token holds characters that no token has".to_owned(),
            })?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-vault-token"), value);
        }
        if let Some(namespace) = &self.namespace {
            headers.insert(HeaderName::from_static("x-vault-namespace"), namespace.clone());
        }
        Ok(headers)
    }
}

/// What an unwrapped answer holds, where it is a secret_id.
pub(crate) fn secret_id_in(body: &[u8]) -> Option<SecretId> {
    let id = serde_json::from_slice::<Data<SecretId>>(body).ok()?.data;
    (!id.secret_id.0.is_empty()).then_some(id)
}

fn parse<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|_| {
        // Without the parser's words: they may quote the answer, and the answer holds secrets.
        Failed { fault: Fault::Wrong(format!("the answer to {what} does not come from a Vault")), lost: true }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_id_is_known_by_its_field() {
        let body = br#"{"data":{"secret_id":"s","secret_id_accessor":"a","secret_id_ttl":0}}"#;
        let id = secret_id_in(body).unwrap();
        assert_eq!((id.secret_id.0.as_str(), id.secret_id_accessor.as_str()), ("s", "a"));
        for other in ["", "{}", r#"{"data":null}"#, r#"{"data":{"a":1}}"#, r#"{"data":{"secret_id":""}}"#] {
            assert!(secret_id_in(other.as_bytes()).is_none());
        }
    }
}
