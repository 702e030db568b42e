//! Leaderships: when this node's begin and when they end.
//!
//! Owns the rule that leader work starts only after an entry of its own term was applied here: everything that an
//! earlier leader had committed is in the ledger then.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::running::Running;
use crate::deliver::ports::Leadership;
use crate::domain::ids::{BootId, Term};
use crate::domain::ledger::Author;

/// Sends this node's leaderships, one after another, until Raft stops. The token of each is cancelled when it ends.
pub(super) async fn follow(running: Arc<Running>, boot: BootId, leaderships: mpsc::Sender<Leadership>) {
    let mut metrics = running.raft.metrics();
    let mut current: Option<Leadership> = None;
    loop {
        let leads_in = {
            let seen = metrics.borrow_watched();
            (seen.running_state.is_ok() && seen.state == ServerState::Leader).then_some(Term(seen.current_term))
        };
        if let Some(leadership) = current.take_if(|leadership| Some(leadership.author.term) != leads_in) {
            tracing::info!(term = leadership.author.term.0, "this replica does not lead any more");
            leadership.ended.cancel();
        }
        if let (Some(term), None) = (leads_in, &current)
            && running.applied_term() == Some(term)
        {
            tracing::info!(term = term.0, "this replica leads");
            let leadership = Leadership { author: Author { term, boot }, ended: CancellationToken::new() };
            current = Some(leadership.clone());
            if leaderships.send(leadership).await.is_err() {
                break;
            }
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    if let Some(leadership) = current {
        leadership.ended.cancel();
    }
}
