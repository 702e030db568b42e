//! The section `raft`.
//!
//! Owns which of the ways to tell a peer from a stranger is in force, and the bounds of the times. A secret leaves this
//! module as a secret only. Must never: put a secret into a message, or let a guessable one stand: what a peer shows in
//! a handshake lets anybody who can reach its port try guesses at home.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::files::readable;
use super::lenient::{Context, Section, Setting};
use super::login::Login;
use super::names::{LABEL_ACCEPTED, is_dns_label, is_segment};
use super::peers::{self, PeerAddr};
use super::rules::{check_pair, mount, mounts};
use super::timing::{self, Timing};
use super::token_form::is_generated_service_token;

/// Shortest of `raft.secrets`: 32 random bytes cannot be guessed, and neither can their 64 hexadecimal digits.
const SECRET_BYTES_MIN: usize = 32;

/// Fewest different bytes in one of `raft.secrets`. 32 random hexadecimal digits have fewer once in ten million times;
/// what people type to fill a field (`xxxx`, `01010101`) has.
const SECRET_DIFFERENT_BYTES_MIN: usize = 6;

/// How replicas find, know and time each other. No `Debug`: it may hold a secret.
#[derive(Clone)]
pub struct Raft {
    /// By what a replica knows the others, the first that is configured.
    pub identity: PeerIdentity,
    /// `raft.clusterName`: tells apart clusters that share key, namespace and service. Default: empty.
    pub cluster_name: String,
    /// `raft.peers`: all replicas, this one included, where there is no Kubernetes to ask. Default: none.
    pub peers: Vec<PeerAddr>,
    /// `raft.heartbeat`, `raft.electionMin`, `raft.electionMax` and `raft.deadServerGrace`.
    pub timing: Timing,
    /// `raft.leaveOnTerminate`. Default `auto`.
    pub leave_on_terminate: LeaveOnTerminate,
}

/// By what a replica knows its peers. No `Debug`: it may hold a secret.
#[derive(Clone)]
pub enum PeerIdentity {
    /// `raft.tls.certFile`, `raft.tls.certKey` and `raft.tls.caCert`.
    Files(PeerFiles),
    /// `raft.tls.vaultCertBackend`, `raft.tls.vaultCertRole` and `raft.tls.vaultCABackends`.
    VaultPki(PeerPki),
    /// `raft.secrets`: a CA in memory is derived from each; the first one issues.
    Secrets(SecretString, Option<SecretString>),
    /// `vault.token`, which all replicas share: a CA in memory is derived from it.
    Token(SecretString),
    /// Nothing: this replica can only be alone.
    None {
        /// Continues "there is no identity for peers: ".
        why: &'static str,
    },
}

/// PEM files that somebody else renews.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    /// `raft.tls.certFile`: the certificate and its chain.
    pub cert: PathBuf,
    /// `raft.tls.certKey`: its key.
    pub key: PathBuf,
    /// `raft.tls.caCert`: who signs the peers' certificates.
    pub ca: PathBuf,
}

/// Certificates that Vault issues to each replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerPki {
    /// `raft.tls.vaultCertBackend`: the PKI mount.
    pub mount: String,
    /// `raft.tls.vaultCertRole`: a role of that mount for peers alone.
    pub role: String,
    /// `raft.tls.vaultCABackends`: the PKI mounts whose CAs sign peers' certificates. Default: the mount above.
    pub cas: Vec<String>,
}

/// `raft.leaveOnTerminate`: whether a replica that is told to stop leaves the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeaveOnTerminate {
    /// It leaves where its storage goes with the pod, and stays where the storage lasts.
    #[default]
    Auto,
    /// It leaves.
    Always,
    /// It stays a member.
    Never,
}

