//! The section `limits`.

use super::*;
use crate::domain::limits::{Limits, Rate};

fn with_limits(flow: &str) -> String {
    format!("{MINIMAL}limits: {{{flow}}}\n")
}

#[test]
fn defaults_and_every_key() {
    assert_eq!(accept(MINIMAL).limits, Limits::default());
    let limits = accept(&with_limits(
        "inFlight: 50, vaultRequestsPerSecond: 200, perRolePerSecond: '0.5', perNamespacePerSecond: 12.25",
    ))
    .limits;
    let want = Limits {
        in_flight: 50,
        vault: Rate::per_second(200),
        role: Rate::from_thousandths(500).unwrap(),
        namespace: Rate::from_thousandths(12_250).unwrap(),
    };
    assert_eq!(limits, want);
}

#[test]
fn zero_negative_numbers_and_nonsense_are_told_with_what_is_accepted() {
    for key in ["vaultRequestsPerSecond", "perRolePerSecond", "perNamespacePerSecond"] {
        for value in ["0", "0.009", "-1", "1000001", "fast", "5/s", "1e3", "0.0001", "[1]", "{a: 1}"] {
            let yaml = with_limits(&format!("{key}: {value}"));
            assert_eq!(problem_keys(&yaml), [format!("limits.{key}")], "{value}");
        }
        let error = reject(&with_limits(&format!("{key}: 0"))).to_string();
        assert!(
            error.contains("(line 8) must be a number a second such as 200 or 0.5, from 0.01 to 1000000"),
            "{error}"
        );
    }
    for value in ["0", "-1", "2.5", "10001", "all", "1e3"] {
        let yaml = with_limits(&format!("inFlight: {value}"));
        assert_eq!(problem_keys(&yaml), ["limits.inFlight"], "{value}");
    }
    let error = reject(&with_limits("inFlight: 0")).to_string();
    assert!(error.contains("must be a whole number of deliveries, from 1 to 10000"), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let yaml = with_limits("inFlight: 0, vaultRequestsPerSecond: 0, perRolePerSecond: x, perNamespacePerSecond: -1");
    assert_eq!(reject(&yaml).problems().len(), 4);
}
