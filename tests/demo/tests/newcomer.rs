//! The demo as a newcomer runs it: it succeeds, ends by itself, and prints no secret in full.
//!
//! It needs what `make test` has built before: the controller beside the demo, and the two static programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The length of an id as Vault makes it: a `role_id` or a `secret_id`.
const UUID: usize = 36;
/// As much of a token as may be shown: its kind, and two characters that tell two of them apart.
const SHOWN_OF_A_TOKEN: usize = "hvs.CA".len();

/// A machine that is busy, and programs that are not optimised, may take their time; an hour is none.
const GAP_MAX_MS: u64 = 30_000;

/// What the Makefile says, or where cargo puts it.
fn static_program(variable: &str, name: &str) -> PathBuf {
    // <target>/<profile>/demo
    let target = Path::new(env!("CARGO_BIN_EXE_demo")).ancestors().nth(2).expect("cargo's layout");
    let built = || target.join("x86_64-unknown-linux-musl/init");
    std::env::var_os(variable).map_or_else(|| built().join(name), PathBuf::from)
}

/// Whatever has the form of a token, with the characters that follow.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("hvs.").map(|(at, _)| {
        let rest = &text[at..];
        let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        &rest[..rest.find(|c| !token(c)).unwrap_or(rest.len())]
    })
}

fn uuids(text: &str) -> BTreeSet<&str> {
    let hex_or_dash = |c: char| c.is_ascii_hexdigit() || c == '-';
    let words = text.split(|c| !hex_or_dash(c));
    words.filter(|word| word.len() == UUID && word.matches('-').count() == 4).collect()
}

/// The times, in milliseconds, of all lines that end so.
fn gaps(printed: &str, end: &str) -> Vec<u64> {
    let line = |line: &str| {
        let time = line.strip_suffix(end)?.rsplit_once(" s  ")?.1;
        match time.strip_suffix(" ms") {
            Some(millis) => millis.parse().ok(),
            None => time.strip_suffix(" s")?.replace('.', "").parse::<u64>().ok().map(|tenths| tenths * 100),
        }
    };
    printed.lines().filter_map(line).collect()
}

/// The story of three controllers, as far as it can be read from outside.
fn assert_failover(printed: &str) {
    for (what, times) in [
        ("three voters, one leader", 3),
        ("10 tokens, one in each pod", 2),
        ("10 logins, one for each pod", 2),
        (" -- kubernetes-vault status", 2),
        ("that is no quorum", 1),
    ] {
        assert_eq!(printed.matches(what).count(), times, "{what:?}:\n{printed}");
    }
    // The time, a pod, and who served it.
    let served = |line: &&str| line.contains(" ms  sample-app-") && line.contains("  kubernetes-vault-");
    assert_eq!(printed.lines().filter(served).count(), 20, "{printed}");
    for end in [" from the kill to the next accepted push", " from the cut to the next accepted push"] {
        let gaps = gaps(printed, end);
        assert!(gaps.len() == 1 && gaps[0] < GAP_MAX_MS, "{end:?}: {gaps:?}\n{printed}");
    }
}

#[test]
fn the_demo_succeeds_ends_by_itself_and_prints_no_secret_in_full() {
    let controller = Path::new(env!("CARGO_BIN_EXE_demo")).with_file_name("kubernetes-vault");
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--exit")
        .env("KV_CONTROLLER_BIN", controller)
        .env("KV_INIT_BIN", static_program("KV_INIT_BIN", "kubernetes-vault-init"))
        .env("KV_SAMPLE_BIN", static_program("KV_SAMPLE_BIN", "sample-app"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{:?}\n{printed}", output.status);
    assert!(printed.contains("hello from Vault"), "no application has read its secret:\n{printed}");
    assert!(printed.contains("All of it worked."), "{printed}");
    assert_failover(&printed);
    assert!(tokens(&printed).next().is_some(), "the tokens are not shown at all:\n{printed}");
    for token in tokens(&printed) {
        assert!(token.len() <= SHOWN_OF_A_TOKEN, "a token is shown in full: {} characters of it", token.len());
    }
    // A role_id is no secret, and the one id that may be shown whole.
    assert_eq!(uuids(&printed).len(), 1, "another id than the role_id is shown:\n{printed}");
}
