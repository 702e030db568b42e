//! A request to Vault before it is sent: its path, its method, its body.
//!
//! Pure. Owns the encoding of paths: what stands for one segment can never become two.

use http::{HeaderValue, Method};
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use zeroize::Zeroizing;

use super::token::Token;

/// Everything but the characters that RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path below `/v1/`, as Vault names it and as a URL carries it.
#[derive(Clone, Default)]
pub(super) struct ApiPath {
    plain: String,
    encoded: String,
}

impl ApiPath {
    /// Adds a path of ours, or a mount, that may have several segments.
    pub(super) fn then(mut self, path: &str) -> Self {
        for part in path.trim_matches('/').split('/') {
            self.push(part);
        }
        self
    }

    /// Adds a name: one segment, whatever is in it.
    pub(super) fn name(mut self, name: &str) -> Self {
        self.push(name);
        self
    }

    fn push(&mut self, segment: &str) {
        if !self.plain.is_empty() {
            self.plain.push('/');
            self.encoded.push('/');
        }
        self.plain.push_str(segment);
        self.encoded.extend(utf8_percent_encode(segment, SEGMENT));
    }

    /// As Vault names it: in policies, and as a wrapping token's creation path.
    pub(super) fn plain(&self) -> &str {
        &self.plain
    }

    /// As a URL carries it.
    pub(super) fn encoded(&self) -> &str {
        &self.encoded
    }
}

/// A request to Vault.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: ApiPath,
    pub(super) token: Option<Token>,
    pub(super) wrap_ttl: Option<HeaderValue>,
    pub(super) body: Option<Bytes>,
}

impl Call {
    pub(super) fn get(path: ApiPath) -> Self {
        Self { method: Method::GET, path, token: None, wrap_ttl: None, body: None }
    }

    /// A POST of `body` as JSON. The bytes are wiped once they are sent: a body may hold what nobody else may see.
    pub(super) fn post(path: ApiPath, body: &impl Serialize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TYPICAL_BODY));
        // Only maps with keys that are no strings fail, and there is none here.
        if serde_json::to_writer(&mut *bytes, body).is_err() {
            bytes.clear();
        }
        Self { method: Method::POST, path, token: None, wrap_ttl: None, body: Some(Bytes::from_owner(bytes)) }
    }

    pub(super) fn with_token(mut self, token: &Token) -> Self {
        self.token = Some(token.clone());
        self
    }
}

/// Room for every body of ours, a service account token of 2 KiB included, so that growing leaves no copy behind.
const TYPICAL_BODY: usize = 8 * 1024;

/// `{}`.
#[derive(Serialize)]
pub(super) struct Empty {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        let path = ApiPath::default().then("auth").then("team/approle").then("role").name("a b/../%2f?x#\n");
        assert_eq!(path.encoded(), "auth/team/approle/role/a%20b%2F..%2F%252f%3Fx%23%0A");
        assert_eq!(path.plain(), "auth/team/approle/role/a b/../%2f?x#\n");
        assert_eq!(ApiPath::default().then("/pki/").then("ca/pem").plain(), "pki/ca/pem");
    }
}
