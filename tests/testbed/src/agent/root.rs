//! How a process becomes a container: the last steps before it turns into the image's program.
//!
//! Runs as `<this program> __testbed-container <launch file>` in mount and host name namespaces of its
//! own. Owns: the container's root, a tmpfs that holds the machine's /usr and libraries, the image's
//! program, the pod's volumes, and nothing else of the machine.
//!
//! Must never happen: writing to the machine's files. What a pod mounts below /etc or /dev lies in
//! folders of the tmpfs; /usr and the libraries are read-only.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root, setsid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

/// Exit code of a container that could not be started, as containerd gives it.
pub(crate) const EXIT_START: i32 = 128;
/// Folders of the machine without which its dynamically linked programs do not run.
const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "nix"];
/// Files of /etc that programs need to find libraries, users and public roots.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "pki",
    "protocols",
    "services",
    "ssl",
    "static",
];
const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

/// One file or folder that a container sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// Everything that a process needs to know to become the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) hostname: String,
    /// Name of the network namespace; none for a pod of the host's network.
    pub(crate) network: Option<String>,
    /// An empty folder on which the root is mounted.
    pub(crate) root: PathBuf,
    pub(crate) binds: Vec<Bind>,
    pub(crate) read_only_root: bool,
    pub(crate) directory: String,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Takes the reason where the start fails.
    pub(crate) error_file: PathBuf,
}

/// Turns this process into the container's program, or writes why not and exits.
pub(crate) fn become_container() -> ! {
    let result = std::env::args_os().nth(2).context("no launch file").and_then(|path| read_launch(Path::new(&path)));
    let error = match result {
        Ok(launch) => {
            // Opened now, because its path is out of reach once the root has changed.
            let report = File::create(&launch.error_file);
            let Err(error) = start(&launch);
            if let Ok(mut report) = report {
                // Nobody is left to be told when even this fails; the exit code speaks.
                let _ = io::Write::write_all(&mut report, format!("{error:#}").as_bytes());
            }
            error
        }
        Err(error) => error,
    };
    eprintln!("testbed: the container cannot be started: {error:#}");
    std::process::exit(EXIT_START);
}

fn read_launch(path: &Path) -> Result<Launch> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot decode {}", path.display()))
}

fn start(launch: &Launch) -> Result<std::convert::Infallible> {
    setsid().context("cannot start a session")?;
    if let Some(name) = &launch.network {
        let path = Path::new("/run/netns").join(name);
        let namespace = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the pod's network")?;
    }
    rustix::system::sethostname(launch.hostname.as_bytes()).context("cannot set the host name")?;
    build_root(launch)?;
    enter_root(&launch.root, launch.read_only_root)?;
    chdir(&launch.directory).with_context(|| format!("cannot enter {}", launch.directory))?;
    let error = Command::new(&launch.program)
        .args(&launch.arguments)
        .env_clear()
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        // Lets go of the pipe by which the agent waits for this moment.
        .stdin(Stdio::null())
        .exec();
    Err(error).with_context(|| format!("cannot execute {}", launch.program))
}

fn build_root(launch: &Launch) -> Result<()> {
    let root = &launch.root;
    mount("tmpfs", root, "tmpfs", MountFlags::NOSUID, Some(c"mode=0755")).context("cannot mount the root")?;
    for name in SYSTEM {
        let source = Path::new("/").join(name);
        match fs::read_link(&source) {
            // /bin is a link to usr/bin on most machines.
            Ok(target) => symlink(target, root.join(name))?,
            Err(_) if source.is_dir() => bind(&source, root, &format!("/{name}"), true)?,
            Err(_) => {}
        }
    }
    fs::create_dir(root.join("etc"))?;
    for name in ETC {
        let source = Path::new("/etc").join(name);
        if source.exists() {
            bind(&source, root, &format!("/etc/{name}"), true)?;
        }
    }
    fs::write(root.join("etc/hostname"), format!("{}\n", launch.hostname))?;
    // Names come from the hosts file; without this file the resolver would look for a server.
    fs::write(root.join("etc/resolv.conf"), "")?;
    for name in ["tmp", "run", "var", "root"] {
        fs::create_dir(root.join(name))?;
    }
    // Relative: an absolute link would lead out of the root while mounts are still being made.
    symlink("../run", root.join("var/run"))?;
    build_devices(root)?;
    bind(Path::new("/proc"), root, "/proc", false)?;
    bind(Path::new("/sys"), root, "/sys", false)?;
    for item in &launch.binds {
        bind(&item.source, root, &item.target, item.read_only)?;
    }
    Ok(())
}

fn build_devices(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("dev/shm"))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            bind(&source, root, &format!("/dev/{name}"), false)?;
        }
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(format!("/proc/self/{target}"), root.join("dev").join(name))?;
    }
    Ok(())
}

/// Mounts one file or folder, making its place first.
fn bind(source: &Path, root: &Path, target: &str, read_only: bool) -> Result<()> {
    let place = root.join(target.trim_start_matches('/'));
    if source.is_dir() {
        fs::create_dir_all(&place).with_context(|| format!("cannot create {target}"))?;
    } else {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create the folder of {target}"))?;
        }
        File::options().create(true).append(true).open(&place).with_context(|| format!("cannot create {target}"))?;
    }
    mount_bind_recursive(source, &place).with_context(|| format!("cannot mount {} at {target}", source.display()))?;
    if read_only {
        make_read_only(&place).with_context(|| format!("cannot make {target} read-only"))?;
    }
    Ok(())
}

/// A user namespace may not drop flags of the mount that it inherited, so they are kept.
fn make_read_only(place: &Path) -> Result<()> {
    let kept = rustix::fs::statvfs(place)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (flag, mount_flag) in [
        (rustix::fs::StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (rustix::fs::StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (rustix::fs::StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if kept.contains(flag) {
            flags |= mount_flag;
        }
    }
    mount_remount(place, flags, c"").map_err(Into::into)
}

fn enter_root(root: &Path, read_only: bool) -> Result<()> {
    chdir(root).context("cannot enter the root")?;
    pivot_root(".", ".").context("cannot change the root")?;
    // The old root now lies over the new one, at the same place.
    mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot part from the old root")?;
    unmount(".", UnmountFlags::DETACH).context("cannot leave the old root")?;
    chdir("/").context("cannot enter the new root")?;
    if read_only {
        make_read_only(Path::new("/")).context("cannot make the root read-only")?;
    }
    Ok(())
}
