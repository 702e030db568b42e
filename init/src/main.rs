//! The init container: waits for one push, turns it into credentials on a shared volume, and ends.
//!
//! This file: arguments, the order of the start, signals, and the end. Nothing else.
#![forbid(unsafe_code)]

mod body;
mod cert;
mod clock;
mod config;
mod connections;
mod creation_path;
mod endpoint;
mod entropy;
mod exit;
mod gate;
mod http_client;
mod identity;
mod log;
mod proxy;
mod receive;
mod tls;
mod vault;
mod work;
mod write;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::config::Config;
use crate::exit::{Cause, Failure};

/// Enough for the one thing that runs on a thread of its own, name resolution; the default is 2 MiB.
const THREAD_STACK_BYTES: usize = 256 << 10;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("version") {
        println!("{}", version());
        return ExitCode::SUCCESS;
    }
    // What is in memory must not end up in a file of the node when the process crashes. It may already be so set.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.cause.code())
        }
    }
}

/// `KUBERNETES_VAULT_*` are set by whoever builds a release.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let commit = option_env!("KUBERNETES_VAULT_COMMIT").unwrap_or("unknown");
    let date = option_env!("KUBERNETES_VAULT_BUILD_DATE").unwrap_or("unknown");
    format!("Kubernetes-Vault init container {version} ({commit}) built on {date}")
}

fn start() -> Result<(), Failure> {
    let started = Instant::now();
    let get = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    log::set_debug(config::debug_wanted(get)?);
    let config = Config::read(get)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build()
        .map_err(|e| Failure::new(Cause::Internal, format!("Cannot start: {e}.")))?;
    let result = runtime.block_on(run(config, started));
    // A name resolution that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn run(config: Config, started: Instant) -> Result<(), Failure> {
    let mut sigterm = signal(SignalKind::terminate())
        .map_err(|e| Failure::new(Cause::Internal, format!("Cannot listen for signals: {e}.")))?;
    let directory = write::Directory::open(&config.credentials_path)?;
    let timeout = config.timeout;
    // A TIMEOUT beyond what the clock can hold is none.
    let wait = Duration::try_from(timeout).unwrap_or(Duration::ZERO);
    let deadline = started.checked_add(wait);
    let listener = receive::listen()?;
    let tls = cert::server(timeout)?;
    for line in config.overrides() {
        log::debug(&line);
    }
    log::debug(&format!(
        "Listening on port {}, waiting {} for the secret_id.",
        wire::limits::PORT,
        wire::duration::format(timeout)
    ));
    let worker = Arc::new(work::Worker { config, directory });
    tokio::select! {
        result = receive::serve(listener, tls, worker, deadline) => result,
        _ = sigterm.recv() => Err(Failure::new(Cause::Terminated, "Terminated while waiting for the secret_id.")),
    }
}
