//! What is printed. Pure: lines out of what was read.
//!
//! Must never: print a secret other than shortened; values of the KV secret only where the settings say so.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use crate::credentials::{CA_BUNDLE, Credentials};
use crate::vault::Login;

/// What the init container left in `directory`.
pub(crate) fn report(credentials: &Credentials, directory: &Path) -> Result<Vec<String>> {
    let names = file_names(directory)?;
    let has_bundle = names.iter().any(|name| name == CA_BUNDLE);
    let mut lines = vec![format!("The init container left in {}: {}", directory.display(), names.join(", "))];
    let mut add = |name: &str, value: &str| lines.push(line(name, value));
    match credentials {
        Credentials::Token(file) => {
            add("token", &file.client_token.shortened());
            add("accessor", &file.accessor);
            add("lease duration", &lease(file.lease_duration));
            add("renewable", yes_no(file.renewable));
        }
        Credentials::SecretId(file) => {
            add("role_id", &file.role_id);
            add("secret_id", &file.secret_id.shortened());
            add("accessor", &file.accessor);
        }
        Credentials::WrappedSecretId(file) => {
            add("role_id", &file.role_id);
            add("wrapping token", &file.wrapped_secret_id.shortened());
            add("wrapping TTL", &format!("{} s", file.ttl));
        }
    }
    let is_https = credentials.vault_address().starts_with("https:");
    add("Vault", credentials.vault_address());
    add(
        "CA bundle",
        match (has_bundle, is_https) {
            (true, _) => CA_BUNDLE,
            (false, true) => "none: the public roots verify Vault",
            (false, false) => "none: Vault is spoken to in clear",
        },
    );
    Ok(lines)
}

/// What a login gave.
pub(crate) fn login(login: &Login) -> Vec<String> {
    vec![
        line("token", &login.client_token.shortened()),
        line("accessor", &login.accessor),
        line("lease duration", &lease(login.lease_duration)),
        line("renewable", yes_no(login.renewable)),
    ]
}

/// The keys of a secret; with `show_values` their values too.
pub(crate) fn secret(secret: &Map<String, Value>, show_values: bool) -> Vec<String> {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    secret.iter().map(|(key, value)| if show_values { line(key, &shown(value)) } else { format!("  {key}") }).collect()
}

fn line(name: &str, value: &str) -> String {
    format!("  {:<16}{value}", format!("{name}:"))
}

fn lease(seconds: i64) -> String {
    match seconds {
        0 => "0 s: it does not expire".to_owned(),
        _ => format!("{seconds} s"),
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn file_names(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot list {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(failed)? {
        names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = r#"{"clientToken":"hvs.EXAMPLE-canary","accessor":"nnHdjjzv","leaseDuration":21600,"renewable":true,"vaultAddr":"http://vault:8200"}"#;

    fn printed(files: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        report(&Credentials::read(directory.path()).unwrap(), directory.path()).unwrap().join("\n")
    }

    #[test]
    fn everything_is_shown_but_the_token_is_shortened() {
        let text = printed(&[("vault-token", TOKEN), (CA_BUNDLE, "")]);
        for expected in ["ca.crt, vault-token", "hvs.EX…", "nnHdjjzv", "21600 s", "yes", "http://vault:8200"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("canary"), "{text}");
        assert!(printed(&[("vault-token", TOKEN)]).contains("none: Vault is spoken to in clear"));
        let https = TOKEN.replace("http:", "https:");
        assert!(printed(&[("vault-token", &https)]).contains("none: the public roots"));
    }

    #[test]
    fn the_other_modes_are_shortened_too() {
        let secret_id = r#"{"roleId":"52a8","secretId":"0ac2cb2f-2fb3-canary","accessor":"30e9","vaultAddr":"v"}"#;
        let text = printed(&[("vault-secret-id", secret_id)]);
        assert!(text.contains("0ac2cb…") && text.contains("30e9") && !text.contains("canary"), "{text}");
        let wrapped = r#"{"roleId":"52a8","wrappedSecretId":"hvs.EXAMPLE-canary","vaultAddr":"v","ttl":60}"#;
        let text = printed(&[("vault-wrapped-secret-id", wrapped)]);
        assert!(text.contains("hvs.EX…") && text.contains("60 s") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn values_are_printed_only_where_asked_for() {
        let Value::Object(data) = serde_json::json!({"message": "hello", "number": 1}) else { panic!("an object") };
        assert_eq!(secret(&data, false), ["  message", "  number"]);
        assert_eq!(secret(&data, true), ["  message:        hello", "  number:         1"]);
    }
}
