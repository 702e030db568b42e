//! The push message: its fields, its exact bytes, and what is not one.
//!
//! Must never: repeat a received value in an error (a token in the wrong field would end up in a log), or give
//! the message a `Debug`.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::answer::attempt_is_valid;
use crate::gojson::{self, Value};

/// What the controller sends to an init container. The first five fields are the reference's, in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct Push {
    /// `token`: the wrapping token. Single use; wiped when dropped.
    pub token: Zeroizing<String>,
    /// `creationTime`: when Vault made the wrapping token.
    pub creation_time: Timestamp,
    /// `ttl`: for how many seconds it is good. Never negative from our controller.
    pub ttl_secs: i64,
    /// `vaultAddr`: where Vault is, as the controller's configuration has it, byte for byte.
    pub vault_addr: String,
    /// `vaultCAs`: the PEM bundle that verifies Vault (base64 on the wire). Never empty: that is `None`.
    pub vault_cas: Option<Vec<u8>>,
    /// `attempt`, ours: the id of this delivery attempt, see [`attempt_is_valid`].
    pub attempt: Option<String>,
    /// `podName`, ours: the pod this push is meant for.
    pub pod_name: Option<String>,
    /// `podNamespace`, ours.
    pub pod_namespace: Option<String>,
    /// `podUID`, ours.
    pub pod_uid: Option<String>,
    /// `namespace`, ours: Vault's namespace.
    pub namespace: Option<String>,
}

/// Why some bytes are not a push. Carries places and names of fields, never a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, not an object, or a field of the wrong type.
    Json {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1 (0: before the line's first character).
        column: usize,
    },
    /// A required field is missing, null or empty.
    Missing(&'static str),
    /// A field's text is not what it must be.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { line, column } => {
                write!(f, "not a JSON object with fields of the right type (line {line}, column {column})")
            }
            Self::Missing(field) => write!(f, "{field} is missing or empty"),
            Self::Invalid(field) => write!(f, "{field} is not valid"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Push {
    /// The message's bytes: the reference's fields in the reference's order, then ours where they are set.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let creation_time = self.creation_time.to_string();
        let mut fields = Vec::with_capacity(10);
        fields.push(("token", Value::String(&self.token)));
        fields.push(("creationTime", Value::String(&creation_time)));
        fields.push(("ttl", Value::Number(self.ttl_secs)));
        fields.push(("vaultAddr", Value::String(&self.vault_addr)));
        fields.push(("vaultCAs", self.vault_cas.as_deref().map_or(Value::Null, Value::Base64)));
        for (key, value) in [
            ("attempt", &self.attempt),
            ("podName", &self.pod_name),
            ("podNamespace", &self.pod_namespace),
            ("podUID", &self.pod_uid),
            ("namespace", &self.namespace),
        ] {
            if let Some(value) = value {
                fields.push((key, Value::String(value)));
            }
        }
        gojson::object(&fields)
    }

    /// Reads a message. Keys match without regard to case, unknown ones are ignored, the last of equal ones
    /// counts. `null` and the empty string count as absent.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a message. A push whose time is up is a message all the same.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let raw: Raw =
            serde_json::from_slice(body).map_err(|e| DecodeError::Json { line: e.line(), column: e.column() })?;
        let required = |field, value: Option<String>| value.ok_or(DecodeError::Missing(field));
        let token = raw.token.ok_or(DecodeError::Missing("token"))?;
        let creation_time =
            required("creationTime", raw.creation_time)?.parse().map_err(|_| DecodeError::Invalid("creationTime"))?;
        let vault_addr = required("vaultAddr", raw.vault_addr)?;
        let vault_cas = match raw.vault_cas {
            Some(text) => Some(crate::base64::decode(&text).ok_or(DecodeError::Invalid("vaultCAs"))?),
            None => None,
        };
        if raw.attempt.as_deref().is_some_and(|id| !attempt_is_valid(id)) {
            return Err(DecodeError::Invalid("attempt"));
        }
        Ok(Self {
            token,
            creation_time,
            ttl_secs: raw.ttl.unwrap_or(0),
            vault_addr,
            vault_cas: vault_cas.filter(|pem| !pem.is_empty()),
            attempt: raw.attempt,
            pod_name: raw.pod_name,
            pod_namespace: raw.pod_namespace,
            pod_uid: raw.pod_uid,
            namespace: raw.namespace,
        })
    }

    /// When the wrapping token's time is up. Saturates at the ends of time.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        let ttl = SignedDuration::from_secs(self.ttl_secs);
        self.creation_time.saturating_add(ttl).unwrap_or(Timestamp::MAX)
    }
}

/// The fields as they came. The token is wiped when dropped, whatever becomes of the rest.
#[derive(Default)]
struct Raw {
    token: Option<Zeroizing<String>>,
    creation_time: Option<String>,
    ttl: Option<i64>,
    vault_addr: Option<String>,
    vault_cas: Option<String>,
    attempt: Option<String>,
    pod_name: Option<String>,
    pod_namespace: Option<String>,
    pod_uid: Option<String>,
    namespace: Option<String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a push")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            let field = match key.as_str() {
                "creationtime" => &mut raw.creation_time,
                "vaultaddr" => &mut raw.vault_addr,
                "vaultcas" => &mut raw.vault_cas,
                "attempt" => &mut raw.attempt,
                "podname" => &mut raw.pod_name,
                "podnamespace" => &mut raw.pod_namespace,
                "poduid" => &mut raw.pod_uid,
                "namespace" => &mut raw.namespace,
                "token" => {
                    if let Some(text) = map.next_value::<Option<String>>()? {
                        raw.token = Some(Zeroizing::new(text)).filter(|text| !text.is_empty());
                    }
                    continue;
                }
                "ttl" => {
                    // As in Go, null leaves what was there.
                    raw.ttl = map.next_value::<Option<i64>>()?.or(raw.ttl);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if let Some(text) = map.next_value::<Option<String>>()? {
                *field = Some(text).filter(|text| !text.is_empty());
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests;
