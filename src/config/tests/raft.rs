//! The section `raft`: by what peers are known, and how the times go together.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

const FIRST: &str = "6b1f0c9d2e3a4b5c6d7e8f90a1b2c3d4canary-one";
const SECOND: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0canary-two";
const GENERATED: &str = "hvs.zcRGGjMGDpYdaYbhRdrEcoxC";
const FILES: &str = "tls: {certFile: /etc/hostname, certKey: /etc/hosts, caCert: /etc/passwd}";

/// What the only warning says.
fn only_warning(yaml: &str) -> String {
    let list = warnings(yaml);
    assert_eq!(list.len(), 1, "{list:?}");
    list.into_iter().next().unwrap()
}

fn identity(yaml: &str) -> PeerIdentity {
    parse(yaml).map_or_else(|error| panic!("{error}"), |(config, _)| config.raft.identity)
}

#[test]
fn defaults() {
    let raft = accept(MINIMAL).raft;
    assert_eq!(raft.cluster_name, "");
    assert_eq!(raft.peers, []);
    assert_eq!(raft.leave_on_terminate, LeaveOnTerminate::Auto);
    let Timing { heartbeat, election_min, election_max, dead_server_grace } = raft.timing;
    assert_eq!([heartbeat, election_min, election_max].map(|time| time.as_millis()), [60, 150, 300]);
    assert_eq!(dead_server_grace, Duration::from_mins(10));
}

#[test]
fn every_key_is_read() {
    let raft = accept(&with_raft(&format!(
        "secrets: [{FIRST}, {SECOND}], clusterName: blue, peers: [kv-0, 'kv-1:45679', '[fd00::1]:45679'], heartbeat: 100ms, \
         electionMin: 0.5s, electionMax: 1s, deadServerGrace: 1h, leaveOnTerminate: Always"
    )))
    .raft;
    let PeerIdentity::Secrets(first, Some(second)) = &raft.identity else { panic!("another identity") };
    assert_eq!([first.expose_secret(), second.expose_secret()], [FIRST, SECOND]);
    assert_eq!(raft.cluster_name, "blue");
    assert_eq!(
        raft.peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["kv-0", "kv-1:45679", "[fd00::1]:45679"]
    );
    let Timing { heartbeat, election_min, election_max, dead_server_grace } = raft.timing;
    assert_eq!([heartbeat, election_min, election_max].map(|time| time.as_millis()), [100, 500, 1000]);
    assert_eq!(dead_server_grace, Duration::from_hours(1));
    assert_eq!(raft.leave_on_terminate, LeaveOnTerminate::Always);
}

/// Files, then secrets, then the token that all share, then nothing.
#[test]
fn the_first_identity_that_is_configured_is_in_force() {
    let generated = MINIMAL.replace("canary-token", GENERATED);
    assert!(matches!(identity(&generated), PeerIdentity::Token(token) if token.expose_secret() == GENERATED));
    let secrets = format!("{generated}raft: {{secrets: {FIRST}}}\n");
    assert!(matches!(identity(&secrets), PeerIdentity::Secrets(first, None) if first.expose_secret() == FIRST));
    let files = PeerFiles { cert: "/etc/hostname".into(), key: "/etc/hosts".into(), ca: "/etc/passwd".into() };
    let yaml = format!("{generated}raft: {{{FILES}}}\n");
    assert!(warnings(&yaml).is_empty());
    assert!(matches!(identity(&yaml), PeerIdentity::Files(found) if found == files));

    let yaml = with_raft(&format!("{FILES}, secrets: {FIRST}"));
    assert!(matches!(identity(&yaml), PeerIdentity::Files(_)));
    let warning = only_warning(&yaml);
    assert!(warning.starts_with("raft.secrets (line 8) is not used") && warning.contains("raft.tls"), "{warning}");
    let warning = only_warning(&with_raft(&format!("{FILES}, clusterName: blue")));
    assert!(warning.starts_with("raft.clusterName (line 8) has no effect"), "{warning}");
}

