//! Small files that the configuration names: read within limits, and watched by what they hold.
//!
//! Must never: wait for a pipe, or keep what was read longer than whoever asked for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// A chain of certificates, a bundle or a token has some kilobytes; beyond this the path is wrong.
const BYTES_MAX: u64 = 1024 * 1024;

/// How often files are looked at. They are small and in memory, mostly; the kubelet itself takes up to a minute to bring
/// a changed Secret into a pod.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the file at `path` holds. It is wiped when it is dropped: it may be a key.
///
/// # Errors
/// It cannot be read, is no regular file, or larger than a mebibyte.
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = match fs::metadata(path)? {
        about if about.is_file() => about.len(),
        _ => return Err(io::Error::other("not a regular file")),
    };
    // Growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size.min(BYTES_MAX)).unwrap_or_default() + 1));
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("larger than {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Tells whether any of some files holds something else than before.
///
/// By content, since mounted Secrets change by a link that is swapped: neither the time nor the inode that a path had
/// says anything. A file that is gone, or cannot be read, is another content too.
#[derive(Default)]
pub struct Watched {
    paths: Vec<PathBuf>,
    seen: Option<[u8; 32]>,
}

impl Watched {
    /// Of the files at `paths`, as they are now.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut watched = Self { paths: paths.into_iter().collect(), seen: None };
        watched.changed();
        watched
    }

    /// Whether something has changed since the last question. Reads all of them, which takes no time worth a thread of its
    /// own.
    pub fn changed(&mut self) -> bool {
        let mut context = Context::new(&SHA256);
        for path in &self.paths {
            match read(path) {
                Ok(bytes) => {
                    context.update(&[0]);
                    context.update(&(bytes.len() as u64).to_be_bytes());
                    context.update(&bytes);
                }
                Err(_) => context.update(&[1]),
            }
        }
        let now = context.finish().as_ref().try_into().ok();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("one"), "1").unwrap();
        let mut watched = Watched::new([path("one"), path("two")]);
        assert!(!watched.changed());
        fs::write(path("two"), "").unwrap();
        assert!(watched.changed(), "a file has come");
        fs::write(path("one"), "2").unwrap();
        assert!(watched.changed());
        fs::remove_file(path("two")).unwrap();
        assert!(watched.changed(), "a file has gone");
        assert!(!watched.changed());
    }

    // As the kubelet writes a mounted Secret: the file stays a link to `..data/tls.crt`, and `..data` is swapped.
    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, content) in [("v1", "old"), ("v2", "new")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("tls.crt"), content).unwrap();
        }
        std::os::unix::fs::symlink("v1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/tls.crt", path("tls.crt")).unwrap();
        let mut watched = Watched::new([path("tls.crt")]);
        std::os::unix::fs::symlink("v2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert!(watched.changed());
        assert!(!watched.changed());
    }

    #[test]
    fn what_is_no_small_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        let large = folder.path().join("large");
        fs::write(&large, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(read(&large).unwrap_err().to_string().contains("larger than"));
    }
}
