//! docs/configuration.md: made of the list of keys and the examples here, compared with the file, and tried.
//!
//! Set `KV_WRITE_DOCS` to have the file written anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::reference::{Change, Fallback, KEYS, Key, Kind};
use crate::domain::limits::Limits;

const COMMAND: &str = "KV_WRITE_DOCS=1 scripts/cargo test -p kubernetes-vault --lib config::tests::page";

const HEAD: &str = r#"# Configuration

<!-- Made from src/config/reference.rs. Change it there; a test says how to write this file anew. -->

One YAML file configures the controller: `kubernetes-vault --config=<path>`, or `kubernetes-vault.yml` in the working
directory. The flags `--log-level` and `--log-format` win over it. A file of the Go version works as it is.

## The least that works

```yaml
"#;

const AFTER_MINIMAL: &str = r#"```

One replica needs no more. Three replicas that log in by the same `vault.token` do not either: they know each other by a
key that is derived from it.

## Everything

Each key once. Lines that begin with `#` cannot stand together with others that are set here.

```yaml
"#;

const RULES: &str = r#"```

## How it is read

- **Environment.** Each text may hold `$NAME` or `${NAME}`: the variable's value, or nothing where it is unset. So a token
  need not stand in the file. A key whose value is empty then counts as not set, and there is a warning.
- **Leniency of the Go version.** Letter case of keys does not matter. One text may stand where a list is due, and is split
  at commas. Numbers may stand in quotes. Of several YAML documents the first is read.
- **Mistakes.** All that is wrong is told at once, each with its key, its line and what is accepted; the exit code is 2.
  No message repeats a value, except the paths of files: a token may stand anywhere by mistake. An unknown key is a
  warning that names the nearest known one. A key that is set twice is a mistake.
- **Changes.** The last column says how something new takes effect. *restart*: it is read at the start. *file read again*:
  the path is, but the file is read again when it changes, also where a mounted Secret swaps a symlink; what is there is
  checked first, and what was in use before stays in use where it is no good. *renewed*: it names something in Vault that
  is asked for again by itself.
- `raft.*` has to be alike on all replicas, but for its files.

† marks keys that the Go version does not know.
"#;

/// What a section is about, below its heading.
const SECTIONS: &[(&str, &str)] = &[
    ("", "At the top"),
    ("vault", "Exactly one of `vault.token`, `vault.tokenFile` and `vault.kubernetesAuth` is set: how to log in."),
    ("vault.kubernetesAuth", "Each replica logs in anew by itself when its token nears its end."),
    (
        "vault.tls",
        "For an address that begins with `https://`. Not set: the public roots verify Vault (or those of the bundle that `SSL_CERT_FILE` names). `HTTP_PROXY`, `HTTPS_PROXY` and \
         `NO_PROXY` hold for calls to Vault, never for pushes to pods.",
    ),
    ("kubernetes", "What is watched, and where the controller itself lives."),
    ("prometheus", "Metrics."),
    (
        "prometheus.tls",
        "With a certificate, metrics are served over https alone. It comes from Vault or from files, not from both, and so \
         do the CAs of scrapers.",
    ),
    ("health", "What the kubelet asks. Give it another port than metrics."),
    ("log", "What is logged and what never is: [logging.md](logging.md)."),
    (
        "limits",
        "What the leader does at once and a second. The defaults are such that a cluster of 5,000 pods that all start at \
         once does not meet them: they are for those who must protect a Vault that others need as well, or one team from \
         another. A rate is a number such as `200` or `0.5`, and what comes in ten seconds may pass at once (at least one), so \
         that `perRolePerSecond: 5` lets 50 pods of a role through after a rest. A rate counts requests for a `secret_id`; an \
         init container that could not be reached costs none, and a new leader begins with a full measure.\n\n\
         A pod that waits costs nothing, is served in the order of arrival within its namespace, and namespaces take \
         turns: ten thousand pods of one do not hold up the only one of another. Whoever waits is counted in \
         `kubernetesvault_limited_total`, and after five seconds the pod has an Event `SecretIdDelayed` that names the limit. \
         A pod whose init container fails again and again waits as well (label `pod`): 1 s, then twice as long each time, \
         up to a minute. This has no key.",
    ),
    (
        "raft",
        "How replicas know and time each other. One replica needs none of it. Durations are in whole milliseconds. The \
         times fit a network inside one region; more than two heartbeats must fit into `electionMin`, and three times \
         `electionMax` into `deadServerGrace`.",
    ),
    ("raft.tls", "Certificates of replicas, in place of `raft.secrets`: from files, or from Vault's PKI."),
];

/// Keys that contradict those that are set in the example of everything.
const ALTERNATIVES: &[&str] = &[
    "vault.tokenFile",
    "vault.kubernetesAuth.role",
    "vault.kubernetesAuth.mount",
    "vault.kubernetesAuth.tokenPath",
    "vault.tls.caCert",
    "prometheus.tls.vaultCertBackend",
    "prometheus.tls.vaultCertRole",
    "prometheus.tls.vaultCABackends",
    "raft.tls.certFile",
    "raft.tls.certKey",
    "raft.tls.caCert",
    "raft.tls.vaultCertBackend",
    "raft.tls.vaultCertRole",
    "raft.tls.vaultCABackends",
];