/// `login` is `None` only together with a problem.
pub(super) fn read(section: &Section<'_>, login: Option<&Login>, cx: &mut Context<'_>) -> Option<Raft> {
    let tls = section.section("tls", cx);
    let certificates = read_certificates(&tls, cx);
    let secrets_spot = section.spot("secrets");
    let secrets = read_secrets(section, cx);
    let cluster_name = section.text("clusterName", cx);
    if certificates.is_some() {
        if secrets.is_some() {
            cx.warn(&secrets_spot, "is not used: the certificates of raft.tls come first");
        }
        if let Some(setting) = &cluster_name {
            cx.warn(&setting.spot, "has no effect: with the certificates of raft.tls, clusters differ by their CA");
        }
    }
    let cluster_name = match cluster_name {
        Some(setting) if !is_dns_label(&setting.value) => {
            cx.problem(&setting.spot, format!("must be a name: {LABEL_ACCEPTED}"));
            return None;
        }
        Some(setting) => setting.value,
        None => String::new(),
    };
    let peers = peers::read(section, cx);
    let timing = timing::read(section, cx);
    let leave_on_terminate = read_leave(section, cx);
    let identity = match (certificates, secrets) {
        (Some(identity), _) => identity,
        (None, Some((first, second))) => PeerIdentity::Secrets(first, second),
        (None, None) => by_login(login?),
    };
    Some(Raft { identity, cluster_name, peers, timing: timing?, leave_on_terminate })
}

/// What all replicas share already, if it is beyond guessing.
fn by_login(login: &Login) -> PeerIdentity {
    match login {
        Login::Token(token) if is_generated_service_token(token.expose_secret()) => PeerIdentity::Token(token.clone()),
        Login::Token(_) => PeerIdentity::None {
            why: "vault.token has none of the forms in which Vault generates service tokens (hvs.... or s....), so \
                  it might be guessed",
        },
        Login::TokenFile(_) => {
            PeerIdentity::None { why: "the token of vault.tokenFile changes, and each replica's may differ" }
        }
        Login::Kubernetes(_) => {
            PeerIdentity::None { why: "with vault.kubernetesAuth each replica has a token of its own" }
        }
    }
}

/// Going on without what is there, but wrong, would be another trust decision than the one that was made: all that is
/// wrong is a problem.
fn read_certificates(section: &Section<'_>, cx: &mut Context<'_>) -> Option<PeerIdentity> {
    let problems_before = cx.problems.len();
    let files = ["certFile", "certKey", "caCert"].map(|name| (name, section.text(name, cx)));
    let backend = section.text("vaultCertBackend", cx);
    let role = section.text("vaultCertRole", cx);
    let cas = section.list("vaultCABackends", cx);
    let vault = [&backend, &role].into_iter().flatten().map(|setting| &setting.spot);
    let empty = files.iter().map(|(name, setting)| (*name, setting.is_some())).chain([
        ("vaultCertBackend", backend.is_some()),
        ("vaultCertRole", role.is_some()),
        ("vaultCABackends", cas.is_some()),
    ]);
    for (name, is_set) in empty {
        let spot = section.spot(name);
        if spot.at.is_some() && !is_set && cx.problems.len() == problems_before {
            cx.problem(&spot, "is empty: remove the key, or set the environment variable that it names");
        }
    }
    let first_of_vault = vault.chain(cas.as_ref().map(|setting| &setting.spot)).next();
    let first_file = files.iter().find_map(|(_, setting)| setting.as_ref());
    if let (Some(spot), Some(file)) = (first_of_vault, first_file) {
        cx.problem(
            spot,
            format!(
                "and {} contradict each other: peers' certificates come from Vault (raft.tls.vaultCertBackend and \
                 raft.tls.vaultCertRole) or from files (raft.tls.certFile, raft.tls.certKey and raft.tls.caCert), not both",
                file.spot.key
            ),
        );
        return None;
    }
    if first_of_vault.is_some() { read_pki(section, [backend, role], cas, cx) } else { read_files(section, files, cx) }
}

fn read_files(
    section: &Section<'_>,
    settings: [(&str, Option<Setting<String>>); 3],
    cx: &mut Context<'_>,
) -> Option<PeerIdentity> {
    if let Some(first) = settings.iter().find_map(|(_, setting)| setting.as_ref()) {
        let missing: Vec<String> =
            settings.iter().filter(|(_, set)| set.is_none()).map(|(name, _)| section.key(name)).collect();
        if !missing.is_empty() {
            cx.problem(&first.spot, format!("needs {} to be set as well", missing.join(" and ")));
        }
    }
    let [cert, key, ca] = settings.map(|(_, setting)| setting.and_then(|setting| readable(setting, cx)));
    Some(PeerIdentity::Files(PeerFiles { cert: cert?, key: key?, ca: ca? }))
}

