//! What is shown when something went wrong: the error, then the end of every log that may say why.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::Testbed;
use tokio::time::timeout;

use crate::container_logs;
use crate::sample;
use crate::screen::Screen;

/// So many lines of each log are shown.
const LINES: usize = 25;
/// Vault prints its settings before this line.
const VAULT_STARTED: &str = "Log data will stream in below";
/// In lines that never say why: how Vault starts, and what the demonstration says about its pods itself.
const NO_CAUSE: [&str; 3] = [" [INFO]  ", "no `api_addr` value", "runAsUser is ignored"];
/// Pods are asked for at the API server, which may be what has failed.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// What the testbed says while it works. It would stand in the middle of the steps; so it goes to a file, and is
/// shown when something fails.
pub(crate) struct Notes {
    path: PathBuf,
}

impl Notes {
    /// From now on standard error goes to a file; a panic is still seen.
    pub(crate) fn divert() -> Result<Self> {
        let path = Path::new(testbed::ROOT).join("notes.log");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        rustix::stdio::dup2_stderr(&file).context("cannot divert standard error")?;
        std::panic::set_hook(Box::new(|panic| println!("demo: {panic}")));
        Ok(Self { path })
    }
}

/// Shows the error, Events and logs.
pub(crate) async fn show(screen: &Screen, error: &anyhow::Error, bed: Option<&Testbed>, notes: &Notes) {
    screen.error(&format!("Failed: {error:#}"));
    let mut logs = Vec::new();
    if let Some(bed) = bed {
        show_pods(screen, bed).await;
        match timeout(ASK_LIMIT, container_logs::all(bed)).await {
            Ok(Ok(found)) => logs = found,
            Ok(Err(error)) => screen.text(&format!("The pods are not known: {error:#}")),
            Err(_) => screen.text("The pods are not known: the API server does not answer."),
        }
        logs.extend(bed.vault().ok().map(|vault| ("Vault".to_owned(), vault.log())));
    }
    logs.push(("the testbed".to_owned(), notes.path.clone()));
    for (name, path) in logs {
        let tail = tail(&path);
        if !tail.is_empty() {
            screen.blank();
            screen.title(&format!("The end of the log of {name}:"));
            screen.raw(&tail);
        }
    }
    screen.blank();
    screen.text(
        "Everything has ended; nothing is left behind. If this is a bug of ours, please report it with all of the above.",
    );
}

async fn show_pods(screen: &Screen, bed: &Testbed) {
    // What the API server does not tell any more cannot be shown.
    if let Ok(Ok(pods)) = timeout(ASK_LIMIT, bed.kubectl(&["get", "pods", "-A"])).await {
        screen.blank();
        screen.title("Pods:");
        screen.raw(&pods);
    }
    let Ok(Ok(events)) = timeout(ASK_LIMIT, sample::warnings(bed)).await else { return };
    if !events.is_empty() {
        screen.blank();
        screen.title("Warnings on pods:");
        screen.raw(&sample::events_table(&events));
    }
}

fn tail(path: &Path) -> String {
    let mut bytes = Vec::new();
    // A log that cannot be read says nothing.
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let text = text.split_once(VAULT_STARTED).map_or(&*text, |(_, log)| log);
    let lines: Vec<&str> = text.lines().filter(|line| !NO_CAUSE.iter().any(|part| line.contains(part))).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n").trim().to_owned()
}
