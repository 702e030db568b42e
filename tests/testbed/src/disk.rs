//! A disk of a node that a case can fill.
//!
//! Owns its ballast, the one file in it that no pod has written.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate};

const BALLAST: &str = "ballast";
/// The smallest piece that there may be room for.
const BLOCK: [u8; 4096] = [0; 4096];

/// See the module. It goes with the sandbox.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    bytes: u64,
}

impl Disk {
    pub(crate) fn new(folder: PathBuf, bytes: u64) -> Self {
        Self { folder, bytes }
    }

    /// Takes all the room that there is, and that which files have reserved beyond their ends: a database would go on in
    /// it for thousands of writes, and on many disks there is no such thing. Nobody may be writing meanwhile.
    pub fn fill(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                self.release_reserved(&entry.path())?;
            }
        }
        let mut ballast = File::create(self.folder.join(BALLAST))?;
        loop {
            match ballast.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
    }

    /// Gives the room back.
    pub fn clear(&self) -> Result<()> {
        fs::remove_file(self.folder.join(BALLAST)).context("the disk was not filled")
    }

    fn release_reserved(&self, file: &Path) -> Result<()> {
        let failed = || format!("cannot take back what is reserved for {}", file.display());
        let file = File::options().write(true).open(file).with_context(failed)?;
        let end = file.metadata()?.len().next_multiple_of(BLOCK.len() as u64);
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, end, self.bytes).with_context(failed)
    }
}
