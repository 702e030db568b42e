//! Builds one server from its Go module into the cache.
//!
//! Owns: the lock and the temporary folder of a build.
//!
//! Must never happen: silence. A build takes minutes, so a line says every 20 seconds how far it is.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a build says that it lives.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);
/// Lines of the compiler that an error message repeats.
const ERROR_LINES: usize = 20;
/// The Go that the modules ask for (`go` in their go.mod).
const GO_AT_LEAST: (u32, u32) = (1, 26);
const GO_REMEDY: &str =
    "install Go 1.26 or later from https://go.dev/dl/ (Debian's is older) and put its bin directory on PATH";

/// How one multi-call binary or server is built.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) go_mod: &'static str,
    pub(super) go_sum: &'static str,
    pub(super) main_go: &'static str,
    pub(super) ldflags: &'static str,
    /// Names by which the binary is called; none means its own alone.
    pub(super) links: &'static [&'static str],
    /// How long a cold build took on two cores.
    pub(super) minutes: &'static str,
}

impl Recipe {
    /// The folder with the binary and its links.
    pub(super) fn locate_or_build(&self, cache: &Path) -> Result<PathBuf> {
        let sources = format!("{}-{:016x}", self.name, self.hash());
        let version = match go_version() {
            Ok(version) => version,
            // What was built once goes on working on a machine that lost its Go.
            Err(error) => return built_before(cache, &sources).ok_or(error),
        };
        let directory = cache.join(format!("{sources}-{version}"));
        if directory.is_dir() {
            return Ok(directory);
        }
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let _lock = self.lock(cache)?;
        if !directory.is_dir() {
            self.build(cache, &directory)?;
        }
        Ok(directory)
    }

    /// FNV-1a over the sources: it tells versions apart, it need not resist an attacker.
    fn hash(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        [self.go_mod, self.go_sum, self.main_go, self.ldflags]
            .iter()
            .flat_map(|text| text.bytes().chain([0]))
            .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }

    fn lock(&self, cache: &Path) -> Result<File> {
        let path = cache.join(format!(".{}.lock", self.name));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("testbed: another process builds {}; waiting for it", self.name);
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    fn build(&self, cache: &Path, directory: &Path) -> Result<()> {
        eprintln!(
            "testbed: building {}, once on this machine (about {} minutes on two cores)",
            self.name, self.minutes
        );
        let prefix = format!(".build-{}-", self.name);
        remove_leftovers(cache, &prefix);
        let work = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(cache)
            .context("cannot create a folder for the build")?;
        let (sources, output) = (work.path().join("src"), work.path().join("out"));
        fs::create_dir(&sources)?;
        fs::create_dir(&output)?;
        for (name, text) in [("go.mod", self.go_mod), ("go.sum", self.go_sum), ("main.go", self.main_go)] {
            fs::write(sources.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        self.compile(&sources, &output)?;
        for link in self.links {
            symlink(self.name, output.join(link)).with_context(|| format!("cannot link {link}"))?;
        }
        fs::rename(&output, directory).with_context(|| format!("cannot move the build to {}", directory.display()))
    }

    fn compile(&self, sources: &Path, output: &Path) -> Result<()> {
        let mut child = Command::new("go")
            .args(["build", "-v", "-trimpath", "-ldflags", self.ldflags, "-o"])
            .arg(output.join(self.name))
            .arg(".")
            .current_dir(sources)
            .env("CGO_ENABLED", "0")
            // A user's flags (-mod=vendor, say) are meant for the user's own modules.
            .env("GOFLAGS", "")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start go: {GO_REMEDY}"))?;
        let stderr = child.stderr.take().context("go has no stderr")?;
        let last_lines = self.follow(stderr);
        if !child.wait().context("cannot wait for go")?.success() {
            bail!("cannot build {}:\n{}", self.name, last_lines.join("\n"));
        }
        Ok(())
    }

    /// Prints how far the build is; returns the last lines for an error message.
    fn follow(&self, stderr: ChildStderr) -> Vec<String> {
        let start = Instant::now();
        // A line is a package or a download; the bound only keeps memory in check.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1024);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (mut lines, mut last_lines) = (0_usize, Vec::new());
        let mut next = start + PROGRESS_EVERY;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(wait) {
                Ok(line) => {
                    lines += 1;
                    if last_lines.len() == ERROR_LINES {
                        last_lines.remove(0);
                    }
                    last_lines.push(line);
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    let seconds = start.elapsed().as_secs();
                    eprintln!("testbed: building {}: {seconds} s, {lines} packages", self.name);
                    next += PROGRESS_EVERY;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = reader.join();
        last_lines
    }
}

/// The Go on PATH, refused where it is older than the modules ask for.
fn go_version() -> Result<String> {
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .current_dir("/")
        .output()
        .with_context(|| format!("the servers of the testbed are built with Go, which is missing: {GO_REMEDY}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if parse_go_version(&version).is_none_or(|version| version < GO_AT_LEAST) {
        bail!("the servers of the testbed need Go 1.26 or later, this is {version:?}: {GO_REMEDY}");
    }
    Ok(version)
}

fn parse_go_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn built_before(cache: &Path, sources: &str) -> Option<PathBuf> {
    let prefix = format!("{sources}-");
    fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
}

/// Folders of builds that were killed. We hold the lock, so nobody uses them.
fn remove_leftovers(cache: &Path, prefix: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // One that cannot be removed takes space and does no other harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_compared_by_number() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert!(parse_go_version("go1.9").is_some_and(|version| version < GO_AT_LEAST));
        assert_eq!(parse_go_version("devel"), None);
    }
}
