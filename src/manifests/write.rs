//! Files on disk.
//!
//! Must never happen: something overwritten that this command has not made. A folder of manifests is where people keep
//! their own beside ours, and what they have changed in ours by hand is better lost loudly than silently: a file of ours
//! keeps its first line, so that it is known; whoever wants to keep an edit takes that line out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::document::MARK;
use super::error::Error;
use super::kustomize::File;

/// Writes all of them below `folder`; none, where one of them is in the way.
///
/// # Errors
/// Which file, and why.
pub(super) fn all(folder: &Path, files: &[File]) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for file in files {
        let path = folder.join(&file.path);
        if !is_free(&path, &file.text)? {
            return Err(Error::NotOurs(path));
        }
        paths.push(path);
    }
    for (file, path) in files.iter().zip(&paths) {
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|cause| Error::Write { path: parent.to_owned(), cause })?;
        fs::write(path, &file.text).map_err(|cause| Error::Write { path: path.clone(), cause })?;
    }
    Ok(paths)
}

/// Whether nothing is there that would be lost.
fn is_free(path: &Path, text: &str) -> Result<bool, Error> {
    match fs::read(path) {
        Ok(found) => Ok(found.starts_with(MARK.as_bytes()) || found == text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(Error::Write { path: path.to_owned(), cause }),
    }
}
