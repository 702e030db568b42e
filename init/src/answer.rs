//! The answers to a push: their status codes, and the bodies that another program reads.
//!
//! Any answer but [`DONE`], [`BUSY`] and [`DONE_EARLIER`] promises that nothing of that push will be used.
//!
//! Must never: put anything into a body but an attempt id, a word of [`TokenFault`] and a fixed or secret-free text.

use crate::limits::ATTEMPT_BYTES_MAX;

/// Done: unwrapped, logged in, files written. Body: [`attempt_body`], empty when the push named no attempt.
pub const DONE: u16 = 200;
/// Not a push. Body: [`NOT_A_PUSH_TEXT`].
pub const NOT_A_PUSH: u16 = 400;
/// Another path than [`crate::limits::PATH`]. Empty body.
pub const NOT_FOUND: u16 = 404;
/// Another method than POST. Body: [`METHOD_TEXT`].
pub const METHOD_NOT_ALLOWED: u16 = 405;
/// The sender took too long over its request.
pub const TOO_SLOW: u16 = 408;
/// Another push is in work. Send the same attempt again soon.
pub const BUSY: u16 = 409;
/// An earlier push was accepted. Body: [`attempt_body`] of the accepted one, empty when it named no attempt.
pub const DONE_EARLIER: u16 = 410;
/// This instance is about to end with an error; no push can mend its cause. The body says which.
pub const NO_PUSH_CAN_MEND: u16 = 412;
/// The body is longer than [`crate::limits::BODY_BYTES_MAX`].
pub const TOO_LARGE: u16 = 413;
/// Proof that this is not the pod the push names.
pub const NOT_THIS_POD: u16 = 421;
/// The wrapping token is no good. The body's first word is a [`TokenFault`].
pub const TOKEN_REFUSED: u16 = 422;
/// The request head is too long. (hyper's own answer.)
pub const HEAD_TOO_LARGE: u16 = 431;
/// Cannot now: Vault is unreachable, sealed, overloaded. May carry `Retry-After`, in seconds.
pub const CANNOT_NOW: u16 = 503;

/// Body of [`NOT_A_PUSH`], word for word the reference's.
pub const NOT_A_PUSH_TEXT: &str = "Could not decode wrapped secret.";
/// Body of [`METHOD_NOT_ALLOWED`], word for word the reference's.
pub const METHOD_TEXT: &str = "The / endpoint only support POSTs";

/// What comes before the id in an answer's body and in the termination message.
const ATTEMPT_KEY: &str = "attempt=";

/// Why a wrapping token was refused: the first word of a [`TOKEN_REFUSED`] body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// Vault does not know it although its time is not up: somebody else may have unwrapped it. A security event.
    Used,
    /// Its time is up.
    Expired,
    /// It wraps something else than a secret_id of an AppRole.
    Path,
    /// Vault refused it, or the login with what it wrapped, for another reason.
    Refused,
}

impl TokenFault {
    /// All of them, for whoever counts by cause.
    pub const ALL: [Self; 4] = [Self::Used, Self::Expired, Self::Path, Self::Refused];

    /// The word on the wire. Never changes.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Path => "path",
            Self::Refused => "refused",
        }
    }

    /// The body of the answer: the word, a colon, and `detail` for people.
    #[must_use]
    pub fn body(self, detail: &str) -> String {
        format!("{}: {detail}", self.word())
    }

    /// Reads the first word of a [`TOKEN_REFUSED`] body; `None` for a receiver that says something else.
    #[must_use]
    pub fn parse(body: &str) -> Option<Self> {
        let word = body.split(|c: char| !c.is_ascii_alphabetic()).next()?;
        Self::ALL.into_iter().find(|fault| fault.word() == word)
    }
}

/// Whether `id` can be told apart in a line of text: visible ASCII, not empty, at most
/// [`ATTEMPT_BYTES_MAX`] long. Anything else could forge log lines or termination messages.
#[must_use]
pub fn attempt_is_valid(id: &str) -> bool {
    (1..=ATTEMPT_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// `attempt=<id>`: the body of [`DONE`] and [`DONE_EARLIER`], and the termination message of a success.
#[must_use]
pub fn attempt_body(id: &str) -> String {
    format!("{ATTEMPT_KEY}{id}")
}

/// The id in an answer's body or a termination message; `None` where it names none.
#[must_use]
pub fn parse_attempt(text: &str) -> Option<&str> {
    let id = text.strip_prefix(ATTEMPT_KEY)?.trim_end();
    attempt_is_valid(id).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_attempt_survives_the_body(id in "[!-~]{1,128}") {
            let body = attempt_body(&id);
            prop_assert_eq!(parse_attempt(&body), Some(id.as_str()));
        }
    }

    #[test]
    fn what_names_no_attempt_is_none() {
        for text in ["", "attempt=", "attempt=a b", "Attempt=a", "xattempt=a", "attempt=a\nb", "timeout: ..."] {
            assert_eq!(parse_attempt(text), None, "{text:?}");
        }
        assert_eq!(parse_attempt("attempt=a\n"), Some("a"));
    }

    #[test]
    fn the_first_word_names_the_fault() {
        for fault in TokenFault::ALL {
            assert_eq!(TokenFault::parse(&fault.body("some text")), Some(fault));
            assert_eq!(TokenFault::parse(fault.word()), Some(fault));
        }
        assert_eq!(TokenFault::parse("usedcar: no"), None);
        assert_eq!(TokenFault::parse(""), None);
    }
}
