//! Each key and each rule.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

#[test]
fn defaults() {
    let config = accept(MINIMAL);
    assert_eq!(config.raft_dir, PathBuf::from("/var/lib/kubernetes-vault/"));
    assert_eq!(config.vault.addr.as_str(), "http://vault:8200");
    assert!(!config.vault.addr.is_https());
    assert!(matches!(&config.vault.login, Login::Token(token) if token.expose_secret() == "canary-token"));
    assert!(!config.vault.skip_token_role_name_validation);
    assert_eq!(config.vault.namespace, None);
    assert_eq!(config.vault.approle_mount, "approle");
    assert_eq!(config.vault.wrapping_ttl.as_str(), "60s");
    assert_eq!(config.vault.tls, VaultTls { roots: VaultRoots::Public, server_name: None, client: None });
    assert_eq!(config.kubernetes.watch_namespace.exact(), Some("default"));
    assert_eq!(config.kubernetes.service_namespace, "kube-system");
    assert_eq!(config.kubernetes.service, "kubernetes-vault");
    assert_eq!(config.prometheus, Prometheus { address: ListenAddr::port(80), tls: None });
    assert_eq!(config.health.address, ListenAddr::port(8080));
    assert_eq!(config.log, Log { level: Level::Debug, format: Format::Text });
}