/// Alternatives that are tried one after the other: what is set then, and what it takes the place of.
const VARIANTS: &[(&[&str], &[&str])] = &[
    (&["vault.tokenFile"], &["vault.token"]),
    (&["vault.kubernetesAuth.role", "vault.kubernetesAuth.mount", "vault.kubernetesAuth.tokenPath"], &["vault.token"]),
    (&["vault.tls.caCert"], &["vault.tls.vaultCABackends", "vault.tls.caFingerprint"]),
    (
        &["prometheus.tls.vaultCertBackend", "prometheus.tls.vaultCertRole", "prometheus.tls.vaultCABackends"],
        &["prometheus.tls.certFile", "prometheus.tls.certKey", "prometheus.tls.caCert"],
    ),
    (&["raft.tls.certFile", "raft.tls.certKey", "raft.tls.caCert"], &["raft.secrets", "raft.clusterName"]),
    (
        &["raft.tls.vaultCertBackend", "raft.tls.vaultCertRole", "raft.tls.vaultCABackends"],
        &["raft.secrets", "raft.clusterName"],
    ),
];

/// The folders of the examples' files.
const FOLDERS: [&str; 2] = ["/etc/kubernetes-vault/", "/var/run/secrets/vault/"];

fn page() -> String {
    let mut page = format!("{HEAD}{}{AFTER_MINIMAL}{}{RULES}", minimal(), everything());
    for (section, about) in SECTIONS {
        let title = if section.is_empty() { "## At the top".to_owned() } else { format!("## `{section}`") };
        let about = if section.is_empty() { String::new() } else { format!("{about}\n\n") };
        write!(page, "\n{title}\n\n{about}| key | type | default | example | meaning | new value |\n").unwrap();
        page.push_str("|---|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| split(key).0 == *section) {
            page.push_str(&row(key));
        }
    }
    page
}

fn row(key: &Key) -> String {
    let ours = if key.in_reference { "" } else { " †" };
    let kind = match key.kind {
        Kind::Text => "text",
        Kind::Texts => "texts",
        Kind::Path => "path",
        Kind::Flag => "`true` or `false`",
        Kind::Number => "number",
        Kind::Duration => "duration",
        Kind::Listen => "address",
        Kind::Choice => "word",
    };
    let default = match key.default {
        Fallback::Required => "**required**".to_owned(),
        Fallback::Unset => String::new(),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Words(words) => words.to_owned(),
    };
    let change = match key.change {
        Change::Restart => "restart",
        Change::File => "file read again",
        Change::Renewed => "renewed",
    };
    format!("| `{}`{ours} | {kind} | {default} | `{}` | {} | {change} |\n", key.name, key.example, key.meaning)
}

/// The section and the last part of a key.
fn split(key: &Key) -> (&'static str, &'static str) {
    key.name.rsplit_once('.').unwrap_or(("", key.name))
}

/// The reference's own least.
fn minimal() -> String {
    let needed = |key: &Key| key.default == Fallback::Required || key.name == "vault.token";
    yaml(KEYS.iter().filter(|key| needed(key)), needed)
}

fn everything() -> String {
    variant(&[], &[])
}

/// Each key with its example; those in `added` are set, those in `left_out` are not.
fn variant(added: &[&str], left_out: &[&str]) -> String {
    let set =
        |key: &Key| added.contains(&key.name) || !(ALTERNATIVES.contains(&key.name) || left_out.contains(&key.name));
    yaml(KEYS.iter(), set)
}

/// `keys` with their examples, those that are not `set` as comments. Keys of one section follow each other.
fn yaml<'k>(keys: impl Iterator<Item = &'k Key>, set: impl Fn(&Key) -> bool) -> String {
    let mut text = String::new();
    let mut before: Vec<&str> = Vec::new();
    for key in keys {
        let mut sections: Vec<&str> = key.name.split('.').collect();
        let last = sections.pop().unwrap();
        let common = before.iter().zip(&sections).take_while(|(one, other)| one == other).count();
        for depth in common..sections.len() {
            let within = format!("{}.", sections[..=depth].join("."));
            // Nothing of it is set: as a key without a value it would read badly.
            let empty = !KEYS.iter().any(|other| other.name.starts_with(&within) && set(other));
            writeln!(text, "{}{}{}:", "  ".repeat(depth), if empty { "# " } else { "" }, sections[depth]).unwrap();
        }
        let mark = if set(key) { "" } else { "# " };
        writeln!(text, "{}{mark}{last}: {}", "  ".repeat(sections.len()), key.example).unwrap();
        before = sections;
    }
    text
}

