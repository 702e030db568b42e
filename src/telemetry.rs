//! Logs: one subscriber for the process, in the reference's text form or as JSON.
//!
//! Must never be given a secret: token and secret types have no `Debug` and no `Display`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Format, Level};

/// openraft warns of each message that a peer does not answer, thirty a second for each replica that is away, and calls
/// an error what we try again. That a peer is away, and what we do about it, we log ourselves.
const RAFT: &str = "openraft=off";

/// Starts logging to standard error. Only our own modules log at `debug`: what libraries say there is theirs to
/// word, and may hold what must not be logged.
///
/// # Errors
/// If logging was started before.
pub fn start(level: Level, format: Format) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (own, others) = match level {
        Level::Debug => ("debug", "warn"),
        Level::Info => ("info", "warn"),
        Level::Warn => ("warn", "warn"),
        Level::Error => ("error", "error"),
    };
    let filter = EnvFilter::try_new(format!("{others},{RAFT},kubernetes_vault={own}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
}
