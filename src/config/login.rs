//! How the controller logs in to Vault: the keys `vault.token`, `vault.tokenFile` and `vault.kubernetesAuth`.
//!
//! Owns the rule that exactly one of them is set. A token leaves this module as a secret only.

use std::path::PathBuf;

use secrecy::SecretString;

use super::files::readable;
use super::lenient::{Context, Section, Setting, Spot};
use super::names::is_segment;
use super::rules::mount;

/// Where Kubernetes mounts a pod's own token.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How the controller gets its Vault token. No `Debug`: it may hold one.
#[derive(Clone)]
pub enum Login {
    /// `vault.token`: a renewable, periodic token, written in the file or expanded from the environment.
    Token(SecretString),
    /// `vault.tokenFile`: a file with the token, read again when it changes.
    TokenFile(PathBuf),
    /// `vault.kubernetesAuth`: log in with the service account of the pod.
    Kubernetes(KubernetesAuth),
}

/// `vault.kubernetesAuth`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubernetesAuth {
    /// `vault.kubernetesAuth.mount`: where Vault's Kubernetes auth is mounted. Default `kubernetes`.
    pub mount: String,
    /// `vault.kubernetesAuth.role` (required): the role of that mount to log in as.
    pub role: String,
    /// `vault.kubernetesAuth.tokenPath`: the projected service account token, read at each login. Default
    /// `/var/run/secrets/kubernetes.io/serviceaccount/token`.
    pub token_path: PathBuf,
}

/// Reads the way to log in from the section `vault`.
pub(super) fn read(vault: &Section<'_>, cx: &mut Context<'_>) -> Option<Login> {
    let token = vault.text("token", cx);
    let token_file = vault.text("tokenFile", cx);
    let section = vault.section("kubernetesAuth", cx);
    let mount = section.text("mount", cx);
    let role = section.text("role", cx);
    let token_path = section.text("tokenPath", cx);
    let kubernetes = [&mount, &role, &token_path].into_iter().flatten().next();
    let kubernetes = kubernetes.map(|_| vault.spot("kubernetesAuth"));
    check_exactly_one(vault, [spot(&token), spot(&token_file), kubernetes.clone()], cx);
    // Each one is checked, also where there is one too many: all problems in one message.
    let token = token.and_then(|setting| read_token(&setting, cx)).map(Login::Token);
    let token_file = token_file.and_then(|setting| readable(setting, cx)).map(Login::TokenFile);
    let kubernetes = match kubernetes {
        Some(_) => read_kubernetes(&section, mount, role, token_path, cx).map(Login::Kubernetes),
        None => None,
    };
    token.or(token_file).or(kubernetes)
}

fn spot(setting: &Option<Setting<String>>) -> Option<Spot> {
    setting.as_ref().map(|setting| setting.spot.clone())
}

fn check_exactly_one(vault: &Section<'_>, ways: [Option<Spot>; 3], cx: &mut Context<'_>) {
    let set: Vec<Spot> = ways.into_iter().flatten().collect();
    match set.as_slice() {
        [] => cx.problem(
            &vault.spot("token"),
            "is required, or one of the other ways to log in: vault.tokenFile or vault.kubernetesAuth",
        ),
        [_] => {}
        [first, others @ ..] => {
            let others: Vec<&str> = others.iter().map(|spot| spot.key.as_str()).collect();
            let verb = if others.len() == 1 { "both" } else { "all" };
            cx.problem(
                first,
                format!("and {} are {verb} set: keep exactly one way to log in to Vault", others.join(" and ")),
            );
        }
    }
}

fn read_token(setting: &Setting<String>, cx: &mut Context<'_>) -> Option<SecretString> {
    // A block scalar or a secret made with `echo` ends in a newline, which no header can carry.
    let token = setting.value.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        cx.problem(&setting.spot, "must be a Vault token: one word of printable ASCII characters");
        return None;
    }
    Some(SecretString::from(token))
}

fn read_kubernetes(
    section: &Section<'_>,
    mount_setting: Option<Setting<String>>,
    role: Option<Setting<String>>,
    token_path: Option<Setting<String>>,
    cx: &mut Context<'_>,
) -> Option<KubernetesAuth> {
    let mount = match mount_setting {
        Some(setting) => mount(&setting, cx),
        None => Some("kubernetes".to_owned()),
    };
    let role = match role {
        Some(role) if is_segment(&role.value) => Some(role.value),
        Some(role) => {
            cx.problem(&role.spot, "must be the name of a role: no slashes, no spaces, none of ? # % \\");
            None
        }
        None => {
            cx.problem(&section.spot("role"), "is required with vault.kubernetesAuth: the role to log in as");
            None
        }
    };
    let token_path = token_path.unwrap_or_else(|| Setting {
        value: SERVICE_ACCOUNT_TOKEN.to_owned(),
        spot: Spot::absent(section.key("tokenPath")),
    });
    let token_path = readable(token_path, cx);
    Some(KubernetesAuth { mount: mount?, role: role?, token_path: token_path? })
}
