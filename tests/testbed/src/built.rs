//! Where cargo has put what was built.

use std::env::var_os;
use std::path::{Path, PathBuf};

/// Cargo's folder of what it builds in this workspace.
#[must_use]
pub fn target_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let of_workspace = || workspace.expect("this package lies two folders deep").join("target");
    var_os("CARGO_TARGET_DIR").map_or_else(of_workspace, PathBuf::from)
}

/// The init container or the sample application, linked statically as in their images: what `variable` names, else what
/// `make static` has built as `name`.
#[must_use]
pub fn static_program(variable: &str, name: &str) -> PathBuf {
    let built = || target_folder().join("x86_64-unknown-linux-musl/init").join(name);
    var_os(variable).map_or_else(built, PathBuf::from)
}
