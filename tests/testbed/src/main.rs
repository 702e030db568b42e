//! The command `testbed`: a cluster and a Vault to try things on.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use testbed::{Builder, Image, Testbed, VaultOptions};
use tokio::signal::unix::{SignalKind, signal};

/// A real Kubernetes control plane and a real Vault on a private network, without root and without Docker.
#[derive(Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the servers into the cache, once on a machine.
    Build {
        /// Print where the programs are: those of one binary are links beside it.
        #[arg(long)]
        print: bool,
    },
    /// Keep a cluster until Ctrl-C, and print how to reach it.
    Up(ClusterArgs),
    /// Start a cluster, run a command in it, and exit with the command's exit code.
    Run {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run a command in a cluster that `testbed up` keeps.
    Exec {
        /// Which one, where several run: the number that `testbed up` printed.
        #[arg(long)]
        pid: Option<u32>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args)]
struct ClusterArgs {
    /// A local program that stands for an image.
    #[arg(long = "image", value_name = "NAME=PATH")]
    images: Vec<String>,
    /// Serve Vault over TLS.
    #[arg(long)]
    vault_tls: bool,
    /// How many nodes run pods.
    #[arg(long, default_value_t = 1)]
    nodes: u8,
}

fn main() -> ExitCode {
    // The hidden calls come first: their arguments are not for clap.
    let hidden = std::env::args_os().nth(1).is_some_and(|first| first.to_string_lossy().starts_with("__testbed"));
    if hidden {
        testbed::enter();
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build { print } => {
            let servers = testbed::locate_or_build()?;
            if print {
                println!("{}\n{}", servers.api_server.display(), servers.vault.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Up(cluster) => {
            testbed::enter();
            testbed::block_on(up(&cluster))
        }
        Command::Run { cluster, command } => {
            testbed::enter();
            testbed::block_on(run_in_new(&cluster, &command))
        }
        Command::Exec { pid, command } => exec(pid, &command),
    }
}

impl ClusterArgs {
    fn builder(&self) -> Result<Builder> {
        let mut builder =
            Testbed::builder().nodes(self.nodes).vault(VaultOptions { tls: self.vault_tls, ..VaultOptions::default() });
        for image in &self.images {
            let (name, path) = image.split_once('=').with_context(|| format!("--image {image}: not NAME=PATH"))?;
            // Links stay: a multi-call binary looks at the name by which it is called.
            let path = std::path::absolute(path).with_context(|| format!("--image {image}"))?;
            builder = builder.image(name, Image::new(path));
        }
        Ok(builder)
    }
}

async fn up(cluster: &ClusterArgs) -> Result<ExitCode> {
    let (bed, _) = start(cluster).await?;
    let pid = testbed::host_pid()?;
    let exports: Vec<String> = bed.variables()?.iter().map(|(name, value)| format!("export {name}={value}")).collect();
    let tools = bed.tools().display();
    let exports = format!("{}\nexport PATH={tools}:$PATH\n", exports.join("\n"));
    std::fs::write(Path::new(testbed::ROOT).join("env"), &exports).context("cannot write the variables")?;
    println!("{exports}");
    println!("# These hold inside the private network. Enter it from another terminal by either of:");
    println!("#   testbed exec --pid {pid} -- bash");
    println!("#   {} bash", testbed::join_command(pid).join(" "));
    println!("# Ctrl-C ends everything.");
    wait_for_signal().await?;
    bed.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn run_in_new(cluster: &ClusterArgs, command: &[OsString]) -> Result<ExitCode> {
    let (bed, _) = start(cluster).await?;
    let [program, arguments @ ..] = command else { bail!("no command") };
    let mut path = bed.tools().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(bed.variables()?)
        .env("PATH", path)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        signal = wait_for_signal() => {
            signal?;
            // From a terminal the command has got the signal itself; a second one does no harm.
            if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
                let _ = rustix::process::kill_process(pid, testbed::Signal::TERM);
            }
            child.wait().await?
        }
    };
    bed.stop().await;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

async fn start(cluster: &ClusterArgs) -> Result<(Testbed, Instant)> {
    let start = Instant::now();
    eprintln!("testbed: starting a control plane and Vault");
    let bed = cluster.builder()?.start().await?;
    eprintln!("testbed: ready after {:.1} s", start.elapsed().as_secs_f64());
    Ok((bed, start))
}

async fn wait_for_signal() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

fn exec(pid: Option<u32>, command: &[OsString]) -> Result<ExitCode> {
    let running = testbed::find_running()?;
    let pid = match (pid, running.as_slice()) {
        (Some(pid), _) => pid,
        (None, [pid]) => *pid,
        (None, []) => bail!("no testbed runs: start one with `testbed up` in another terminal"),
        (None, _) => bail!("several testbeds run: choose one with --pid, of {running:?}"),
    };
    let join = testbed::join_command(pid);
    let [program, arguments @ ..] = join.as_slice() else { bail!("no command") };
    let script = format!(". {}/env && exec \"$@\"", testbed::ROOT);
    let error =
        std::process::Command::new(program).args(arguments).args(["sh", "-c", &script, "sh"]).args(command).exec();
    Err(error).context("cannot start nsenter")
}
