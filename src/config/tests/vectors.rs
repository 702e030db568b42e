//! What the Go version did at start with files of each kind (its recorded runs): accepted or not, and the cause.
//! The wording and the exit code are ours (2 instead of 1: our rule for configuration mistakes).

use super::*;

/// Vector "missing file" and "no config in cwd".
#[test]
fn missing_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nope.yml");
    let error = Config::load(&Source::file(&path)).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("No such file"), "{error}");
    let error = Config::load(&Source::file(directory.path())).err().unwrap().to_string();
    assert!(error.contains("irectory"), "{error}");
}

/// Vector "bad yaml": `line 1: did not find expected node content`.
#[test]
fn bad_yaml() {
    let error = reject("vault: {addr: ]");
    assert_eq!(error.problems().len(), 1);
    assert_eq!(error.problems()[0].line(), Some(1));
    assert!(error.to_string().contains("did not find expected node content"), "{error}");
}

/// Vector "empty": five errors.
#[test]
fn empty() {
    for yaml in ["", "\n", "# nothing\n", "---\n", "~", "{}", "vault:\nkubernetes:\n"] {
        assert_eq!(
            problem_keys(yaml),
            [
                "kubernetes.service",
                "kubernetes.serviceNamespace",
                "kubernetes.watchNamespace",
                "vault.addr",
                "vault.token"
            ],
            "{yaml:?}"
        );
    }
}

/// Vector "contradictory": its four errors, and for ours the two halves besides.
#[test]
fn contradictory() {
    let yaml = with_vault("tls: {vaultCABackends: [root-ca], caCert: /etc/hostname}")
        + "prometheus:\n  tls:\n    vaultCertBackend: pki\n    certFile: /c.pem\n    vaultCABackends: [ca]\n    \
           caCert: /ca.pem\n";
    let error = reject(&yaml);
    let text = error.to_string();
    for (key, other) in [
        ("prometheus.tls.vaultCertBackend", "prometheus.tls.certFile contradict"),
        ("prometheus.tls.vaultCertBackend", "needs prometheus.tls.vaultCertRole"),
        ("prometheus.tls.certFile", "needs prometheus.tls.certKey"),
        ("vault.tls.vaultCABackends", "vault.tls.caCert contradict"),
        ("prometheus.tls.vaultCABackends", "prometheus.tls.caCert contradict"),
        ("prometheus.tls.vaultCABackends", "needs a serving certificate"),
    ] {
        let found = error.problems().iter().any(|p| p.key() == key && p.to_string().contains(other));
        assert!(found, "{key} {other}\n{text}");
    }
    assert_eq!(error.problems().len(), 6, "{text}");
}

/// Vector "half TLS, token from unset env".
#[test]
fn token_from_unset_variable() {
    let yaml = MINIMAL.replace("canary-token", "$VAULT_TOKEN");
    assert_eq!(problem_keys(&yaml), ["vault.token"]);
    let env = |name: &str| (name == "VAULT_TOKEN").then(|| "hvs.abc".to_owned());
    assert!(Config::parse(&yaml, &env).is_ok());
}

/// Vector "scraper CA without certificate".
#[test]
fn scraper_ca_without_certificate() {
    assert_eq!(problem_keys(&with_prometheus("vaultCABackends: [ca]")), ["prometheus.tls.vaultCABackends"]);
    assert_eq!(problem_keys(&with_prometheus("caCert: /ca.pem")), ["prometheus.tls.caCert"]);
}

/// Vector "bad regexp": found when the configuration is read, and not when the client is made.
#[test]
fn bad_regexp() {
    let error = reject(&MINIMAL.replace("Namespace: default", "Namespace: \"~(\""));
    assert_eq!(error.problems()[0].key(), "kubernetes.watchNamespace");
    assert_eq!(error.problems()[0].line(), Some(5));
    assert!(error.to_string().contains("unclosed group"), "{error}");
}