/// Files for all examples, in a folder of their own, and `yaml` with their paths.
fn with_files(yaml: &str, folder: &Path) -> String {
    for key in KEYS.iter().filter(|key| key.kind == Kind::Path) {
        if let Some(name) = FOLDERS.iter().find_map(|folder| key.example.strip_prefix(folder)) {
            std::fs::write(folder.join(name), "an example").unwrap();
        }
    }
    FOLDERS.iter().fold(yaml.to_owned(), |yaml, from| yaml.replace(from, &format!("{}/", folder.display())))
}

fn example_env(name: &str) -> Option<String> {
    match name {
        "VAULT_TOKEN" => Some("hvs.zcRGGjMGDpYdaYbhRdrEcoxC".to_owned()),
        "RAFT_SECRET" => Some("6b1f0c9d2e3a4b5c6d7e8f90a1b2c3d4".to_owned()),
        _ => None,
    }
}

fn load(yaml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    match Config::parse(&with_files(yaml, folder.path()), &example_env) {
        Ok((config, warnings)) if warnings.is_empty() => config,
        Ok((_, warnings)) => panic!("{yaml}\n{warnings:?}"),
        Err(error) => panic!("{yaml}\n{error}"),
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")
}

#[test]
fn the_page_is_what_the_list_of_keys_says() {
    if std::env::var_os("KV_WRITE_DOCS").is_some() {
        std::fs::write(path(), page()).unwrap();
    }
    let file = std::fs::read_to_string(path()).unwrap_or_default();
    let differs = page().lines().zip(file.lines()).position(|(made, found)| made != found);
    assert!(
        page() == file,
        "docs/configuration.md is not what src/config/reference.rs and src/config/tests/page.rs say (first difference in \
         line {:?}). To write it anew:\n    {COMMAND}",
        differs.map(|line| line + 1)
    );
}

#[test]
fn every_example_of_the_page_loads_without_a_warning() {
    let text = std::fs::read_to_string(path()).unwrap();
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2, "each of them is tried");
    blocks.iter().for_each(|yaml| drop(load(yaml)));
}

#[test]
fn every_keys_example_loads_in_one_company_or_another() {
    let mut tried: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|name| !ALTERNATIVES.contains(name)).collect();
    for (added, left_out) in VARIANTS {
        load(&variant(added, left_out));
        tried.extend(*added);
    }
    for key in KEYS {
        assert!(tried.contains(&key.name), "{} is in no example", key.name);
        assert!(SECTIONS.iter().any(|(section, _)| *section == split(key).0), "{} is in no section", key.name);
        assert!(!key.meaning.is_empty() && !key.meaning.contains(['|', '\n']), "{}", key.name);
    }
}

/// All that can be compared. Secrets have no `Debug`.
fn shown(config: &Config) -> String {
    let Config { raft_dir, raft, vault, kubernetes, prometheus, health, limits, log } = config;
    let login = match &vault.login {
        Login::Kubernetes(auth) => format!("{auth:?}"),
        Login::Token(_) => "a token".to_owned(),
        Login::TokenFile(path) => format!("{path:?}"),
    };
    format!(
        "{raft_dir:?} {:?} {:?} {:?} {:?} {login} {:?} {:?} {:?} {:?} {:?} {kubernetes:?} {prometheus:?} {health:?} \
         {limits:?} {log:?}",
        raft.cluster_name,
        raft.peers,
        raft.timing,
        raft.leave_on_terminate,
        vault.skip_token_role_name_validation,
        vault.namespace,
        vault.approle_mount,
        vault.wrapping_ttl,
        vault.tls
    )
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let base = minimal();
    let with_login = base.replace(
        "  token: $VAULT_TOKEN\n",
        "  kubernetesAuth:\n    role: r\n    tokenPath: /var/run/secrets/vault/token\n",
    );
    let mut compared = 0;
    for key in KEYS {
        let Fallback::Value(value) = key.default else { continue };
        let auth = key.name.strip_prefix("vault.kubernetesAuth.");
        let (section, last) = split(key);
        let (without, with) = match auth {
            Some(last) => {
                (&with_login, with_login.replace("    role: r\n", &format!("    role: r\n    {last}: {value}\n")))
            }
            None if section.is_empty() => (&base, format!("{base}{last}: {value}\n")),
            None if base.contains(&format!("{section}:\n")) => {
                (&base, base.replace(&format!("{section}:\n"), &format!("{section}:\n  {last}: {value}\n")))
            }
            None => (&base, format!("{base}{section}:\n  {last}: {value}\n")),
        };
        let folder = tempfile::tempdir().unwrap();
        let read = |yaml: &str| match Config::parse(&with_files(yaml, folder.path()), &example_env) {
            Ok((config, _)) => shown(&config),
            Err(error) => panic!("{}: {error}", key.name),
        };
        assert_eq!(read(without), read(&with), "{} is not {value} by default", key.name);
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} defaults were compared");
    let Limits { in_flight, .. } = Limits::default();
    assert!(page().contains(&format!("| `limits.inFlight` † | number | `{in_flight}` |")));
}
