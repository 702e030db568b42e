//! The TTL of a wrapped secret_id.
//!
//! Owns the grammar that Vault has for it. The text goes to Vault as written; what it parses to here is for our own
//! sums (is enough of the TTL left to send a token?) and must never be longer than what Vault makes of it.

use std::time::Duration;

/// What [`WrappingTtl::parse`] takes, for messages.
pub(super) const ACCEPTED: &str =
    "must be a number of seconds such as 60, or a duration such as 60s or 1m30s, and at least one second";

/// `vault.wrappingTTL`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappingTtl {
    text: String,
    duration: Duration,
}

impl WrappingTtl {
    /// Reads a TTL as Vault does: whole seconds, whole days (`1d`) or a Go duration. `None` where Vault would refuse
    /// it, or would not wrap at all: a TTL of 0 makes Vault hand out the bare secret_id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let seconds = match text.strip_suffix('d') {
            Some(days) => days.parse::<u64>().ok().and_then(|days| days.checked_mul(24 * 60 * 60)),
            None => text.parse::<u64>().ok(),
        };
        let duration = match seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::try_from(wire::duration::parse(text).ok()?).ok()?,
        };
        // Go holds a duration in 63 bits of nanoseconds; beyond it Vault would wrap around.
        let in_range = duration >= Duration::from_secs(1) && duration.as_nanos() <= i64::MAX as u128;
        in_range.then(|| Self { text: text.to_owned(), duration })
    }

    /// The text for Vault's `X-Vault-Wrap-TTL`, as it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How long a wrapping token lives.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl Default for WrappingTtl {
    fn default() -> Self {
        Self { text: "60s".to_owned(), duration: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_vault_reads() {
        for (text, seconds) in [
            ("60", 60.0),
            ("60s", 60.0),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("1h", 3600.0),
            ("1500ms", 1.5),
            ("1d", 86400.0),
            ("1", 1.0),
        ] {
            let ttl = WrappingTtl::parse(text).unwrap();
            assert_eq!(ttl.as_str(), text);
            assert_eq!(ttl.duration(), Duration::from_secs_f64(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "0",
            "0s",
            "-1",
            "-60s",
            "999ms",
            "5M",
            "60 s",
            "abc",
            "1.5",
            "1.5d",
            "d",
            "1y",
            "s",
            "18446744073709551615",
            "300000000000",
            "213503982334602d",
            "9999999h",
        ] {
            assert_eq!(WrappingTtl::parse(text), None, "{text}");
        }
    }
}
