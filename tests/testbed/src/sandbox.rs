//! The private world of a testbed: namespaces for users, network, mounts and processes.
//!
//! Owns: the way in. The process starts itself anew through `setpriv` and `unshare`, before any
//! thread exists, and stays outside as a thin parent that hands on signals and the exit code.
//!
//! Three processes stand in a row: the outer one (the one that the user started), the init of the
//! process namespace ([`init`]), and the program itself, called with its own arguments once more.
//!
//! Must never happen: something left behind. Every file is on a tmpfs that only the mount namespace
//! knows, every process is in the process namespace. When the outer process dies, its parent-death
//! signal kills `unshare`, whose own kills the init, and with an init the kernel kills the rest. As a
//! second rope the init reads a pipe whose other end only the outer process holds.

mod init;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{PipeWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent;
use crate::servers::{self, Servers};

/// First argument of the process namespace's init. No program of ours takes such an argument.
pub(crate) const INIT_ARG: &str = "__testbed-init";
/// First argument of a process that is about to become a container.
pub(crate) const CONTAINER_ARG: &str = "__testbed-container";
/// Set for everything inside; its value is the init's process id as the host sees it.
pub(crate) const INSIDE_ENV: &str = "KV_TESTBED_INSIDE";
/// Carries the paths of the servers inside, where nothing can be downloaded any more.
const SERVERS_ENV: &str = "KV_TESTBED_SERVERS";
/// Where everything of the testbed lives, on a tmpfs that dies with the mount namespace.
pub const ROOT: &str = "/run/testbed";
/// Exit code where the sandbox itself failed, apart from what the program may answer (as of `env`).
const EXIT_SANDBOX: i32 = 125;
/// Exit codes of processes that died of a signal start here, as in a shell.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Makes sure that the program runs inside the private network, on a machine that has the servers.
///
/// Call it first in `main`, before a thread starts. Outside it builds the servers where needed,
/// runs the program once more inside, and exits with its exit code. Inside it returns at once.
/// It also serves the hidden calls by which the testbed starts containers.
pub fn enter() {
    let first = env::args_os().nth(1).unwrap_or_default();
    if first == CONTAINER_ARG {
        agent::become_container();
    }
    if first == INIT_ARG {
        std::process::exit(report(init::run()));
    }
    if env::var_os(INSIDE_ENV).is_none() {
        std::process::exit(report(run_inside()));
    }
}

/// Whether this process runs inside a testbed's network already.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE_ENV).is_some()
}

/// The servers that the outer process found or built.
pub(crate) fn servers() -> Result<Servers> {
    let json =
        env::var(SERVERS_ENV).context("not inside the testbed's network: call testbed::enter() first in main")?;
    serde_json::from_str(&json).with_context(|| format!("{SERVERS_ENV} is not what enter() wrote"))
}

/// The id of the namespaces' init as the host sees it: what `nsenter --target` wants.
pub fn host_pid() -> Result<u32> {
    let pid = env::var(INSIDE_ENV).context("not inside the testbed's network")?;
    pid.parse().with_context(|| format!("{INSIDE_ENV}={pid} is not a process id"))
}

/// A running testbed as seen from outside: its init's process id.
pub fn find_running() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // Processes end while we look, and those of others cannot be read: both are not ours.
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let is_init = arguments.split(|byte| *byte == 0).nth(1) == Some(INIT_ARG.as_bytes());
        if is_init && Path::new(&format!("/proc/{pid}/root{ROOT}/env")).exists() {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The command that joins the testbed whose init has this process id on the host.
#[must_use]
pub fn join_command(pid: u32) -> Vec<String> {
    let pid = pid.to_string();
    ["nsenter", "--target", &pid, "--user", "--preserve-credentials", "--mount", "--net", "--pid", "--"]
        .map(str::to_owned)
        .to_vec()
}

fn report(result: Result<i32>) -> i32 {
    result.unwrap_or_else(|error| {
        eprintln!("testbed: {error:#}");
        EXIT_SANDBOX
    })
}

fn run_inside() -> Result<i32> {
    let namespaces = choose_namespaces()?;
    let servers = servers::locate_or_build()?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    // Only the reading end may reach the init: the writing end must close when we die.
    fcntl_setfd(&reader, FdFlags::empty()).context("cannot hand the pipe down")?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(namespaces)
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
        .arg(env::current_exe().context("cannot tell which program this is")?)
        .arg(INIT_ARG)
        .arg(reader.as_raw_fd().to_string())
        .args(env::args_os().skip(1))
        .env(SERVERS_ENV, serde_json::to_string(&servers)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(supervise(command, writer));
    drop(reader);
    code
}

/// Waits for the inside, handing on the signals that ask for an end.
async fn supervise(command: Command, mut writer: PipeWriter) -> Result<i32> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .context("cannot start setpriv (Debian, Ubuntu: apt install util-linux)")?;
    loop {
        let signal = tokio::select! {
            status = child.wait() => {
                let status = status.context("cannot wait for the sandbox")?;
                return Ok(status.code().unwrap_or_else(|| {
                    EXIT_SIGNAL_BASE + status.signal().unwrap_or_default()
                }));
            }
            // A terminal sends Ctrl-C to the inside too, but the program may not have been there yet: twice does no harm.
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        // A broken pipe means that the inside is ending anyway; its status comes next.
        let _ = writeln!(writer, "{}", signal.as_raw_value());
    }
}

/// A user namespace where it is allowed, none where we are root and it is not.
fn choose_namespaces() -> Result<Vec<OsString>> {
    let user: Vec<OsString> = ["--user", "--map-root-user"].map(OsString::from).to_vec();
    let rootless = probe(&user)?;
    if rootless.status.success() {
        return Ok(user);
    }
    if rustix::process::geteuid().is_root() && probe(&[])?.status.success() {
        return Ok(Vec::new());
    }
    bail!(
        "this machine does not let us make a private network: {}\n\
         Allow user namespaces, whichever of these your kernel has (as root):\n\
         \u{20}   sysctl -w kernel.unprivileged_userns_clone=1\n\
         \u{20}   sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n\
         \u{20}   sysctl -w user.max_user_namespaces=15000\n\
         or run as root; in a container, start that with --privileged",
        String::from_utf8_lossy(&rootless.stderr).trim()
    )
}

fn probe(user: &[OsString]) -> Result<Output> {
    Command::new("unshare")
        .args(user)
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "true"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start unshare (Debian, Ubuntu: apt install util-linux)")
}

/// A directory of this sandbox that no other testbed in it uses, and its number from 1.
pub(crate) fn claim_directory() -> Result<(u8, PathBuf)> {
    for number in 1..=u8::MAX {
        let path = Path::new(ROOT).join(number.to_string());
        match fs::create_dir(&path) {
            Ok(()) => return Ok((number, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", path.display()));
            }
        }
    }
    bail!("255 testbeds were started in one process: start fewer, or in processes of their own")
}
