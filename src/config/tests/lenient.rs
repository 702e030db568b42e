//! What section 3 of the reference's behaviour lets pass.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

fn mounts(yaml: &str) -> Vec<String> {
    match accept(yaml).vault.tls.roots {
        VaultRoots::PkiMounts { mounts, .. } => mounts,
        _ => panic!("no mounts"),
    }
}

fn https(yaml: &str) -> String {
    yaml.replace("http://", "https://")
}

#[test]
fn keys_without_case() {
    let config = accept(
        "VAULT: {ADDR: 'http://v', Token: t, WRAPPINGttl: 5s}
Kubernetes: {watchnamespace: Default, servicenamespace: a, SERVICE: b}
RAFTDIR: /r
",
    );
    assert_eq!(config.vault.wrapping_ttl.as_str(), "5s");
    assert_eq!(config.kubernetes.watch_namespace.exact(), Some("default"));
    assert_eq!(config.raft_dir, PathBuf::from("/r"));
}

#[test]
fn scalar_for_a_list() {
    let with = |value: &str| https(&with_vault(&format!("tls: {{vaultCABackends: {value}}}")));
    assert_eq!(mounts(&with("root-ca")), ["root-ca"]);
    assert_eq!(mounts(&with("[root-ca]")), ["root-ca"]);
    assert_eq!(mounts(&with("'root-ca, team'")), ["root-ca", "team"]);
    assert_eq!(mounts(&with("7")), ["7"]);
    assert_eq!(accept(&https(&with_vault("tls: {VaultCABackends: []}"))).vault.tls.roots, VaultRoots::Public);
}

#[test]
fn number_for_a_text() {
    let yaml = MINIMAL.replace("canary-token", "0123456").replace("Namespace: default", "Namespace: 1e3");
    let config = accept(&yaml.replace("  service:", "  service: 7\n#"));
    assert!(matches!(config.vault.login, Login::Token(token) if token.expose_secret() == "0123456"));
    assert_eq!(config.kubernetes.watch_namespace.exact(), Some("1e3"));
    assert_eq!(config.kubernetes.service, "7");
    let ttl = accept(&with_vault("wrappingTTL: 60")).vault.wrapping_ttl;
    assert_eq!((ttl.as_str(), ttl.duration().as_secs()), ("60", 60));
}

#[test]
fn text_for_a_boolean() {
    for (value, want) in [
        ("true", true),
        ("\"true\"", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("'False'", false),
        ("0", false),
        ("no", false),
        ("", false),
        ("~", false),
    ] {
        let config = accept(&with_vault(&format!("skipTokenRoleNameValidation: {value}")));
        assert_eq!(config.vault.skip_token_role_name_validation, want, "{value}");
    }
}

#[test]
fn variables_are_expanded_after_parsing() {
    let env = |name: &str| match name {
        "ADDR" => Some("http://vault:8200".to_owned()),
        // Would be another key, if the text of the file were expanded.
        "TOKEN" => Some("x\", \"skipTokenRoleNameValidation\": \"true".to_owned()),
        "CA" => Some("one".to_owned()),
        _ => None,
    };
    let yaml = https(&MINIMAL.replace("http://vault:8200", "${ADDR}/p"));
    let (config, _) = Config::parse(&yaml, &env).ok().unwrap();
    assert_eq!(config.vault.addr.as_str(), "http://vault:8200/p");
    let yaml = MINIMAL.replace("canary-token", "\"$TOKEN\"");
    let keys = Config::parse(&yaml, &env).err().unwrap();
    assert_eq!(keys.problems()[0].key(), "vault.token");
    let yaml = https(&with_vault("tls: {vaultCABackends: [$CA, two]}"));
    let (config, _) = Config::parse(&yaml, &env).ok().unwrap();
    let mounts = vec!["one".to_owned(), "two".to_owned()];
    assert_eq!(config.vault.tls.roots, VaultRoots::PkiMounts { mounts, fingerprints: Vec::new() });
}

#[test]
fn yaml_beyond_the_plain() {
    // Anchors and merge keys, which the Go version's parser had.
    let yaml = "
x-names: &names {serviceNamespace: a, service: b}
vault: {addr: 'http://v', token: !!str 42}
kubernetes:
  <<: *names
  service: mine
  watchNamespace: !local default
";
    let (config, warnings) = parse(yaml).ok().unwrap();
    assert_eq!(config.kubernetes.service_namespace, "a");
    assert_eq!(config.kubernetes.service, "mine");
    assert!(matches!(config.vault.login, Login::Token(token) if token.expose_secret() == "42"));
    assert_eq!(warnings.iter().map(Warning::key).collect::<Vec<_>>(), ["x-names"]);
    // Only the first document is read.
    let list = self::warnings(&format!("---\n{MINIMAL}---\nvault: 1\n"));
    assert!(list.len() == 1 && list[0].contains("more than one YAML document"), "{list:?}");
    // JSON is YAML; so is a file with a byte order mark and Windows' line ends.
    accept(
        "{\"vault\": {\"addr\": \"http://v\", \"token\": \"t\"}, \"kubernetes\": {\"watchNamespace\": \"a\", \
            \"serviceNamespace\": \"b\", \"service\": \"c\"}}",
    );
    accept(&format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n")));
}

proptest! {
    /// The address reaches pods byte for byte.
    #[test]
    fn address_is_kept(host in "[A-Za-z][A-Za-z0-9]{0,8}", port in 1..=65535_u16, path in "(/[a-zA-Z0-9._~-]{0,5}){0,3}") {
        let addr = format!("http://{host}:{port}{path}");
        let config = accept(&MINIMAL.replace("http://vault:8200", &addr));
        prop_assert_eq!(config.vault.addr.as_str(), addr);
    }

    /// Nothing that can stand in a file makes reading panic.
    #[test]
    fn never_panics(yaml in "[ a-z:{}\\[\\]\"'|>&*!~<$\\-\n#,?%@`]{0,60}") {
        drop(parse(&yaml));
        drop(parse(&format!("vault:\n  addr: {yaml}\n")));
    }
}
