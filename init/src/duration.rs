//! Durations as Go writes them: `1h30m`, `1.5h`, `500ms`, `0`, `-1s`.
//!
//! Existing pod specs and configurations carry such texts, so the grammar, the limits and the words of the
//! errors are those of Go's `time.ParseDuration`; the crates at hand each refuse or misread some of them.
//!
//! Must never: accept what Go refuses (a bare `30`, `1d`, `5M`), or read a text as another duration than Go does.

use std::fmt::{self, Write as _};

use jiff::SignedDuration;

const SECOND: u64 = 1_000_000_000;

/// Go's units in nanoseconds. Both code points for micro are in use: U+00B5 and U+03BC.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

/// Go counts nanoseconds in an `int64`; this is the magnitude of its least value.
const LIMIT: u64 = 1 << 63;

/// Why a text is no duration. Its `Display` is Go's wording, the text quoted as Go quotes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not of the grammar, or too large.
    Invalid(String),
    /// A number without a unit, such as `5`.
    MissingUnit(String),
    /// A unit that Go does not know, such as `d`.
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => write!(f, "time: invalid duration {}", Quoted(text)),
            Self::MissingUnit(text) => write!(f, "time: missing unit in duration {}", Quoted(text)),
            Self::UnknownUnit { unit, text } => {
                write!(f, "time: unknown unit {} in duration {}", Quoted(unit), Quoted(text))
            }
        }
    }
}

impl std::error::Error for Error {}

/// Quotes as Go's `time` package does: everything outside printable ASCII byte by byte as `\xNN`.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=0x7f => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_char('"')
    }
}

/// Reads a duration by Go's grammar: `[-+]?([0-9]*(\.[0-9]*)?[a-z]+)+`, or `0` with a sign or without.
///
/// # Errors
///
/// Where Go's `time.ParseDuration` gives one, with its words.
pub fn parse(text: &str) -> Result<SignedDuration, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (nanos, after) = parse_term(rest, text)?;
        // Go's own sum wraps to zero for twice its limit; refusing that is the one difference.
        total = total.checked_add(nanos).filter(|&sum| sum <= LIMIT).ok_or_else(invalid)?;
        rest = after;
    }
    let nanos = if negative { 0_i64.checked_sub_unsigned(total) } else { 0_i64.checked_add_unsigned(total) };
    nanos.map(SignedDuration::from_nanos).ok_or_else(invalid)
}

/// One number with its unit, and what follows it. `text` is the whole, for errors.
fn parse_term<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (whole_digits, rest) = split_digits(rest);
    let mut whole = 0_u64;
    for digit in whole_digits.bytes() {
        whole = whole
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
            .filter(|&number| number <= LIMIT)
            .ok_or_else(invalid)?;
    }
    let (fraction_digits, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole_digits.is_empty() && fraction_digits.is_empty() {
        return Err(invalid());
    }
    let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    if unit.is_empty() {
        return Err(Error::MissingUnit(text.to_owned()));
    }
    let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(Error::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
    };
    let nanos = whole.checked_mul(scale).filter(|&n| n <= LIMIT).ok_or_else(invalid)?;
    let nanos = nanos.checked_add(fraction_of(fraction_digits, scale)).filter(|&n| n <= LIMIT).ok_or_else(invalid)?;
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.<digits>` of a unit, cut to whole nanoseconds.
///
/// By way of `f64`, as Go does it: exact integers would differ from Go in the last nanosecond of an hour's fraction.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut number = 0_u64;
    let mut scale = 1_f64;
    for digit in digits.bytes() {
        // Digits beyond what an int64 can hold do not count, as in Go.
        if number > (LIMIT - 1) / 10 {
            break;
        }
        let next = number * 10 + u64::from(digit - b'0');
        if next > LIMIT {
            break;
        }
        number = next;
        scale *= 10.0;
    }
    (number as f64 * (unit as f64 / scale)) as u64
}

/// Writes a duration as Go's `Duration.String` does: `1h30m0s`, `1.5s`, `100ms`, `0s`. Saturates at Go's limits.
#[must_use]
pub fn format(duration: SignedDuration) -> String {
    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(if duration.is_negative() { i64::MIN } else { i64::MAX });
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let number = |whole: u64, rest: u64, width: usize| {
        if rest == 0 {
            return whole.to_string();
        }
        let text = format!("{whole}.{rest:0width$}");
        text.trim_end_matches('0').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}\u{b5}s", number(nanos / 1_000, nanos % 1_000, 3)),
        1_000_000..SECOND => format!("{sign}{}ms", number(nanos / 1_000_000, nanos % 1_000_000, 6)),
        _ => {
            let seconds = nanos / SECOND;
            let tail = format!("{}s", number(seconds % 60, nanos % SECOND, 9));
            match (seconds / 3_600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{tail}"),
                (0, minutes) => format!("{sign}{minutes}m{tail}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
