//! An answer of Vault: its status, what of its head matters, and the parts of its body that we read.
//!
//! Owns the body, wiped when dropped. Must never put a body, or a decoder's words about it (they quote values),
//! into a text. Only Vault's list of errors is shown: in one line, cut, and without the token.

use std::collections::HashMap;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::token::Token;
use crate::domain::delivery::VaultTrouble;

/// How much of Vault's own words is shown: enough for each of its messages, too little to flood an Event.
const MAX_WORDS: usize = 300;

/// A complete answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// What must not be in any text about this answer.
    pub(super) asked_with: Option<Token>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    standby: bool,
}

impl Answer {
    /// Whether it is a success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Vault's errors in one line; `None` if the body is not Vault's.
    pub(super) fn errors(&self) -> Option<String> {
        let errors: Errors = serde_json::from_slice(&self.body).ok()?;
        let joined = errors.errors?.join("; ");
        // Its error lists come as "1 error occurred:\n\t* permission denied\n\n".
        let flat = joined.replace("1 error occurred:", "");
        let line = flat.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        let line = line.collect::<Vec<_>>().join(" ");
        let line = line.strip_prefix("* ").unwrap_or(&line);
        let line = self.asked_with.as_ref().map_or_else(|| line.to_owned(), |token| token.redact(line));
        Some(line.chars().take(MAX_WORDS).collect())
    }

    /// Whether it is what `sys/health` of a standby says.
    pub(super) fn says_standby(&self) -> bool {
        serde_json::from_slice::<Health>(&self.body).is_ok_and(|health| health.standby)
    }

    /// The body as `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, VaultTrouble> {
        serde_json::from_slice(&self.body).map_err(|cause| {
            let what = if cause.is_eof() { "ends too early" } else { "is not what Vault's API describes" };
            VaultTrouble::WrongAnswer(format!("its body {what} (line {}, column {})", cause.line(), cause.column()))
        })
    }
}

/// What most answers have `data` in.
#[derive(Deserialize)]
pub(super) struct Data<T> {
    pub(super) data: T,
}

/// `auth` of a login or a renewal.
#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) auth: Auth,
}

/// See [`Authenticated`].
#[derive(Deserialize)]
pub(super) struct Auth {
    #[serde(deserialize_with = "secret")]
    pub(super) client_token: SecretString,
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// An answer that should be wrapped.
#[derive(Deserialize)]
pub(super) struct MaybeWrapped {
    pub(super) wrap_info: Option<WrapInfo>,
    /// Of an answer that is not wrapped: the bare `secret_id`'s accessor. The `secret_id` itself is not even read.
    pub(super) data: Option<Bare>,
}

/// See [`MaybeWrapped`].
#[derive(Deserialize)]
pub(super) struct Bare {
    pub(super) secret_id_accessor: Option<String>,
}

/// See [`MaybeWrapped`].
#[derive(Deserialize)]
pub(super) struct WrapInfo {
    #[serde(deserialize_with = "secret")]
    pub(super) token: SecretString,
    #[serde(default)]
    pub(super) accessor: String,
    pub(super) ttl: u64,
    pub(super) creation_time: String,
    #[serde(default)]
    pub(super) creation_path: String,
    pub(super) wrapped_accessor: Option<String>,
}

/// `auth/token/lookup-self`. The `id` in it, which is the token, is not read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenInfo {
    pub(super) policies: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) identity_policies: Vec<String>,
    pub(super) renewable: bool,
    pub(super) creation_ttl: u64,
    pub(super) ttl: u64,
    pub(super) explicit_max_ttl: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) period: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) role: String,
}

/// `auth/token/roles/<name>`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenRole {
    pub(super) renewable: bool,
    pub(super) explicit_max_ttl: u64,
    pub(super) token_explicit_max_ttl: u64,
    pub(super) period: u64,
    pub(super) token_period: u64,
}

/// `sys/capabilities-self`: by path.
#[derive(Deserialize)]
pub(super) struct Capabilities {
    pub(super) data: HashMap<String, Vec<String>>,
}

pub(super) fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<SecretString, D::Error> {
    String::deserialize(input).map(SecretString::from)
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_answer(status: u16, body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status, retry_after: None, body, asked_with: Token::parse("hvs.canary") }
    }

    #[test]
    fn vaults_words_are_one_short_line_without_the_token() {
        let nested = mk_answer(403, r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#);
        assert_eq!(nested.errors().unwrap(), "permission denied");
        let echo = mk_answer(400, r#"{"errors":["bad token hvs.canary","\u001b[31mred"]}"#);
        assert_eq!(echo.errors().unwrap(), "bad token [token]; [31mred");
        let long = mk_answer(400, &format!(r#"{{"errors":["{}"]}}"#, "x".repeat(5000)));
        assert_eq!(long.errors().unwrap().len(), MAX_WORDS);
        assert_eq!(mk_answer(404, "<html>").errors(), None);
        assert_eq!(mk_answer(404, "{}").errors(), None);
    }

    #[test]
    fn a_body_that_does_not_decode_is_not_quoted() {
        let answer = mk_answer(200, r#"{"auth":{"client_token":["hvs.other"]}}"#);
        let trouble = answer.read::<Authenticated>().err().unwrap();
        assert!(!trouble.to_string().contains("hvs."), "{trouble}");
    }

    #[test]
    fn a_lookup_of_the_real_vault_is_read() {
        let body = r#"{"data":{"accessor":"x","creation_ttl":3600,"explicit_max_ttl":0,"expire_time":"2026-11-23T17:07:04Z",
            "id":"hvs.x","meta":null,"policies":["ctl","default"],"renewable":true,"role":"kv","ttl":3599,"type":"service"}}"#;
        let info = mk_answer(200, body).read::<Data<TokenInfo>>().unwrap().data;
        assert_eq!((info.ttl, info.role.as_str(), info.period), (3599, "kv", 0));
    }
}