#[test]
fn without_a_shared_secret_there_is_no_identity() {
    for (yaml, what) in [
        (MINIMAL.to_owned(), "vault.token"),
        (with_login("tokenFile: /etc/hostname"), "vault.tokenFile"),
        (with_login("kubernetesAuth: {role: r, tokenPath: /etc/hostname}"), "vault.kubernetesAuth"),
    ] {
        let PeerIdentity::None { why } = identity(&yaml) else { panic!("an identity from {yaml}") };
        assert!(why.contains(what), "{why}");
        // It is the way out for all of them.
        let with_secret = format!("{yaml}raft: {{secrets: {FIRST}}}\n");
        assert!(matches!(identity(&with_secret), PeerIdentity::Secrets(..)));
    }
}

#[test]
fn secrets_are_one_or_two_that_nobody_guesses() {
    let long = "a".repeat(64);
    for (secrets, keys) in [
        ("short".to_owned(), vec!["raft.secrets"]),
        (format!("[{FIRST}, short]"), vec!["raft.secrets[1]"]),
        (format!("[{FIRST}, {SECOND}, {FIRST}x]"), vec!["raft.secrets"]),
        (format!("[{FIRST}, {FIRST}]"), vec!["raft.secrets"]),
        (format!("[{FIRST}, ' {FIRST} ']"), vec!["raft.secrets"]),
        (format!("[{FIRST}, '']"), vec!["raft.secrets[1]"]),
        (long, vec!["raft.secrets"]),
        // Not: go on with the token instead.
        ("$UNSET".to_owned(), vec!["raft.secrets"]),
        ("[]".to_owned(), vec!["raft.secrets"]),
        (String::new(), vec!["raft.secrets"]),
        ("[$UNSET]".to_owned(), vec!["raft.secrets[0]"]),
        (format!("{{a: {FIRST}}}"), vec!["raft.secrets"]),
    ] {
        let yaml = with_raft(&format!("secrets: {secrets}"));
        assert_eq!(problem_keys(&yaml), keys, "{secrets}");
        assert!(!reject(&yaml).to_string().contains("canary"));
    }
    // 32 bytes as openssl prints them, with the newline of a file; one text for two.
    let hex = "0123456789abcdef".repeat(2);
    let yaml = with_raft(&format!("secrets: \"{hex}\\n\""));
    assert!(matches!(identity(&yaml), PeerIdentity::Secrets(first, None) if first.expose_secret() == hex));
    let env = |name: &str| (name == "BOTH").then(|| format!("{FIRST},{SECOND}"));
    let (config, _) = Config::parse(&with_raft("secrets: $BOTH"), &env).ok().unwrap();
    assert!(matches!(config.raft.identity, PeerIdentity::Secrets(_, Some(second)) if second.expose_secret() == SECOND));
}

