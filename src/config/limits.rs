//! The section `limits`.
//!
//! Owns the grammar of rates. What the limits are for, and why the defaults are what they are, is in
//! [`crate::domain::limits`].

use super::lenient::{Context, Section, Setting};
use crate::domain::limits::{Limits, Rate};

/// What a rate may be, for messages.
const RATE_ACCEPTED: &str = "must be a number a second such as 200 or 0.5, from 0.01 to 1000000, with three decimals at \
                             most; a limit that is never to be met is set high";

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Limits {
    let defaults = Limits::default();
    Limits {
        in_flight: in_flight(section, defaults.in_flight, cx),
        vault: rate(section, "vaultRequestsPerSecond", defaults.vault, cx),
        role: rate(section, "perRolePerSecond", defaults.role, cx),
        namespace: rate(section, "perNamespacePerSecond", defaults.namespace, cx),
    }
}

fn in_flight(section: &Section<'_>, default: usize, cx: &mut Context<'_>) -> usize {
    let Some(Setting { value, spot }) = section.text("inFlight", cx) else { return default };
    let whole = digits(&value).and_then(|digits| digits.parse().ok());
    let accepted = whole.filter(|count| (1..=Limits::IN_FLIGHT_MOST).contains(count));
    if accepted.is_none() {
        let most = Limits::IN_FLIGHT_MOST;
        cx.problem(&spot, format!("must be a whole number of deliveries, from 1 to {most}"));
    }
    accepted.unwrap_or(default)
}

fn rate(section: &Section<'_>, name: &str, default: Rate, cx: &mut Context<'_>) -> Rate {
    let Some(Setting { value, spot }) = section.text(name, cx) else { return default };
    let accepted = thousandths(&value).and_then(Rate::from_thousandths);
    if accepted.is_none() {
        cx.problem(&spot, RATE_ACCEPTED);
    }
    accepted.unwrap_or(default)
}

/// `12.5` is 12500. No sign, no exponent, nothing that would have to be rounded.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let (whole, decimals) = (digits(whole)?, digits(decimals).filter(|decimals| decimals.len() <= 3)?);
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(format!("{decimals:0<3}").parse().ok()?)
}

/// `parse` would take a sign.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_decimal_numbers_and_nothing_else() {
        for (text, want) in [
            ("1", Some(1_000)),
            ("0.5", Some(500)),
            ("12.25", Some(12_250)),
            ("0.001", Some(1)),
            ("007", Some(7_000)),
            ("0", Some(0)),
            ("", None),
            (".5", None),
            ("5.", None),
            ("0.0005", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1_000", None),
            ("1,5", None),
            ("NaN", None),
            ("١", None),
            ("18446744073709551615", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(thousandths(text), want, "{text:?}");
        }
    }
}