#[test]
fn every_key_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.pem");
    std::fs::write(&file, "x").unwrap();
    let pin = "AB:".repeat(31) + "ab";
    let yaml = format!(
        "raftDir: /raft
vault:
  addr: https://Vault.example:8200/
  kubernetesAuth: {{mount: /k8s/, role: broker, tokenPath: {file}}}
  skipTokenRoleNameValidation: true
  namespace: /org/team/
  approleMount: /team/approle/
  wrappingTTL: 1m30s
  tls:
    vaultCABackends: [root-ca, /team/pki/]
    caFingerprint: {pin}
    serverName: vault.internal
    clientCert: {file}
    clientKey: {file}
kubernetes: {{watchNamespace: \"~^team-\", serviceNamespace: ns, service: svc}}
prometheus:
  address: 127.0.0.1:9090
  tls: {{vaultCertBackend: pki, vaultCertRole: metrics, vaultCABackends: [root-ca]}}
health: {{address: \"[::1]:8081\"}}
log: {{level: WARN, format: json}}
",
        file = file.display()
    );
    let config = accept(&yaml);
    assert_eq!(config.raft_dir, PathBuf::from("/raft"));
    assert!(config.kubernetes.watch_namespace.matches("team-a"));
    let tls = config.prometheus.tls.unwrap();
    let certificate = ServingCertificate::VaultPki { mount: "pki".to_owned(), role: "metrics".to_owned() };
    assert_eq!(tls.certificate, certificate);
    assert_eq!(tls.clients, Some(ClientCas::VaultPki(vec!["root-ca".to_owned()])));
    assert_eq!(config.prometheus.address.to_string(), "127.0.0.1:9090");
    assert_eq!(config.health.address.to_string(), "[::1]:8081");
    assert_eq!(config.log, Log { level: Level::Warn, format: Format::Json });
    check_vault(&config.vault, &file);
}

fn check_vault(vault: &Vault, file: &std::path::Path) {
    // Byte for byte, although the parsed form is in lower case.
    assert_eq!(vault.addr.as_str(), "https://Vault.example:8200/");
    assert_eq!(vault.addr.url().host_str(), Some("vault.example"));
    let Login::Kubernetes(login) = &vault.login else { panic!("another login") };
    assert_eq!((login.mount.as_str(), login.role.as_str(), login.token_path.as_path()), ("k8s", "broker", file));
    assert!(vault.skip_token_role_name_validation);
    assert_eq!(vault.namespace.as_deref(), Some("org/team"));
    assert_eq!(vault.approle_mount, "team/approle");
    assert_eq!(vault.wrapping_ttl.duration(), Duration::from_secs(90));
    let mounts = vec!["root-ca".to_owned(), "team/pki".to_owned()];
    assert_eq!(vault.tls.roots, VaultRoots::PkiMounts { mounts, fingerprints: vec![[0xab; 32]] });
    assert_eq!(vault.tls.server_name.as_deref(), Some("vault.internal"));
    assert_eq!(vault.tls.client, Some(ClientCertificate { cert: file.to_owned(), key: file.to_owned() }));
}

#[test]
fn exactly_one_login() {
    let error = reject(&with_login("")).to_string();
    for key in ["vault.token ", "vault.tokenFile", "vault.kubernetesAuth"] {
        assert!(error.contains(key), "{key}: {error}");
    }
    let error = reject(&with_vault("tokenFile: /etc/hostname")).to_string();
    assert!(error.contains("vault.token (line 3) and vault.tokenFile are both set"), "{error}");
    let error = reject(&with_vault("kubernetesAuth: {role: r, tokenPath: /etc/hostname}")).to_string();
    assert!(error.contains("vault.token (line 3) and vault.kubernetesAuth are both set"), "{error}");
    let yaml = with_vault("tokenFile: /etc/hostname\nkubernetesAuth: {role: r, tokenPath: /etc/hostname}");
    let error = reject(&yaml).to_string();
    assert!(error.contains("vault.tokenFile and vault.kubernetesAuth are all set"), "{error}");
    // What is empty after expansion is not set.
    let (config, warnings) = parse(&with_vault("tokenFile: $UNSET\nkubernetesAuth:")).ok().unwrap();
    assert!(matches!(config.vault.login, Login::Token(_)));
    assert_eq!(warnings.len(), 1);
    assert!(matches!(accept(&with_login("tokenFile: /etc/hostname")).vault.login, Login::TokenFile(_)));
}

#[test]
fn kubernetes_auth() {
    let config = accept(&with_login("kubernetesAuth: {role: r, tokenPath: /etc/hostname}"));
    assert!(matches!(config.vault.login, Login::Kubernetes(auth) if auth.mount == "kubernetes"));
    for (flow, key) in [
        ("{mount: k8s, tokenPath: /etc/hostname}", "role"),
        ("{role: a/b, tokenPath: /etc/hostname}", "role"),
        ("{role: r, mount: a/../b, tokenPath: /etc/hostname}", "mount"),
        ("{role: r, tokenPath: /nonexistent}", "tokenPath"),
        // The default: this is not a pod.
        ("{role: r}", "tokenPath"),
    ] {
        let yaml = with_login(&format!("kubernetesAuth: {flow}"));
        assert_eq!(problem_keys(&yaml), [format!("vault.kubernetesAuth.{key}")], "{flow}");
    }
}

#[test]
fn token_is_one_word() {
    let yaml = with_login("token: |\n  hvs.abc\n");
    assert!(matches!(accept(&yaml).vault.login, Login::Token(token) if token.expose_secret() == "hvs.abc"));
    for token in ["a b", "a\\nb", "é", "a\\u0000"] {
        assert_eq!(problem_keys(&with_login(&format!("token: \"{token}\""))), ["vault.token"], "{token}");
    }
}

#[test]
fn addresses_of_vault() {
    let with = |addr: &str| MINIMAL.replace("http://vault:8200", addr);
    for addr in ["https://vault", "HTTPS://VAULT:8200", "http://[::1]:8200/prefix/", "https://u:p@vault:8200"] {
        assert_eq!(accept(&with(addr)).vault.addr.as_str(), addr);
    }
    for addr in [
        "vault:8200",
        "vault",
        "ftp://vault",
        "http://",
        "\" http://vault\"",
        "\"http://vault\\n\"",
        "http:vault",
        "http://vault?x=1",
        "\"http://vault#x\"",
        "http://vault:99999",
        "unix:///run/vault",
        "http:///vault",
        "http://vault\\path",
    ] {
        let keys = match parse(&with(addr)) {
            Ok((config, _)) => panic!("{addr} taken as {}", config.vault.addr.url()),
            Err(error) => error.problems().iter().map(|p| p.key().to_owned()).collect::<Vec<_>>(),
        };
        assert_eq!(keys, ["vault.addr"], "{addr}");
    }
}

#[test]
fn grammar_of_values() {
    for (lines, key) in [
        ("wrappingTTL: 5M", "vault.wrappingTTL"),
        ("wrappingTTL: 0", "vault.wrappingTTL"),
        ("wrappingTTL: -1s", "vault.wrappingTTL"),
        ("approleMount: a/../b", "vault.approleMount"),
        ("approleMount: /", "vault.approleMount"),
        ("namespace: a b", "vault.namespace"),
        ("skipTokenRoleNameValidation: maybe", "vault.skipTokenRoleNameValidation"),
        ("tls: {serverName: \"a b\"}", "vault.tls.serverName"),
        ("tls: {vaultCABackends: [a, ../b]}", "vault.tls.vaultCABackends[1]"),
        ("tls: {vaultCABackends: [a, \"\"]}", "vault.tls.vaultCABackends[1]"),
        ("tls: {vaultCABackends: a, caFingerprint: abcd}", "vault.tls.caFingerprint"),
        ("tls: {caFingerprint: abcd}", "vault.tls.caFingerprint"),
        ("tls: {caCert: etc/hostname}", "vault.tls.caCert"),
        ("tls: {caCert: /nonexistent}", "vault.tls.caCert"),
        ("tls: {caCert: /tmp}", "vault.tls.caCert"),
        ("tls: {clientCert: /etc/hostname}", "vault.tls.clientCert"),
        ("tls: {clientKey: /etc/hostname}", "vault.tls.clientKey"),
        ("tls: {clientCert: /etc/hostname, clientKey: /nonexistent}", "vault.tls.clientKey"),
    ] {
        let mut keys = problem_keys(&with_vault(lines));
        keys.dedup();
        assert_eq!(keys, [key], "{lines}");
    }
    assert_eq!(problem_keys(&with_login("tokenFile: /nonexistent")), ["vault.tokenFile"]);
}

#[test]
fn grammar_of_values_elsewhere() {
    for (old, new, key) in [
        ("service: kubernetes-vault", "service: a/b", "kubernetes.service"),
        ("serviceNamespace: kube-system", "serviceNamespace: ..", "kubernetes.serviceNamespace"),
        ("watchNamespace: default", "watchNamespace: a/b", "kubernetes.watchNamespace"),
        ("watchNamespace: default", "watchNamespace: ~", "kubernetes.watchNamespace"),
    ] {
        assert_eq!(problem_keys(&MINIMAL.replace(old, new)), [key], "{new}");
    }
    for (section, key) in [
        ("log: {level: loud}", "log.level"),
        ("log: {format: xml}", "log.format"),
        ("health: {address: localhost:1}", "health.address"),
        ("prometheus: {address: 1.2.3.4}", "prometheus.address"),
        ("prometheus: {address: ':8080'}", "prometheus.address"),
        ("health: {address: 127.0.0.1:80}", "health.address"),
    ] {
        assert_eq!(problem_keys(&format!("{MINIMAL}{section}\n")), [key], "{section}");
    }
}

#[test]
fn unreadable_file_is_named() {
    let error = reject(&with_vault("tls: {caCert: /nonexistent/ca.pem}")).to_string();
    assert!(error.contains("vault.tls.caCert (line 4)") && error.contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn prometheus_tls() {
    let tls = accept(&with_prometheus("certFile: /not/there.pem, certKey: /not/there.key")).prometheus;
    assert_eq!(tls.address, ListenAddr::port(443));
    let tls = accept(&with_prometheus("certFile: /a, certKey: /b, caCert: /c")).prometheus.tls.unwrap();
    assert_eq!(tls.clients, Some(ClientCas::File("/c".into())));
    for (flow, keys) in [
        ("vaultCertBackend: pki", vec!["prometheus.tls.vaultCertBackend"]),
        ("vaultCertRole: r", vec!["prometheus.tls.vaultCertRole"]),
        ("certFile: /a", vec!["prometheus.tls.certFile"]),
        ("certKey: /a", vec!["prometheus.tls.certKey"]),
        ("certKey: /a, certFile: /b, vaultCertBackend: p, vaultCertRole: r", vec!["prometheus.tls.vaultCertBackend"]),
        ("certKey: /a, certFile: /b, vaultCABackends: a, caCert: /b", vec!["prometheus.tls.vaultCABackends"]),
        ("vaultCertBackend: a/../b, vaultCertRole: r, caCert: /c", vec!["prometheus.tls.vaultCertBackend"]),
        ("vaultCertBackend: a, vaultCertRole: r/s", vec!["prometheus.tls.vaultCertRole"]),
    ] {
        assert_eq!(problem_keys(&with_prometheus(flow)), keys, "{flow}");
    }
}
