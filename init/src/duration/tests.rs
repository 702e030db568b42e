//! The grammar against Go's own table, and against a second, exact reading of it.

use proptest::prelude::*;

use super::*;

fn nanos(text: &str) -> i128 {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).as_nanos()
}

#[test]
fn what_go_reads() {
    const S: i128 = 1_000_000_000;
    for (text, expected) in [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5s", 5 * S),
        ("30s", 30 * S),
        ("1478s", 1478 * S),
        ("-5s", -5 * S),
        ("+5s", 5 * S),
        ("5.0s", 5 * S),
        ("5.6s", 5 * S + 600_000_000),
        ("5.s", 5 * S),
        (".5s", S / 2),
        ("1.0s", S),
        ("1.00s", S),
        ("1.004s", S + 4_000_000),
        ("1.0040s", S + 4_000_000),
        ("100.00100s", 100 * S + 1_000_000),
        ("10ns", 10),
        ("300us", 300_000),
        ("12\u{b5}s", 12_000),
        ("12\u{3bc}s", 12_000),
        ("13ms", 13_000_000),
        ("5m", 300 * S),
        ("15h", 54_000 * S),
        ("3h30m", 12_600 * S),
        ("10.5s4m", 250 * S + S / 2),
        ("-2m3.4s", -(123 * S + 400_000_000)),
        ("1h2m3s4ms5us6ns", 3_723 * S + 4_005_006),
        ("39h9m14.425s", 140_954 * S + 425_000_000),
        ("52763797000ns", 52_763_797_000),
        ("0.3333333333333333333h", 1_200 * S),
        ("9007199254740993ns", 9_007_199_254_740_993),
        ("9223372036854775807ns", i128::from(i64::MAX)),
        ("9223372036854775.807us", i128::from(i64::MAX)),
        ("9223372036s854ms775us807ns", i128::from(i64::MAX)),
        ("-9223372036854775808ns", i128::from(i64::MIN)),
        ("-9223372036854775.808us", i128::from(i64::MIN)),
        ("0.100000000000000000000h", 360 * S),
        ("0.830103483285477580700h", 2_988_372_539_827),
    ] {
        assert_eq!(nanos(text), expected, "{text}");
    }
}

#[test]
fn what_go_refuses_with_its_words() {
    for (text, expected) in [
        ("", r#"time: invalid duration """#),
        ("3", r#"time: missing unit in duration "3""#),
        ("5", r#"time: missing unit in duration "5""#),
        ("30", r#"time: missing unit in duration "30""#),
        ("-", r#"time: invalid duration "-""#),
        ("s", r#"time: invalid duration "s""#),
        (".", r#"time: invalid duration ".""#),
        ("-.", r#"time: invalid duration "-.""#),
        (".s", r#"time: invalid duration ".s""#),
        ("+.s", r#"time: invalid duration "+.s""#),
        ("abc", r#"time: invalid duration "abc""#),
        (" 5s", r#"time: invalid duration " 5s""#),
        ("5s ", r#"time: unknown unit "s " in duration "5s ""#),
        ("5d", r#"time: unknown unit "d" in duration "5d""#),
        ("1d", r#"time: unknown unit "d" in duration "1d""#),
        ("5M", r#"time: unknown unit "M" in duration "5M""#),
        ("1h-30m", r#"time: unknown unit "h-" in duration "1h-30m""#),
        ("1e3s", r#"time: unknown unit "e" in duration "1e3s""#),
        ("\u{b5}s\"\\", r#"time: invalid duration "\xc2\xb5s\"\\""#),
        ("1\u{ffff}", r#"time: unknown unit "\xef\xbf\xbf" in duration "1\xef\xbf\xbf""#),
        ("9223372036854775810ns", r#"time: invalid duration "9223372036854775810ns""#),
        ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
        ("-9223372036854775809ns", r#"time: invalid duration "-9223372036854775809ns""#),
        ("9223372036854776us", r#"time: invalid duration "9223372036854776us""#),
        ("3000000h", r#"time: invalid duration "3000000h""#),
        ("9223372036854775.808us", r#"time: invalid duration "9223372036854775.808us""#),
        ("9223372036854ms775us808ns", r#"time: invalid duration "9223372036854ms775us808ns""#),
    ] {
        assert_eq!(parse(text).map_err(|e| e.to_string()), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn written_as_go_writes_it() {
    for (nanos, expected) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1\u{b5}s"),
        (2_200_000, "2.2ms"),
        (1_500_000_000, "1.5s"),
        (-1_000_000_000, "-1s"),
        (60_000_000_000, "1m0s"),
        (300_000_000_000, "5m0s"),
        (305_001_000_000, "5m5.001s"),
        (5_400_000_000_000, "1h30m0s"),
        (36_001_000_000_000, "10h0m1s"),
        (i64::MAX, "2562047h47m16.854775807s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(format(SignedDuration::from_nanos(nanos)), expected);
    }
}

/// A term of the grammar, and its value in nanoseconds times 10^12, which a fraction of an hour needs to be exact.
fn term() -> impl Strategy<Value = (String, i128)> {
    (0_u64..100_000, proptest::option::of("[0-9]{0,9}"), 0..UNITS.len()).prop_map(|(whole, fraction, unit)| {
        let (name, scale) = UNITS[unit];
        let digits = fraction.as_deref().unwrap_or("");
        let text = format!("{whole}{}{digits}{name}", if fraction.is_some() { "." } else { "" });
        let parts = format!("{whole}{digits:0<12}").parse::<i128>().unwrap();
        (text, parts * i128::from(scale))
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(nanos in any::<i64>()) {
        let duration = SignedDuration::from_nanos(nanos);
        // Fractions go through f64, so only what it holds exactly comes back exactly.
        let read = parse(&format(duration)).unwrap();
        prop_assert!((read - duration).as_nanos().abs() <= 1, "{read} {duration}");
    }

    #[test]
    fn every_sentence_of_the_grammar_is_read(
        sign in prop_oneof![Just(""), Just("+"), Just("-")],
        terms in proptest::collection::vec(term(), 1..6),
    ) {
        let text = format!("{sign}{}", terms.iter().map(|(text, _)| text.as_str()).collect::<String>());
        let exact: i128 = terms.iter().map(|(_, parts)| parts).sum::<i128>() / 1_000_000_000_000;
        let exact = if sign == "-" { -exact } else { exact };
        // Each fraction is cut to whole nanoseconds, by f64: one nanosecond a term either way.
        prop_assert!((nanos(&text) - exact).abs() <= terms.len() as i128 + 1, "{text}");
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn no_text_that_looks_like_one_makes_it_panic(text in "[-+]?([0-9]{0,20}(\\.[0-9]{0,20})?(ns|us|\u{b5}s|ms|s|m|h|d)?){0,3}") {
        let _ = parse(&text).map_err(|e| e.to_string());
    }
}
