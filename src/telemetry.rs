//! Logs: one subscriber for the process, in the reference's text form or as JSON.
//!
//! Must never be given a secret: token and secret types have no `Debug` and no `Display`.

use tracing_subscriber::EnvFilter;

use crate::config::{Format, Level};
use crate::print::Paint;

/// openraft warns of each message that a peer does not answer, thirty a second for each replica that is away. That a peer
/// is away, and what we do about it, we log ourselves. What ends Raft, a full disk for one, each part of it that is
/// concerned tells as an error of its own, half a dozen lines; all of it also comes back to us, and is told once, with
/// what to do about it. Its other errors are kept.
const RAFT: &str = "openraft=error,openraft::core=off,openraft::raft=off,openraft::storage=off,\
                    openraft::replication::stream_state=off";

/// Starts logging to standard error. Only our own modules log at `debug`: what libraries say there is theirs to
/// word, and may hold what must not be logged.
///
/// # Errors
/// If logging was started before.
pub fn start(level: Level, format: Format) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(directives(level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        Format::Text => builder.with_ansi(Paint::of(&std::io::stderr()).is_coloured()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
}

/// What each part may say at `level`.
fn directives(level: Level) -> String {
    let (own, others) = match level {
        Level::Debug => ("debug", "warn"),
        Level::Info => ("info", "warn"),
        Level::Warn => ("warn", "warn"),
        Level::Error => ("error", "error"),
    };
    format!("{others},{RAFT},kubernetes_vault={own}")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_peer_that_is_down_fills_no_log_and_the_end_of_raft_is_for_us_to_tell() {
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            let written = Written::default();
            let writer = written.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::try_new(directives(level)).unwrap())
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(target: "openraft::core::heartbeat::worker", "a heartbeat");
                tracing::error!(target: "openraft::replication::snapshot_transmitter", "a failure");
                // Where openraft 0.10.0-alpha.37 told of one full disk.
                tracing::error!(target: "openraft::storage::callback", "an end");
                tracing::error!(target: "openraft::core::raft_core", "an end");
                tracing::error!(target: "openraft::raft::raft_inner", "an end");
                tracing::error!("ours");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("a heartbeat") && !text.contains("an end"), "{text}");
            assert!(text.contains("a failure") && text.contains("ours"), "{text}");
        }
    }
}
