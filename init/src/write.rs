//! The credentials directory: every file appears in it whole, with its final mode, or not at all.
//!
//! The directory is shared with the pod's other containers, so nothing in it is trusted: it is opened once and
//! worked on by its descriptor, temporary names cannot be guessed, and no symbolic link is followed.
//!
//! Must never: leave a partial file, write through a link, or widen who may read a file before it is complete.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, openat, renameat, unlinkat};

use crate::exit::{Cause, Failure};

/// Every container of the pod may read the files, whoever it runs as, and none may change them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o444);

/// What our temporary files start with. A dot: tools that list credentials skip them.
const TEMPORARY: &str = ".kubernetes-vault-init.";

/// The directory that CREDENTIALS_PATH names.
pub(crate) struct Directory {
    fd: OwnedFd,
    path: String,
}

impl Directory {
    /// Opens the directory, clears what a killed predecessor left in it, and makes sure that it can be written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        // By components: a trailing slash or dot would make the kernel follow a link in the last one.
        let plain: std::path::PathBuf = path.components().collect();
        let shown = path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&plain, flags, Mode::empty()).map_err(|e| {
            let is_link = std::fs::symlink_metadata(&plain).is_ok_and(|meta| meta.is_symlink());
            let why = if is_link { "it is a symbolic link".to_owned() } else { io::Error::from(e).to_string() };
            unwritable(&shown, &why)
        })?;
        let directory = Self { fd, path: shown };
        directory.sweep();
        directory.check()?;
        Ok(directory)
    }

    /// Whether a file can be made here, now.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.make_temporary()
            .and_then(|(_, name)| Ok(unlinkat(&self.fd, &name, AtFlags::empty())?))
            .map_err(|e| unwritable(&self.path, &e.to_string()))
    }

    /// Puts a file in place. What was there under its name is replaced, a symbolic link included.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        self.replace(name, content).map_err(|e| unwritable(&self.path, &format!("{name}: {e}")))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (mut file, temporary) = self.make_temporary()?;
        let placed = file
            .write_all(content)
            // On the descriptor, because the umask does not apply there.
            .and_then(|()| Ok(fchmod(&file, FILE_MODE)?))
            // DURABILITY: the name must not survive a crash of the node without its content.
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.fd, &temporary, &self.fd, name)?));
        if placed.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(&self.fd, &temporary, AtFlags::empty());
            return placed;
        }
        // DURABILITY: and the content not without its name.
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn make_temporary(&self) -> io::Result<(File, String)> {
        let random = crate::entropy::random().ok_or_else(|| io::Error::other("the kernel gives no random bytes"))?;
        let name = format!("{TEMPORARY}{random:016x}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((File::from(fd), name))
    }

    /// Removes temporary files of a predecessor that was killed between two system calls. Best effort: it may not
    /// be ours to remove, and that is no reason not to start.
    fn sweep(&self) {
        let Ok(entries) = Dir::read_from(&self.fd) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
                let _ = unlinkat(&self.fd, entry.file_name(), AtFlags::empty());
            }
        }
    }
}

fn unwritable(path: &str, why: &str) -> Failure {
    Failure::new(Cause::Directory, format!("Cannot write to CREDENTIALS_PATH ({path}): {why}."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_readable_by_all_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).ok().unwrap();
        assert!(names(dir.path()).is_empty());
        for content in ["first", "second, over a file of mode 0444"] {
            directory.write("vault-token", content.as_bytes()).ok().unwrap();
            let path = dir.path().join("vault-token");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o444);
            assert_eq!(names(dir.path()), ["vault-token"]);
        }
    }

    #[test]
    fn a_link_in_the_files_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        symlink(&victim, dir.path().join("vault-token")).unwrap();
        Directory::open(dir.path()).ok().unwrap().write("vault-token", b"x").ok().unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert!(!dir.path().join("vault-token").is_symlink());
    }

    // Bad-input table: CREDENTIALS_PATH whose last component is a symlink.
    #[test]
    fn a_directory_by_way_of_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        for name in ["link", "link/", "link/.", "link//"] {
            let failure = Directory::open(&dir.path().join(name)).err().unwrap();
            assert!(failure.what.contains("symbolic link"), "{}", failure.what);
        }
        assert!(Directory::open(&dir.path().join("link/../real/")).is_ok());
    }

    #[test]
    fn what_is_in_the_way_fails_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("vault-token/x")).unwrap();
        let failure = Directory::open(dir.path()).ok().unwrap().write("vault-token", b"x").err().unwrap();
        assert_eq!(failure.cause, Cause::Directory);
        assert_eq!(names(dir.path()), ["vault-token"]);
    }

    #[test]
    fn leftovers_of_a_killed_predecessor_go() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".kubernetes-vault-init.0123"), "half a tok").unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        assert!(Directory::open(dir.path()).is_ok());
        assert_eq!(names(dir.path()), ["other"]);
    }

    // Bad-input table: unwritable CREDENTIALS_PATH.
    #[test]
    fn a_directory_that_is_none_is_refused() {
        for path in ["/nonexistent/x", "/proc/self/status", "/proc/self"] {
            let failure = Directory::open(Path::new(path)).err().unwrap();
            assert_eq!(failure.cause, Cause::Directory);
            assert!(failure.what.contains(path), "{}", failure.what);
        }
    }
}
