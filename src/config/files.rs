//! Files that the configuration names.
//!
//! Owns the check that they can be read, at start, where the message still reaches whoever wrote the key. It never
//! looks at their content, and repeats a path only where it cannot be a secret that was put at the wrong key.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::keys::looks_like_token;
use super::lenient::{Context, Setting};

/// The path of a file that must be readable now.
pub(super) fn readable(setting: Setting<String>, cx: &mut Context<'_>) -> Option<PathBuf> {
    let Setting { value, spot } = setting;
    if is_content(&value) {
        cx.problem(&spot, "must be the path of a file, not what the file holds");
        return None;
    }
    let path = PathBuf::from(value);
    if let Err(error) = try_read(&path) {
        cx.problem(&spot, format!("names a file that cannot be read: {}: {error}", path.display()));
        return None;
    }
    Some(path)
}

/// Somebody pasted the token or the PEM block itself.
fn is_content(value: &str) -> bool {
    value.contains("-----BEGIN") || value.chars().any(char::is_control) || looks_like_token(value)
}

fn try_read(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        // Opening a pipe would wait for its writer, for ever.
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)?.read(&mut [0; 1]).map(drop)
}