#[test]
fn files_come_all_three_or_not_at_all() {
    for (flow, key, says) in [
        ("certFile: /etc/hostname", "certFile", "needs raft.tls.certKey and raft.tls.caCert to be set"),
        ("certKey: /etc/hostname, caCert: /etc/hostname", "certKey", "needs raft.tls.certFile to be set"),
        ("caCert: /etc/hostname", "caCert", "needs raft.tls.certFile and raft.tls.certKey"),
        ("certFile: /etc/hostname, certKey: /nonexistent, caCert: /etc/hostname", "certKey", "/nonexistent"),
        ("certFile: /etc, certKey: /etc/hostname, caCert: /etc/hostname", "certFile", "not a regular file"),
    ] {
        let yaml = with_raft(&format!("tls: {{{flow}}}"));
        assert_eq!(problem_keys(&yaml), [format!("raft.tls.{key}")], "{flow}");
        let error = reject(&yaml).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn certificates_from_vault_come_first_and_their_cas_from_the_same_mount_unless_named() {
    let pki = |flow: &str| {
        let yaml =
            with_raft(&format!("tls: {{vaultCertBackend: pki/peers, vaultCertRole: peer{flow}}}, secrets: {FIRST}"));
        let warning = only_warning(&yaml);
        assert!(
            warning.contains("raft.secrets") && warning.contains("certificates of raft.tls come first"),
            "{warning}"
        );
        match identity(&yaml) {
            PeerIdentity::VaultPki(pki) => pki,
            _ => panic!("another identity"),
        }
    };
    let (mount, role) = ("pki/peers".to_owned(), "peer".to_owned());
    assert_eq!(pki(""), PeerPki { cas: vec![mount.clone()], mount: mount.clone(), role: role.clone() });
    let named = pki(", vaultCABackends: [old, new]");
    assert_eq!(named, PeerPki { mount, role, cas: vec!["old".to_owned(), "new".to_owned()] });
}

#[test]
fn half_of_what_vault_needs_to_issue_for_peers_is_refused_whatever_else_there_is() {
    for (flow, key, says) in [
        ("caCert: $UNSET_IN_TESTS", "caCert", "is empty"),
        ("vaultCABackends: $UNSET_IN_TESTS", "vaultCABackends", "is empty"),
        ("vaultCertRole: peer", "vaultCertRole", "needs raft.tls.vaultCertBackend"),
        ("vaultCertBackend: pki", "vaultCertBackend", "needs raft.tls.vaultCertRole"),
        ("vaultCABackends: pki", "vaultCABackends", "needs raft.tls.vaultCertBackend and raft.tls.vaultCertRole"),
        ("vaultCertBackend: a/../b, vaultCertRole: peer", "vaultCertBackend", "mount"),
        ("vaultCertBackend: pki, vaultCertRole: a/b", "vaultCertRole", "no slashes"),
        (
            "vaultCertBackend: pki, vaultCertRole: peer, caCert: /etc/hosts",
            "vaultCertBackend",
            "raft.tls.caCert contradict",
        ),
        ("certFile: /etc/hosts, vaultCABackends: pki", "vaultCABackends", "raft.tls.certFile contradict"),
    ] {
        let yaml = with_raft(&format!("tls: {{{flow}}}, secrets: {FIRST}"));
        assert_eq!(problem_keys(&yaml), [format!("raft.tls.{key}")], "{flow}");
        let error = reject(&yaml).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn times_must_go_together() {
    for (flow, key, says) in [
        ("heartbeat: 75ms", "heartbeat", "no more than 2 times"),
        ("electionMin: 120ms", "electionMin", "no more than 2 times"),
        ("electionMin: 300ms", "electionMin", "not less than raft.electionMax"),
        ("electionMax: 150ms", "electionMax", "not less than raft.electionMax"),
        ("electionMin: 20s, electionMax: 40s, deadServerGrace: 1m", "deadServerGrace", "less than 3 times"),
        ("heartbeat: 1ms", "heartbeat", "from 5ms to 10s"),
        ("heartbeat: 11s", "heartbeat", "from 5ms to 10s"),
        ("heartbeat: 60", "heartbeat", "must be a duration"),
        ("heartbeat: 60.5ms", "heartbeat", "whole milliseconds"),
        ("heartbeat: -60ms", "heartbeat", "must be a duration"),
        ("heartbeat: 0", "heartbeat", "must be a duration"),
        ("electionMax: 2m", "electionMax", "to 60s"),
        ("deadServerGrace: 0s", "deadServerGrace", "from 1s"),
        ("deadServerGrace: 721h", "deadServerGrace", "to 2592000s"),
    ] {
        let yaml = with_raft(flow);
        assert_eq!(problem_keys(&yaml), [format!("raft.{key}")], "{flow}");
        let error = reject(&yaml).to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(accept(&with_raft("heartbeat: 74ms")).raft.timing.heartbeat, Duration::from_millis(74));
    // A testbed that cannot wait.
    accept(&with_raft("heartbeat: 10ms, electionMin: 30ms, electionMax: 60ms, deadServerGrace: 2s"));
}

#[test]
fn the_rest_is_checked_too() {
    for (flow, key) in [
        ("leaveOnTerminate: sometimes", "raft.leaveOnTerminate"),
        ("clusterName: Not A Name", "raft.clusterName"),
        ("peers: [a, 'http://b']", "raft.peers[1]"),
        ("peers: [a, A]", "raft.peers[1]"),
        ("peers: 'a,b:0'", "raft.peers"),
        ("peers: {a: b}", "raft.peers"),
    ] {
        assert_eq!(problem_keys(&with_raft(flow)), [key], "{flow}");
    }
    for (text, want) in
        [("auto", LeaveOnTerminate::Auto), ("never", LeaveOnTerminate::Never), ("ALWAYS", LeaveOnTerminate::Always)]
    {
        assert_eq!(accept(&with_raft(&format!("leaveOnTerminate: {text}"))).raft.leave_on_terminate, want);
    }
}
