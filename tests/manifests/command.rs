//! The command as people type it.

use anyhow::{Result, ensure};
use futures::FutureExt as _;

use super::world::{Case, printed, run};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("flags_that_contradict_each_other_are_one_line_and_exit_code_2", |_| async { contradictions() }.boxed_local()),
    ("nothing_is_written_over_what_somebody_else_has_made", |_| async { not_ours() }.boxed_local()),
];

fn contradictions() -> Result<()> {
    for (arguments, remedy) in [
        (&["production", "--replicas=2"][..], "give 1, 3 or 5"),
        (&["one-namespace", "--watch-namespace=~^a"], "choose quick-start"),
        (&["production", "--image=controller=a@0123"], "64 hexadecimal digits"),
        (&["production", "--namespace=Vault"], "a to z"),
        (&["production", "--vault-addr=http://vault:8200"], "give an https:// address"),
        (&[], "--output-dir"),
    ] {
        let output = run(arguments)?;
        let error = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2), "{arguments:?}: {}", output.status);
        ensure!(
            output.stdout.is_empty() && error.lines().count() == 1 && error.contains(remedy),
            "{arguments:?}: {error}"
        );
    }
    Ok(())
}

fn not_ours() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let theirs = folder.path().join("base");
    std::fs::create_dir(&theirs)?;
    std::fs::write(theirs.join("service.yaml"), "theirs")?;
    let path = folder.path().display().to_string();
    let output = run(&["quick-start", "--output-dir", &path])?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && error.contains("base/service.yaml is in the way"), "{error}");
    ensure!(std::fs::read_to_string(theirs.join("service.yaml"))? == "theirs");
    ensure!(!folder.path().join("quick-start").exists(), "something was written");
    std::fs::remove_file(theirs.join("service.yaml"))?;
    let said = printed(&["quick-start", "--output-dir", &path])?;
    ensure!(said.lines().all(|line| std::path::Path::new(line).is_file()), "{said}");
    Ok(())
}
