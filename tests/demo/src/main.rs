//! `make demo`: the main job on a real control plane and a real Vault, step by step, with times.
//!
//! This file: arguments, the way into the testbed, and how everything ends. The story itself is in [`story`].
//!
//! Must never happen: a secret printed in full; anything left behind, whenever it is interrupted.
#![forbid(unsafe_code)]

mod around;
mod container_logs;
mod failover;
mod failure;
mod files;
mod follow;
mod modes;
mod programs;
mod records;
mod replicas;
mod sample;
mod screen;
mod setup;
mod shell;
mod signals;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use testbed::{Builder, Testbed};
use tokio::time::timeout;

use crate::programs::Programs;
use crate::screen::Screen;
use crate::signals::Signals;

/// Something is missing before anything was started.
const EXIT_USAGE: u8 = 2;
/// Ctrl-C reaches every process of the terminal at once: what fails within this time failed because of it.
const INTERRUPTED_TOO: Duration = Duration::from_millis(500);
/// For an end in order. What is left then dies with the namespaces.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Shows the main job on a real Kubernetes control plane and a real Vault, and waits until Ctrl-C.
#[derive(Parser)]
#[command(name = "demo", after_help = "`make demo` builds what it needs; `make demo ARGS=--exit` passes arguments.")]
struct Arguments {
    /// End after the last step instead of waiting; the exit code says whether all went well.
    #[arg(long)]
    exit: bool,
}

fn main() -> ExitCode {
    // The hidden calls come first: their arguments are not for clap.
    let first = std::env::args_os().nth(1).unwrap_or_default();
    if first.to_string_lossy().starts_with("__testbed") {
        testbed::enter();
    }
    let arguments = Arguments::parse();
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    testbed::enter();
    match testbed::block_on(run(&arguments, programs)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, programs: Programs) -> Result<ExitCode> {
    // Before anything else: from now on a signal is an end, not an accident.
    let mut signals = Signals::new()?;
    let notes = failure::Notes::divert()?;
    let screen = Screen::new();
    screen.title("kubernetes-vault: pods get their Vault tokens, also while the controller's leader is lost");
    screen.text("A real Kubernetes control plane and a real Vault, on a private network of this machine.");
    let started = tokio::select! {
        biased;
        signal = signals.next() => return Ok(interrupted(&screen, signal)),
        started = start(&screen, programs) => started,
    };
    let bed = match started {
        Ok(bed) => bed,
        Err(error) => return Ok(failed(&screen, &mut signals, &error, None, &notes).await),
    };
    let told = tokio::select! {
        biased;
        signal = signals.next() => return Ok(interrupted(&screen, signal)),
        told = show(arguments, &bed, &screen) => told,
    };
    if let Err(error) = told {
        return Ok(failed(&screen, &mut signals, &error, Some(&bed), &notes).await);
    }
    if !arguments.exit {
        signals.next().await;
        screen.blank();
        screen.milestone("Ending.");
    }
    // Beyond the limit the kernel does it: all processes are in one namespace.
    let _ = timeout(STOP_LIMIT, bed.stop()).await;
    screen.milestone("Ended; nothing is left behind.");
    Ok(ExitCode::SUCCESS)
}

async fn show(arguments: &Arguments, bed: &Testbed, screen: &Screen) -> Result<()> {
    story::tell(bed, screen).await?;
    if arguments.exit { Ok(()) } else { around::show(bed, screen).await }
}

async fn start(screen: &Screen, programs: Programs) -> Result<Testbed> {
    screen.step("Start the servers: Kubernetes, one node, Vault");
    let builder: Builder = programs.into_images(Testbed::builder());
    let bed = builder.start().await.context("the servers did not start")?;
    setup::show_servers(&bed, screen).await?;
    screen.done("ready");
    Ok(bed)
}

fn interrupted(screen: &Screen, signal: u8) -> ExitCode {
    screen.blank();
    screen.milestone("Interrupted; nothing is left behind.");
    ExitCode::from(signals::EXIT_BASE + signal)
}

async fn failed(
    screen: &Screen,
    signals: &mut Signals,
    error: &anyhow::Error,
    bed: Option<&Testbed>,
    notes: &failure::Notes,
) -> ExitCode {
    if let Ok(signal) = timeout(INTERRUPTED_TOO, signals.next()).await {
        return interrupted(screen, signal);
    }
    tokio::select! {
        biased;
        signal = signals.next() => return interrupted(screen, signal),
        () = failure::show(screen, error, bed, notes) => {}
    }
    ExitCode::FAILURE
}
