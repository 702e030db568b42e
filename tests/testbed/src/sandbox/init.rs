//! The first process inside: prepares the namespaces, starts the program, reaps orphans.
//!
//! Owns: the mounts and the network that everything inside sees, and the program's life.
//!
//! Must never happen: that it outlives the outer process, or ends before the program has.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::{EXIT_SIGNAL_BASE, INSIDE_ENV, ROOT};
use crate::network;

/// Name of the directory that takes temporary files of everything inside.
const TEMPORARY: &str = "tmp";

/// Runs as the init of the process namespace; returns the program's exit code.
pub(super) fn run() -> Result<i32> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask for a parent-death signal")?;
    let mut arguments = env::args_os().skip(2);
    let pipe = arguments.next().context("the pipe's number is missing")?;
    let pipe = Path::new("/proc/self/fd").join(pipe);
    let pipe = File::open(&pipe).with_context(|| format!("cannot open {}", pipe.display()))?;
    // /proc still is the host's: it knows us by the id that the host sees.
    let host_pid = fs::read_link("/proc/self").context("cannot read /proc/self")?;
    mount_private_files()?;
    network::set_up()?;
    let program = env::current_exe().context("cannot tell which program this is")?;
    let child = Command::new(program)
        .args(arguments)
        .env(INSIDE_ENV, host_pid)
        .env("TMPDIR", Path::new(ROOT).join(TEMPORARY))
        .spawn()
        .context("cannot start the program inside")?;
    let pid = Pid::from_child(&child);
    std::thread::spawn(move || follow_outer(pipe, pid));
    reap_until(pid)
}

/// Hands on each signal that the outer process names; ends everything once that process is gone.
fn follow_outer(pipe: File, program: Pid) {
    for line in BufReader::new(pipe).lines() {
        let signal = line.ok().and_then(|line| line.parse().ok()).and_then(Signal::from_named_raw);
        if let Some(signal) = signal {
            // It fails only where the program has ended, which `reap_until` sees.
            let _ = kill_process(program, signal);
        }
    }
    std::process::exit(EXIT_SIGNAL_BASE + Signal::KILL.as_raw());
}

fn reap_until(program: Pid) -> Result<i32> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                let by_signal = status.terminating_signal().map(|signal| EXIT_SIGNAL_BASE + signal);
                return Ok(status.exit_status().or(by_signal).unwrap_or(EXIT_SIGNAL_BASE));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the program"),
        }
    }
}

fn mount_private_files() -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", flags | MountFlags::NOEXEC, None)
        .context("cannot mount /proc for the new process namespace")?;
    // NixOS finds its programs through links in /run: they are made again on the tmpfs.
    let links = links_in(Path::new("/run"))?;
    mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=0755")).context("cannot mount a tmpfs")?;
    for (path, target) in links {
        symlink(&target, &path).with_context(|| format!("cannot link {}", path.display()))?;
    }
    fs::create_dir_all(Path::new(ROOT).join(TEMPORARY)).context("cannot create the root")?;
    Ok(())
}

fn links_in(directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if let Ok(target) = fs::read_link(&path) {
            links.push((path, target));
        }
    }
    Ok(links)
}
