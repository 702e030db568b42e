//! The whole way from YAML to a configuration.

mod lenient;
mod limits;
mod page;
mod raft;
mod reports;
mod rules;
mod vectors;

use super::*;

/// The least that starts.
pub(crate) const MINIMAL: &str = "\
vault:
  addr: http://vault:8200
  token: canary-token
kubernetes:
  watchNamespace: default
  serviceNamespace: kube-system
  service: kubernetes-vault
";

fn no_env(_: &str) -> Option<String> {
    None
}

fn parse(yaml: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
    Config::parse(yaml, &no_env)
}

fn accept(yaml: &str) -> Config {
    match parse(yaml) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:?}");
            config
        }
        Err(error) => panic!("{error}"),
    }
}

fn reject(yaml: &str) -> ConfigError {
    match parse(yaml) {
        Ok(_) => panic!("accepted:\n{yaml}"),
        Err(error) => error,
    }
}

/// The keys of all problems, sorted.
fn problem_keys(yaml: &str) -> Vec<String> {
    let mut keys: Vec<String> = reject(yaml).problems().iter().map(|problem| problem.key().to_owned()).collect();
    keys.sort();
    keys
}

fn warnings(yaml: &str) -> Vec<String> {
    match parse(yaml) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// [`MINIMAL`] with more keys in its section `vault`.
fn with_vault(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    MINIMAL.replace("kubernetes:\n", &format!("{lines}kubernetes:\n"))
}

/// [`MINIMAL`] with another way to log in.
fn with_login(lines: &str) -> String {
    with_vault(lines).replace("  token: canary-token\n", "")
}

/// [`MINIMAL`] with more keys in `prometheus.tls`.
fn with_prometheus(flow: &str) -> String {
    format!("{MINIMAL}prometheus:\n  tls: {{{flow}}}\n")
}

/// [`MINIMAL`] with the section `raft`.
fn with_raft(flow: &str) -> String {
    format!("{MINIMAL}raft: {{{flow}}}\n")
}
