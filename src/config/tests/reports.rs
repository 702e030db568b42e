//! What problems and warnings say, and what they never say.

use proptest::prelude::*;

use super::*;
use crate::config::reference::KEYS;

/// Every mistake of the table in one message, each with its key, its line and what is accepted.
#[test]
fn everything_at_once() {
    let yaml = "\
vault:
  addr: vault:8200
  tokenFile: /nonexistent/token
  wrappingTTL: 5M
  WrappingTtl: 6M
  tls:
    caCert: [a]
kubernetes:
  watchNamespace: '~('
  service: {}
log: loud
";
    let error = reject(yaml);
    let found: Vec<(&str, Option<usize>)> = error.problems().iter().map(|p| (p.key(), p.line())).collect();
    assert_eq!(
        found,
        [
            ("vault.WrappingTtl", Some(5)),
            ("vault.addr", Some(2)),
            ("vault.tokenFile", Some(3)),
            ("vault.wrappingTTL", Some(4)),
            ("vault.tls.caCert", Some(7)),
            ("kubernetes.watchNamespace", Some(9)),
            ("kubernetes.serviceNamespace", None),
            ("kubernetes.service", Some(10)),
            ("kubernetes.service", Some(10)),
            ("log", Some(11)),
        ]
    );
    let text = error.to_string();
    assert!(
        text.starts_with("the configuration has 10 problems:\n\n* vault.WrappingTtl (line 5) is set twice"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2 + 10, "{text}");
}

#[test]
fn duplicates_at_every_level() {
    for (yaml, key, line) in [
        (format!("{MINIMAL}vault: {{}}\n"), "vault", 8),
        (with_vault("ADDR: http://x"), "vault.ADDR", 4),
        (with_prometheus("certFile: a, certKey: b, CERTKEY: c"), "prometheus.tls.CERTKEY", 9),
    ] {
        let error = reject(&yaml);
        let found = error.problems().iter().find(|p| p.to_string().contains("set twice"));
        let found = found.map(|p| (p.key(), p.line()));
        assert_eq!(found, Some((key, Some(line))), "{error}");
    }
}

#[test]
fn lines_of_list_items_and_merged_keys() {
    let error = reject(&with_vault("tls:\n  vaultCABackends:\n    - a\n    - ../b"));
    assert_eq!(error.problems()[0].to_string().split(" must").next(), Some("vault.tls.vaultCABackends[1] (line 7)"));
    let error = reject(&MINIMAL.replace("  addr:", "  <<: {wrappingTTL: x}\n  addr:"));
    assert_eq!((error.problems()[0].key(), error.problems()[0].line()), ("vault.wrappingTTL", Some(2)));
}

#[test]
fn unknown_key_is_a_warning_with_the_nearest() {
    for (yaml, start, nearest) in [
        (with_vault("adr: x"), "vault.adr (line 4)", "vault.addr"),
        (with_vault("aproleMount: x"), "vault.aproleMount (line 4)", "vault.approleMount"),
        (with_vault("tls: {caFile: x}"), "vault.tls.caFile (line 4)", "vault.tls.caCert"),
        (format!("{MINIMAL}watchNamespace: x\n"), "watchNamespace (line 8)", "kubernetes.watchNamespace"),
        (format!("{MINIMAL}promethius: {{tls: {{certFile: x}}}}\n"), "promethius (line 8)", "prometheus"),
        (format!("{MINIMAL}raft: {{secret: x}}\n"), "raft.secret (line 8)", "raft.secrets"),
        (format!("{MINIMAL}raft_dir: x\n"), "raft_dir (line 8)", "raftDir"),
    ] {
        let list = warnings(&yaml);
        assert_eq!(list.len(), 1, "{list:?}");
        assert!(list[0].starts_with(start), "{list:?}");
        assert!(list[0].ends_with(&format!("the nearest known key is {nearest}")), "{list:?}");
    }
}

/// The warning is what explains the problem.
#[test]
fn warnings_go_with_the_problems() {
    let error = reject(&MINIMAL.replace("  addr:", "  adr:")).to_string();
    assert!(error.starts_with("the configuration has 1 problem:\n\n* vault.addr is required"), "{error}");
    assert!(error.contains("\n\nand 1 warning:\n\n* vault.adr (line 2) is an unknown key"), "{error}");
}

/// What follows a slip of the indentation is not dropped silently.
#[test]
fn broken_rest_is_a_syntax_error() {
    let error = reject(&format!(" {MINIMAL}"));
    assert!(error.to_string().contains("is not valid YAML"), "{error}");
}

#[test]
fn odd_but_working() {
    let list = warnings(&with_vault("tls: {serverName: vault}"));
    assert!(list.len() == 1 && list[0].contains("vault.tls (line 4) has no effect"), "{list:?}");
    let list = warnings(&with_vault("approleMount: auth/approle"));
    assert!(list.len() == 1 && list[0].contains("auth/auth"), "{list:?}");
    let list = warnings(&with_vault("wrappingTTL: $UNSET"));
    assert!(list.len() == 1 && list[0].contains("counts as not set"), "{list:?}");
}

/// A file where a secret is pasted stays unnamed; so does a key that is one.
#[test]
fn misplaced_secrets_are_not_repeated() {
    let secret = "hvs.CAESIJcanarycanarycanary";
    for yaml in [
        with_login(&format!("tokenFile: {secret}")),
        with_vault(&format!("{secret}: x\nwrappingTTL: x")),
        with_raft(&format!("tls: {{certFile: {secret}, certKey: /etc/hostname, caCert: /etc/hostname}}")),
        with_raft(&format!("secrets: [{secret}]")),
        with_raft(&format!("peers: ['{secret}:x'], heartbeat: {secret}, leaveOnTerminate: {secret}")),
        with_vault(&format!("tls: {{clientKey: \"-----BEGIN KEY-----\\n/{secret}\", clientCert: /etc/hostname}}")),
        // Syntax errors right beside it.
        format!("vault:\n  token: {secret}\n  addr: [x\nkubernetes: }}\n"),
        format!("vault:\n  token: \"{secret}\n  addr: x\n"),
        format!("vault:\n  token: !!int {secret}\n"),
        format!("vault:\n  token: !!bool {secret}\n"),
        format!("vault:\n  token: *{secret}\n"),
        format!("vault:\n  ? [{secret}]\n  : x\n"),
        format!("vault:\n\ttoken: {secret}\n"),
        format!("vault:\n  token:{secret}\n"),
        secret.to_owned(),
        format!("- {secret}"),
    ] {
        let error = reject(&yaml);
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever key a secret lands at, and in whatever form, no message repeats it.
    #[test]
    fn no_value_is_ever_printed(
        key in proptest::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>()),
        secret in "[a-z0-9$ ~(*/{-]{0,6}canary7Q[a-z0-9)/*.-]{0,6}",
        form in 0..4,
    ) {
        // Paths of files that are opened are named in their problem; that they are no secrets is tested above.
        let names_a_file =
            ["tokenFile", "tokenPath", "caCert", "clientCert", "clientKey", "raft.tls.certFile", "raft.tls.certKey"];
        prop_assume!(!names_a_file.iter().any(|name| key.ends_with(name)));
        let secret = match form {
            0 => format!("'{secret}'"),
            1 => secret,
            2 => format!("['{secret}', {{a: '{secret}'}}]"),
            _ => format!("{{a: '{secret}'}}"),
        };
        let mut yaml = String::new();
        for (depth, part) in key.split('.').enumerate() {
            yaml.push_str(&format!("\n{}{part}:", "  ".repeat(depth)));
        }
        yaml.push_str(&format!(" {secret}\n"));
        let text = match parse(&yaml) {
            Ok((_, warnings)) => format!("{warnings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!text.contains("canary7Q"), "{}", text);
        // The same where everything else is right, so that warnings are seen as well.
        let (_, warnings) = match parse(&format!("{MINIMAL}{yaml}")) {
            Ok(read) => read,
            Err(error) => {
                prop_assert!(!format!("{error:?}{error}").contains("canary7Q"), "{}", error);
                return Ok(());
            }
        };
        let text = format!("{warnings:?}");
        prop_assert!(!text.contains("canary7Q"), "{}", text);
    }
}

/// Each key of the list is read by a section: a list in its place is a problem there, or is taken as a list.
#[test]
fn every_listed_key_has_a_reader() {
    for key in KEYS.iter().map(|key| key.name) {
        let mut yaml = String::new();
        for (depth, part) in key.split('.').enumerate() {
            yaml.push_str(&format!("\n{}{part}:", "  ".repeat(depth)));
        }
        yaml.push_str(" [{a: b}]\n");
        let error = reject(&yaml);
        assert!(error.problems().iter().any(|p| p.key().starts_with(key)), "{key} is read by nobody: {error}");
    }
}
