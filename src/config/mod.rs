//! The configuration file.
//!
//! Purpose: from YAML to typed values that the rest can rely on, with everything that is wrong reported at once.
//! Owns every key, its default and its rules; one file a section. A configuration file of the Go version means here
//! what it meant there.
//!
//! Must never: print a value of the file (a token may stand at any key by mistake), give a type that holds a secret
//! a `Debug`, or open a file that this version does not use.

mod error;
mod expand;
mod files;
mod health;
mod keys;
mod kubernetes;
mod lenient;
mod limits;
mod listen;
mod log;
mod login;
mod names;
mod namespace;
mod peers;
mod prometheus;
mod raft;
pub mod reference;
mod rules;
mod source;
mod suggest;
mod timing;
mod token_form;
mod tree;
mod ttl;
mod vault;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use self::error::{ConfigError, Problem, Warning};
pub use self::health::Health;
pub use self::kubernetes::Kubernetes;
pub use self::listen::ListenAddr;
pub use self::log::{Format, Level, Log, UnknownName};
pub use self::login::{KubernetesAuth, Login};
pub(crate) use self::names::{LABEL_ACCEPTED, is_dns_label};
pub use self::namespace::WatchNamespace;
pub use self::peers::PeerAddr;
pub use self::prometheus::{ClientCas, Prometheus, PrometheusTls, ServingCertificate};
pub use self::raft::{LeaveOnTerminate, PeerFiles, PeerIdentity, PeerPki, Raft};
pub use self::source::{DEFAULT_PATH, IMAGE_PATH, LOCAL_CONFIG, Source};
pub use self::timing::Timing;
pub use self::ttl::WrappingTtl;
pub use self::vault::{ClientCertificate, Vault, VaultAddr, VaultRoots, VaultTls};

use self::error::Finding;
use self::lenient::{Context, Section};
use crate::domain::limits::Limits;

/// Everything that can be configured, checked. No `Debug`: it may hold a token.
#[derive(Clone)]
pub struct Config {
    /// `raftDir`: where Raft state lives. Default `/var/lib/kubernetes-vault/`.
    pub raft_dir: PathBuf,
    /// `raft`: how replicas find, know and time each other.
    pub raft: Raft,
    /// `vault`: how to reach Vault and what to ask of it.
    pub vault: Vault,
    /// `kubernetes`: what is watched.
    pub kubernetes: Kubernetes,
    /// `prometheus`: where metrics are served.
    pub prometheus: Prometheus,
    /// `health`: where liveness and readiness are served.
    pub health: Health,
    /// `limits`: how much is done at once and a second.
    pub limits: Limits,
    /// `log`: what is logged.
    pub log: Log,
}

impl Config {
    /// Reads what is at `source`, with the environment of this process.
    pub fn load(source: &Source) -> Result<(Self, Vec<Warning>), ConfigError> {
        let bytes = source.read().map_err(|cause| ConfigError::Read { path: source.to_string(), cause })?;
        let Ok(yaml) = std::str::from_utf8(&bytes) else {
            return Err(invalid_file("is not UTF-8 text".to_owned(), None));
        };
        Self::parse(yaml, &|name: &str| std::env::var(name).ok())
    }

    /// Reads `yaml`; `env` gives the value of an environment variable. Files that the configuration names are
    /// opened, to see that they can be read.
    pub fn parse(yaml: &str, env: &impl Fn(&str) -> Option<String>) -> Result<(Self, Vec<Warning>), ConfigError> {
        // The parser counts a byte order mark as a column, and then takes the second section for another document.
        let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml);
        let (root, more_documents) = tree::parse(yaml).map_err(|error| invalid_file(error.what, error.line))?;
        let mut cx = Context::new(yaml, env);
        if more_documents {
            cx.warn(&lenient::Spot::absent(""), "has more than one YAML document; only the first is read");
        }
        keys::check(&root, &mut cx);
        let config = read(&root, &mut cx);
        match config {
            Some(config) if cx.problems.is_empty() => Ok((config, cx.warnings)),
            _ => Err(ConfigError::Invalid { problems: cx.problems, warnings: cx.warnings }),
        }
    }
}

/// `None` only together with a problem.
fn read(root: &tree::Node, cx: &mut Context<'_>) -> Option<Config> {
    let root = Section::root(root, cx);
    let raft_dir = root
        .text("raftDir", cx)
        .map_or_else(|| PathBuf::from("/var/lib/kubernetes-vault/"), |setting| PathBuf::from(setting.value));
    let vault = vault::read(&root.section("vault", cx), cx);
    let raft = raft::read(&root.section("raft", cx), vault.as_ref().map(|vault| &vault.login), cx);
    let kubernetes = kubernetes::read(&root.section("kubernetes", cx), cx);
    let prometheus_section = root.section("prometheus", cx);
    let prometheus = prometheus::read(&prometheus_section, cx);
    let health_section = root.section("health", cx);
    let health = health::read(&health_section, cx);
    if prometheus.address.collides(&health.address) {
        let set = [&health_section, &prometheus_section].map(|section| section.spot("address"));
        let spot = set.iter().find(|spot| spot.at.is_some()).unwrap_or(&set[0]);
        cx.problem(
            spot,
            format!(
                "makes prometheus.address ({}) and health.address ({}) collide: give them different ports",
                prometheus.address, health.address
            ),
        );
    }
    let limits = limits::read(&root.section("limits", cx), cx);
    let log = log::read(&root.section("log", cx), cx);
    Some(Config { raft_dir, raft: raft?, vault: vault?, kubernetes: kubernetes?, prometheus, health, limits, log })
}

fn invalid_file(text: String, line: Option<usize>) -> ConfigError {
    let problem = Problem::new(Finding { key: String::new(), line, text });
    ConfigError::Invalid { problems: vec![problem], warnings: Vec::new() }
}
