//! Secrets that must not be found anywhere.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use serde_json::Value;

/// A secret is recognised by its end: beginnings may be shown, and are often alike.
const END: usize = 15;

/// The ends of secrets, plain and in base64 at each of the three offsets.
#[derive(Default)]
pub struct Needles {
    all: BTreeSet<String>,
    count: usize,
}

impl Needles {
    /// One more secret. A short one is none.
    pub fn add(&mut self, secret: &str) {
        let Some(end) = secret.len().checked_sub(END).and_then(|start| secret.get(start..)) else { return };
        if !self.all.insert(end.to_owned()) {
            return;
        }
        self.count += 1;
        for offset in 0..3 {
            let whole = &end.as_bytes()[offset..];
            let whole = &whole[..whole.len() / 3 * 3];
            if let Ok(Value::String(encoded)) = serde_json::to_value(ByteString(whole.to_vec())) {
                self.all.insert(encoded.replace('+', "-").replace('/', "_"));
                self.all.insert(encoded);
            }
        }
    }

    /// How many different secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The part of a secret that is in `text`.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&str> {
        self.all.iter().map(String::as_str).find(|needle| text.contains(needle))
    }

    /// Where in `text` a secret is, for people: the line, without it.
    #[must_use]
    pub fn line(&self, text: &str) -> Option<String> {
        let needle = self.find(text)?;
        let line = text.lines().find(|line| line.contains(needle)).unwrap_or_default();
        Some(line.replace(needle, "<SECRET>").chars().take(600).collect())
    }
}
