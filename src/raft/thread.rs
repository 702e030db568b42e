//! The thread that Raft runs on.
//!
//! Owns a runtime of one thread: nothing that the rest of the process does holds up a heartbeat. One thread is enough:
//! what takes longer than a handshake is done aside ([`crate::store::Store::aside`]). With several, each heartbeat would
//! wake all of them, for nothing.

use std::io;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// See the module. It ends when this is dropped.
pub struct RaftThread {
    _runs: oneshot::Sender<()>,
}

impl RaftThread {
    /// Starts it, with `work` on it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start<F>(work: F) -> io::Result<(Self, JoinHandle<F::Output>)>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let task = runtime.spawn(work);
        let (runs, dropped) = oneshot::channel();
        std::thread::Builder::new().name("raft".to_owned()).spawn(move || {
            // An error: the other end is gone, which is what is waited for.
            let _ = runtime.block_on(dropped);
            runtime.shutdown_background();
        })?;
        Ok((Self { _runs: runs }, task))
    }
}
