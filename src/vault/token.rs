//! A token, in the one form in which it is used: a header value.
//!
//! Owns its bytes, which are wiped when the last request that carries them has ended. No `Debug`, no `Display`.

use http::HeaderValue;
use hyper::body::Bytes;
use zeroize::Zeroizing;

/// A Vault token. Clones share the bytes.
#[derive(Clone)]
pub(super) struct Token(HeaderValue);

impl Token {
    /// The token in `text`; `None` if a header cannot carry it, or if there is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let bytes = Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()));
        let mut header = HeaderValue::from_maybe_shared(bytes).ok()?;
        header.set_sensitive(true);
        // A header may carry bytes above 127, but no token of Vault's has them: they come from a wrong file.
        header.to_str().is_ok().then_some(Self(header))
    }

    /// For the request's head.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Whether it is this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Takes the token out of `text`, should an answer have echoed it.
    pub(super) fn redact(&self, text: &str) -> String {
        match self.0.to_str() {
            Ok(token) => text.replace(token, "[token]"),
            Err(_) => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_cannot_carry_is_no_token() {
        for bad in ["", "a\nb", "a\rb", "a\0b", "hvs.\u{e9}", "\u{7f}"] {
            assert!(Token::parse(bad).is_none(), "{bad:?}");
        }
        assert!(Token::parse("hvs.CAESI-_x").is_some());
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse("hvs.canary").unwrap();
        assert_eq!(format!("{:?}", token.header()), "Sensitive");
        assert_eq!(token.redact("no such token hvs.canary here"), "no such token [token] here");
    }
}
