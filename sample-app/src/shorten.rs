//! Secrets, and the only form in which they are shown.
//!
//! Must never: show more than [`SHOWN_CHARS`] characters of a secret, or one that is too short to be cut.

use serde::Deserialize;
use zeroize::Zeroizing;

/// Enough to tell two tokens apart in a demonstration, and useless to anybody else. Four of them are a token's prefix.
const SHOWN_CHARS: usize = 6;

/// A secret must be this many times longer than what is shown of it; else nothing is.
const HIDDEN_FACTOR: usize = 2;

/// A token or secret_id. No `Debug`: it prints as [`Secret::shortened`] or not at all.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// The whole of it: for a request to Vault alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Its first characters and an ellipsis.
    pub(crate) fn shortened(&self) -> String {
        let shown = match self.0.char_indices().nth(SHOWN_CHARS * HIDDEN_FACTOR) {
            Some(_) => self.0.chars().take(SHOWN_CHARS).collect(),
            None => String::new(),
        };
        shown + "…"
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_characters_at_most_are_shown() {
        for (secret, expected) in [
            ("hvs.CAESIJ-the-rest-of-it", "hvs.CA…"),
            ("0ac2cb2f-2fb3-921f-ed00-4fb57f4024e5", "0ac2cb…"),
            ("äöüäöüäöüäöüä", "äöüäöü…"),
        ] {
            assert_eq!(Secret::from(secret.to_owned()).shortened(), expected);
        }
    }

    #[test]
    fn a_short_secret_is_not_shown_at_all() {
        for secret in ["", "hvs.CA", "123456789012"] {
            assert_eq!(Secret::from(secret.to_owned()).shortened(), "…", "{secret}");
        }
        assert_eq!(Secret::from("1234567890123".to_owned()).shortened(), "123456…");
    }
}
