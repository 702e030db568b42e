//! controller-start.txt: arguments and configuration files, good and bad.

use anyhow::{Result, bail, ensure};

use crate::case::Case;
use crate::controller::program;
use crate::init_environment::same_version_line;
use crate::process::Ended;
use crate::vectors::{Section, sections};

/// Design: a mistake on the command line or in the configuration is exit code 2. The Go version said 1 (or 255).
const USAGE: i32 = 2;
/// Design: no API server or Vault to work with is exit code 1, as the Go version says.
const UNUSABLE: i32 = 1;

const GOOD: &str = "vault: {addr: 'http://127.0.0.1:8200', token: hvs.CANARY}\n\
                    kubernetes: {watchNamespace: default, serviceNamespace: default, service: kubernetes}\n";

/// A file, our exit code, and what our message must name.
type File = (&'static str, i32, &'static [&'static str]);

/// What each recorded start had in its file. Several files where the recorded one did not show what its title says.
const FILES: &[(&str, &[File])] = &[
    ("bad yaml", &[("vault: {addr: ]", USAGE, &["line 1", "did not find expected node content"])]),
    // Bad-input table: configuration, several mistakes at once: all of them in one message, each with its key.
    (
        "contradictory",
        &[(
            "vault:\n  addr: http://127.0.0.1:8200\n  token: hvs.CANARY\n  tls: {vaultCABackends: root-ca, caCert: /etc/hostname}\n\
             kubernetes: {watchNamespace: default, serviceNamespace: default, service: kubernetes}\n\
             prometheus:\n  tls: {vaultCertBackend: a, certFile: /b, vaultCABackends: c, caCert: /d}\n",
            USAGE,
            &[
                "prometheus.tls.vaultCertBackend",
                "prometheus.tls.certFile",
                "vault.tls.vaultCABackends",
                "vault.tls.caCert",
                "prometheus.tls.vaultCABackends",
                "prometheus.tls.caCert",
                "needs a serving certificate",
            ],
        )],
    ),
    (
        "half TLS, token from unset env",
        &[
            // What was recorded: the file was no YAML.
            (
                "vault: {addr: a, tls: {vaultCABackends: [b, caCert: c}",
                USAGE,
                &["line 1", "did not find expected ',' or ']'"],
            ),
            // What the title says.
            (
                "vault: {addr: 'http://127.0.0.1:8200', token: '$UNSET_TOKEN'}\n\
                 kubernetes: {watchNamespace: default, serviceNamespace: default, service: kubernetes}\n\
                 prometheus: {tls: {vaultCertBackend: pki}}\n",
                USAGE,
                &["vault.token", "prometheus.tls.vaultCertBackend", "prometheus.tls.vaultCertRole"],
            ),
        ],
    ),
    (
        "scraper CA without certificate",
        &[(
            "vault: {addr: 'http://127.0.0.1:8200', token: hvs.CANARY}\n\
             kubernetes: {watchNamespace: default, serviceNamespace: default, service: kubernetes}\n\
             prometheus: {tls: {vaultCABackends: root-ca}}\n",
            USAGE,
            &["prometheus.tls.vaultCABackends", "needs a serving certificate"],
        )],
    ),
    // Bad-input table: configuration, bad regex. A rule of ours makes it a mistake in the file: exit code 2.
    (
        "bad regexp",
        &[(
            "vault: {addr: 'http://127.0.0.1:8200', token: hvs.CANARY}\n\
             kubernetes: {watchNamespace: '~(', serviceNamespace: default, service: kubernetes}\n",
            USAGE,
            &["kubernetes.watchNamespace"],
        )],
    ),
    ("not in a cluster", &[(GOOD, UNUSABLE, &["not inside a Kubernetes cluster"])]),
];

/// A case for each recorded start.
pub(crate) fn cases() -> Vec<Case> {
    let one = |section: Section| Case::of(section, move |_| check(section));
    sections("controller-start.txt").into_iter().map(one).collect()
}

async fn check(section: Section) -> Result<()> {
    let recorded_success = section.exit_code() == Some(0);
    match section.title {
        "version" => {
            ensure!(recorded_success, "recorded as a failure");
            let ended = run(&["version"]).await?;
            ended.expect(0, &[])?;
            return same_version_line(&ended.out, section);
        }
        // Bad-input table: configuration, unreadable file.
        "no config in cwd" => run(&[]).await?.expect(USAGE, &["kubernetes-vault.yml"])?,
        "missing file" => {
            for arguments in [["--config=/nope.yml"].as_slice(), &["--config", "/nope.yml"]] {
                run(arguments).await?.expect(USAGE, &["/nope.yml", "No such file or directory"])?;
            }
        }
        // reference-behaviour, section 3: its README shows it, its binary refused it: we accept both.
        "single dash -config" => {
            for arguments in [["-config=/nope.yml"].as_slice(), &["-config", "/nope.yml"]] {
                run(arguments).await?.expect(USAGE, &["/nope.yml", "No such file or directory"])?;
            }
        }
        "bad log level" => log_level().await?,
        "empty" => {
            let keys = regex::Regex::new(r"\* (\S+) is required")?;
            let message = section.message().unwrap_or_default();
            let keys: Vec<_> = keys.captures_iter(&message).map(|found| found[1].to_owned()).collect();
            ensure!(keys.len() == 5, "the recorded message has another form: {message}");
            let texts: Vec<_> = keys.iter().map(String::as_str).collect();
            with_file("").await?.expect(USAGE, &texts)?;
        }
        title => {
            let Some((_, files)) = FILES.iter().find(|(known, _)| *known == title) else {
                bail!("no case for this section");
            };
            for (file, code, texts) in *files {
                let ended = with_file(file).await?;
                ended.expect(*code, texts)?;
                // Bad-input table: no secret value is printed.
                ensure!(!ended.printed().contains("CANARY"), "a secret got out:\n{}", ended.printed());
            }
        }
    }
    ensure!(!recorded_success, "recorded as a success");
    Ok(())
}

/// The Go version takes `debug` and `error`. Design, section 11: ours takes `info`, which was recorded, and `warn` too.
async fn log_level() -> Result<()> {
    run(&["--log-level", "loud"]).await?.expect(USAGE, &["loud", "debug", "error"])?;
    for level in ["debug", "info", "warn", "error"] {
        run(&["--log-level", level, "--config=/nope.yml"]).await?.expect(USAGE, &["/nope.yml"])?;
    }
    Ok(())
}

/// Runs it where there is no file.
async fn run(arguments: &[&str]) -> Result<Ended> {
    let directory = tempfile::tempdir()?;
    program(arguments, &[], directory.path())?.end().await
}

/// Runs it on a file.
async fn with_file(yaml: &str) -> Result<Ended> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("kubernetes-vault.yml"), yaml)?;
    program(&[], &[], directory.path())?.end().await
}
