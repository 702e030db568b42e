//! What Raft needs of the world beside its network and its store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::ids::PodUid;
use crate::domain::peers::{Listed, PodState};

/// Who our peers are, by the word of the API server (or of a static list).
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The peers that are listed now, ourselves included, by a fresh read.
    ///
    /// # Errors
    /// Why that is not known, in words. Nothing is decided on it then.
    async fn listed(&self) -> Result<Vec<Listed>, String>;

    /// How the pods of `peers` are, by a fresh read. A peer that is missing in the answer is not known.
    async fn pods(&self, peers: &[Listed]) -> BTreeMap<PodUid, PodState>;

    /// Bumped when the list may have changed.
    fn changed(&self) -> watch::Receiver<u64>;

    /// Whether changes matter at once (while forming, or while a peer is lost): a directory that has to poll does so
    /// more often.
    fn urgent(&self, urgent: bool);
}
