//! What to try while everything is up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use testbed::Testbed;

use crate::container_logs;
use crate::screen::Screen;
use crate::shell::Shell;

/// Where `testbed exec` finds the variables of a cluster.
const VARIABLES: &str = "env";
/// Links to the logs of all containers, below the testbed's root.
const LOGS: &str = "logs";

/// Prepares the way in for other terminals, and says how to take it.
pub(crate) async fn show(bed: &Testbed, screen: &Screen) -> Result<()> {
    let root = Path::new(testbed::ROOT);
    let logs = root.join(LOGS);
    container_logs::link(bed, &logs).await?;
    write_variables(bed, &root.join(VARIABLES))?;
    let enter = way_in()?;
    screen.blank();
    screen.text("Everything stays up. To look around, in another terminal:");
    for line in [
        "kubectl get pods -A",
        "kubectl events -A",
        "vault list auth/approle/role",
        &format!("sh -c 'tail {}/*'", logs.display()),
        "bash",
    ] {
        screen.plain_command(&format!("{enter} {line}"));
    }
    screen.text("Ctrl-C ends everything.");
    Ok(())
}

fn write_variables(bed: &Testbed, path: &Path) -> Result<()> {
    let shell = Shell::new(bed)?;
    let line = |(name, value): &(String, String)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"));
    let text: String = shell.variables().iter().map(line).collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The command in front of those that are to run inside.
fn way_in() -> Result<String> {
    let pid = testbed::host_pid()?;
    Ok(match testbed_program() {
        Some(program) => format!("{} exec --pid {pid} --", program.display()),
        None => testbed::join_command(pid).join(" "),
    })
}

/// The command `testbed`: beside us, or where `make` builds it; relative where it can be.
fn testbed_program() -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?;
    let folder = ours.parent()?;
    let debug = folder.parent()?.join("debug");
    let found = [folder, &debug].map(|folder| folder.join("testbed")).into_iter().find(|path| path.is_file())?;
    let here = std::env::current_dir().ok()?;
    Some(found.strip_prefix(here).map(Path::to_owned).unwrap_or(found))
}
