//! Commands as a person would type them, run inside the testbed, in a folder that has `deploy/`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use testbed::Testbed;
use tokio::process::Command;

/// Where commands run, and with which variables.
pub(crate) struct Shell {
    directory: PathBuf,
    variables: Vec<(String, String)>,
}

/// What a command printed.
pub(crate) struct Printed {
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    /// kubectl and vault are on its PATH, KUBECONFIG, VAULT_ADDR and VAULT_TOKEN are set.
    pub(crate) fn new(bed: &Testbed) -> Result<Self> {
        let mut variables = bed.variables()?;
        variables.push(("PATH".to_owned(), search_path(bed)?));
        // The vault CLI and kubectl keep files there, which are to go with the testbed.
        variables.push(("HOME".to_owned(), bed.directory().display().to_string()));
        Ok(Self { directory: bed.directory().to_owned(), variables })
    }

    /// All of it, to be set in a shell.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// Runs a line; anything but success is an error with what the command said.
    pub(crate) async fn run(&self, line: &str) -> Result<Printed> {
        self.run_with(&["-ec", line]).await.with_context(|| format!("`{line}` failed"))
    }

    /// Runs a script; with what it executed in `err`, a line for each command, as `sh -x` shows it.
    pub(crate) async fn trace(&self, script: &str) -> Result<Printed> {
        self.run_with(&["-x", script]).await.with_context(|| format!("{script} failed"))
    }

    async fn run_with(&self, arguments: &[&str]) -> Result<Printed> {
        let output = Command::new("sh")
            .args(arguments)
            .current_dir(&self.directory)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start sh")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let printed = Printed { out: text(&output.stdout), err: text(&output.stderr) };
        if !output.status.success() {
            bail!("{}\n{}{}", output.status, printed.out, printed.err);
        }
        Ok(printed)
    }
}

fn search_path(bed: &Testbed) -> Result<String> {
    let vault = testbed::locate_or_build()?.vault;
    let mut folders: Vec<PathBuf> = [Some(bed.tools()), vault.parent()].into_iter().flatten().map(Into::into).collect();
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    Ok(std::env::join_paths(folders)?.to_string_lossy().into_owned())
}

/// Logical lines: what a backslash at the end of a line continues is put together again.
pub(crate) fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(start) => {
                open.push_str(if open.is_empty() { start.trim_end() } else { start.trim() });
                open.push(' ');
            }
            None if open.is_empty() => lines.push(line.to_owned()),
            None => lines.push(std::mem::take(&mut open) + line.trim_start()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_one() {
        assert_eq!(logical_lines("a\n  b \\\n    c \\\n  d\ne"), ["a", "  b c d", "e"]);
    }
}
