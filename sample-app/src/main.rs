//! The sample application: shows what the init container left for it, reads a secret with it, and waits.
//!
//! This file: the order of the steps, and the end. Nothing of it is meant for production; it is here to be read.
#![forbid(unsafe_code)]

mod credentials;
mod report;
mod settings;
mod shorten;
mod vault;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rustls::crypto::ring;
use tokio::signal::unix::{SignalKind, signal};

use crate::credentials::{CA_BUNDLE, Credentials};
use crate::report::report;
use crate::settings::Settings;
use crate::vault::{Login, Vault};

fn main() -> ExitCode {
    // An error would mean that there is one already, and ring is the only one that is compiled in.
    let _ = ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("cannot start").and_then(|runtime| runtime.block_on(run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample-app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    // Before anything else: a pod that is deleted while we talk to Vault should end at once.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = show(&settings) => result?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    }
    if settings.exit_after_show {
        return Ok(());
    }
    println!("Waiting until this pod is deleted.");
    tokio::select! {
        _ = terminated.recv() => println!("Terminated."),
        _ = interrupted.recv() => println!("Interrupted."),
    }
    Ok(())
}

async fn show(settings: &Settings) -> Result<()> {
    let credentials = Credentials::read(&settings.credentials_path)?;
    for line in report(&credentials, &settings.credentials_path)? {
        println!("{line}");
    }
    let bundle = credentials::bundle(&settings.credentials_path)?;
    let vault = Vault::new(credentials.vault_address(), settings.namespace.as_deref(), bundle.as_deref())
        .with_context(|| match bundle {
            Some(_) => format!("cannot prepare for Vault with {CA_BUNDLE}"),
            None => "cannot prepare for Vault".to_owned(),
        })?;
    let token = match &credentials {
        Credentials::Token(file) => file.client_token.clone(),
        Credentials::SecretId(file) => {
            let login = vault.log_in(&settings.approle_mount, &file.role_id, &file.secret_id).await?;
            announce_login(&login, &settings.approle_mount)
        }
        Credentials::WrappedSecretId(file) => {
            let secret_id = vault.unwrap_secret_id(&settings.approle_mount, &file.wrapped_secret_id).await?;
            println!("Unwrapped the secret_id.");
            let login = vault.log_in(&settings.approle_mount, &file.role_id, &secret_id).await?;
            announce_login(&login, &settings.approle_mount)
        }
    };
    let secret = vault.read(&settings.secret_path, &token).await?;
    println!("Read {}:", settings.secret_path);
    for line in report::secret(&secret, settings.show_values) {
        println!("{line}");
    }
    Ok(())
}

fn announce_login(login: &Login, mount: &str) -> shorten::Secret {
    println!("Logged in at auth/{mount}:");
    for line in report::login(login) {
        println!("{line}");
    }
    login.client_token.clone()
}