fn read_pki(
    section: &Section<'_>,
    [backend, role]: [Option<Setting<String>>; 2],
    cas: Option<Setting<Vec<Setting<String>>>>,
    cx: &mut Context<'_>,
) -> Option<PeerIdentity> {
    check_pair(section, [("vaultCertBackend", &backend), ("vaultCertRole", &role)], cx);
    let (Some(backend), Some(role)) = (backend, role) else {
        if let Some(cas) = cas {
            cx.problem(
                &cas.spot,
                "needs raft.tls.vaultCertBackend and raft.tls.vaultCertRole: what replicas show is of the same Vault",
            );
        }
        return None;
    };
    let own = mount(&backend, cx);
    if !is_segment(&role.value) {
        cx.problem(&role.spot, "must be the name of a role of that mount: no slashes, no spaces, none of ? # % \\");
        return None;
    }
    let own = own?;
    let cas = cas.map_or_else(|| vec![own.clone()], |cas| mounts(&cas.value, cx));
    Some(PeerIdentity::VaultPki(PeerPki { mount: own, role: role.value, cas }))
}

fn read_secrets(section: &Section<'_>, cx: &mut Context<'_>) -> Option<(SecretString, Option<SecretString>)> {
    let problems_before = cx.problems.len();
    let Some(Setting { value: items, spot }) = section.list("secrets", cx) else {
        let spot = section.spot("secrets");
        if spot.at.is_some() && cx.problems.len() == problems_before {
            // Going on with what comes next would be another trust decision than the one that was made.
            cx.problem(&spot, "is empty: remove the key, or set the environment variable that it names");
        }
        return None;
    };
    if items.len() > 2 {
        cx.problem(&spot, "holds more than two secrets: keep the one in force, and one more while you replace it");
    }
    let secrets: Vec<Option<SecretString>> = items.into_iter().map(|item| read_secret(item, cx)).collect();
    // All or none: with one of them missing, the other would stand for something it does not.
    let secrets: Vec<SecretString> = secrets.into_iter().collect::<Option<_>>()?;
    let mut secrets = secrets.into_iter();
    let (first, second) = (secrets.next()?, secrets.next());
    if second.as_ref().is_some_and(|second| second.expose_secret() == first.expose_secret()) {
        cx.problem(&spot, "holds the same secret twice: the second must be another one");
    }
    Some((first, second))
}

fn read_secret(setting: Setting<String>, cx: &mut Context<'_>) -> Option<SecretString> {
    let Setting { value, spot } = setting;
    let value = Zeroizing::new(value);
    // A block scalar or a file made with `echo` ends in a newline that another replica's copy may lack.
    let secret = value.trim();
    let mut different = [false; 256];
    secret.bytes().for_each(|byte| different[usize::from(byte)] = true);
    let different = different.iter().filter(|seen| **seen).count();
    if secret.len() < SECRET_BYTES_MIN || different < SECRET_DIFFERENT_BYTES_MIN {
        cx.problem(
            &spot,
            format!(
                "must be at least {SECRET_BYTES_MIN} random bytes, as \"openssl rand -hex 32\" prints them: a shorter \
                 or a patterned one can be guessed"
            ),
        );
        return None;
    }
    Some(SecretString::from(secret))
}

fn read_leave(section: &Section<'_>, cx: &mut Context<'_>) -> LeaveOnTerminate {
    let Some(Setting { value, spot }) = section.text("leaveOnTerminate", cx) else {
        return LeaveOnTerminate::default();
    };
    match value.to_ascii_lowercase().as_str() {
        "auto" => LeaveOnTerminate::Auto,
        "always" => LeaveOnTerminate::Always,
        "never" => LeaveOnTerminate::Never,
        _ => {
            cx.problem(&spot, "must be auto, always or never");
            LeaveOnTerminate::default()
        }
    }
}
