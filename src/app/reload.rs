//! Files that somebody else renews, followed while this replica runs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::sleep;

use crate::files::{LOOK_EVERY, Watched};
use crate::metrics::{Metrics, TlsUse};

/// Has `load` take over what the files at `paths` hold whenever that changes, for ever. `load` checks before it takes
/// over; what it refuses is tried again (a certificate may become valid), and told and counted once.
pub(super) async fn follow(
    paths: Vec<PathBuf>,
    used: TlsUse,
    metrics: Arc<Metrics>,
    mut load: impl FnMut() -> Result<(), String> + Send,
) {
    let mut watched = Watched::new(paths);
    let mut refused = false;
    loop {
        sleep(LOOK_EVERY).await;
        let changed = watched.changed();
        if !changed && !refused {
            continue;
        }
        match load() {
            Ok(()) => {
                tracing::info!(tls.use = used.label(), "changed files are in use from now on");
                metrics.tls_reloaded(used, false);
                refused = false;
            }
            Err(cause) if changed => {
                tracing::warn!(
                    tls.use = used.label(),
                    cause,
                    "changed files cannot be used; what they held before stays in use"
                );
                metrics.tls_reloaded(used, true);
                refused = true;
            }
            Err(_) => {}
        }
    }
}
