//! init-environment.txt: the variables that the init container takes and refuses, and how it ends without a push.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;
use wire::duration;

use crate::case::Case;
use crate::pod::Pod;
use crate::vectors::{Section, sections};
use crate::world::World;

/// A title without NAME=VALUE: what is to be set. An empty value unsets.
const SETTINGS: &[(&str, &[(&str, &str)])] = &[
    ("version", &[("VAULT_ROLE_ID", "")]),
    // Bad-input table: missing VAULT_ROLE_ID.
    ("missing VAULT_ROLE_ID", &[("VAULT_ROLE_ID", "")]),
    ("bad LOG_LEVEL and missing role: which is first", &[("LOG_LEVEL", "info"), ("VAULT_ROLE_ID", "")]),
    ("unknown argument: ignored", &[("TIMEOUT", "1s")]),
];

/// Bad-input table: port taken. The Go version waits in silence until its TIMEOUT; ours ends at once, with its own
/// exit code and one clear line.
const PORT_TAKEN: [&str; 2] = ["port 50000 taken (silent wait)", "port taken TIMEOUT=2s"];

/// A case for each recorded start. What is set is in the title, as NAME=VALUE, or in [`SETTINGS`].
pub(crate) fn cases() -> Vec<Case> {
    let one = |section: Section| Case::of(section, move |world| check(world, section));
    sections("init-environment.txt").into_iter().map(one).collect()
}

fn settings(title: &'static str) -> Vec<(&'static str, &'static str)> {
    if let Some((_, settings)) = SETTINGS.iter().find(|(known, _)| *known == title) {
        return settings.to_vec();
    }
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    title.split(' ').filter_map(|word| word.split_once('=')).filter(|(name, _)| is_name(name)).collect()
}

async fn check(world: &World, section: Section) -> Result<()> {
    let pod = Pod::new(world).await?;
    let settings = settings(section.title);
    if PORT_TAKEN.contains(&section.title) {
        let mut first = pod.listening(&[]).await?;
        first.until("Listening").await?;
        return pod.start(&settings, &[])?.end().await?.expect(5, &["Cannot listen on port 50000"]);
    }
    ensure!(section.title == "version" || !settings.is_empty(), "the title says nothing that this suite can set");
    let arguments: &[&str] = match section.title {
        "version" => &["version"],
        "unknown argument: ignored" => &["serve", "--verbose"],
        _ => &[],
    };
    let started = Instant::now();
    let ended = pod.start(&settings, arguments)?.end().await?;
    if section.title == "version" {
        ended.expect(0, &[])?;
        return same_version_line(&ended.out, section);
    }
    // Bad-input table: bad TIMEOUT; RETRIEVE_TOKEN=true with UNWRAP_SECRET=false: one clear line.
    let message = section.message().context("the recorded start says nothing")?;
    // Success and failure are the contract. Ours tells causes apart: 2 the environment, 3 the timeout.
    let timed_out = message.contains("timed out");
    let first = message.trim_end_matches(" Exiting.").trim_end_matches('.');
    ended.expect(if timed_out { 3 } else { 2 }, &[&first.replace('"', "\\\"")])?;
    let fatal = ended.err.lines().filter(|line| line.contains("level=fatal")).count();
    ensure!(fatal == 1, "more than the first message:\n{}", ended.err);
    ensure!(pod.left()?.is_empty(), "a file");
    if timed_out {
        let text = settings.iter().find(|(name, _)| *name == "TIMEOUT").context("no TIMEOUT")?.1;
        let wanted = Duration::try_from(duration::parse(text).map_err(|_| anyhow::anyhow!("{text}"))?);
        // A negative one is up at once.
        ensure!(started.elapsed() >= wanted.unwrap_or_default(), "it ended before its TIMEOUT");
    }
    Ok(())
}

/// `<words> VERSION (COMMIT) built on DATE`, and nothing else.
pub(crate) fn same_version_line(line: &str, section: Section) -> Result<()> {
    let recorded = section.after("stdout: ").context("no recorded line")?;
    let words = recorded.split_once(" dev (").context("the recorded line has another form")?.0;
    let form = format!(r"^{words} \S+ \(\S+\) built on \S+\n$");
    ensure!(regex::Regex::new(&form)?.is_match(line), "{line:?} has not the form of {recorded:?}");
    Ok(())
}
