//! The controller's entry: arguments, configuration, logs, signals, exit code.
//!
//! Exit codes: 0 stopped by a signal, 1 Kubernetes, Vault or the storage cannot be used, 2 configuration or usage. Of a
//! command: 0 all is well, 1 it is not, or nobody answers, 2 as above.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use kubernetes_vault::cli::{self, Cli, Command};
use kubernetes_vault::config::{self, Config, Source, Warning};
use kubernetes_vault::manifests::{self, Made};
use kubernetes_vault::{app, crypto, print, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    // Before there is a second thread. Should it fail, there are more heaps, and nothing else.
    let _ = kubernetes_vault_heap::share();
    // One provider for every TLS connection of this process. It fails only if one was installed before.
    if crypto::provider().install_default().is_err() {
        return fail("a second TLS provider is in this binary", 1);
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(cli::EXIT_USAGE));
        }
    };
    match &cli.command {
        None | Some(Command::Run) => start(&cli),
        Some(Command::Manifests(flags)) => make_manifests(flags),
        Some(command) => carry_out(command, &cli),
    }
}

/// Prints manifests, or writes them and says where.
fn make_manifests(flags: &manifests::Flags) -> ExitCode {
    match manifests::make(flags) {
        Ok(Made::Text(text)) => print::out(&text),
        Ok(Made::Files(paths)) => {
            let lines: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
            print::out(&lines);
        }
        Err(error) => {
            let code = if error.is_usage() { cli::EXIT_USAGE } else { cli::EXIT_NOT_WELL };
            return fail(&format!("{:#}", anyhow::Error::from(error)), code);
        }
    }
    ExitCode::SUCCESS
}

/// Carries out a command, and ends.
fn carry_out(command: &Command, cli: &Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("nothing can be waited for: {error}"), cli::EXIT_NOT_WELL),
    };
    let paint = print::Paint::of(&std::io::stdout());
    match runtime.block_on(app::commands::carry_out(command, &source(cli), paint)) {
        Ok(said) => {
            print::out(&said.text);
            ExitCode::from(said.code)
        }
        Err(error) => {
            let code = error.code();
            fail(&format!("{:#}", anyhow::Error::from(error)), code)
        }
    }
}

fn source(cli: &Cli) -> Source {
    cli.source(std::env::var_os(config::LOCAL_CONFIG))
}

/// Runs the controller, with its configuration and its logs.
fn start(cli: &Cli) -> ExitCode {
    let (config, warnings) = match Config::load(&source(cli)) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error.to_string(), cli::EXIT_USAGE),
    };
    let level = cli.log_level.unwrap_or(config.log.level);
    let format = cli.log_format.unwrap_or(config.log.format);
    if let Err(error) = telemetry::start(level, format) {
        return fail(&format!("logs cannot be written: {error}"), cli::EXIT_NOT_WELL);
    }
    run(config, &warnings)
}

/// Each init container that is served is a connection. Where the limit of open files is the traditional 1,024, more of
/// them that hang than that would keep all others out; the hard limit is there to be used.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn run(config: Config, warnings: &[Warning]) -> ExitCode {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no threads can be started: {error}"), 1),
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(stop.clone()));
        let ended = app::run(config, stop).await;
        signals.abort();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is_misconfiguration() { cli::EXIT_USAGE } else { cli::EXIT_NOT_WELL };
            tracing::error!("{:#}", anyhow::Error::from(error));
            ExitCode::from(code)
        }
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught: this process ends without finishing what is under way");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}
