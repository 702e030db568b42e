//! Proposals on their way to Raft: what comes while others are being committed waits, and follows as one.
//!
//! Owns when a proposal is handed over. Each that goes alone is a sync on every replica and a message to every
//! follower; together they share both. Where nothing is under way a proposal does not wait. Must never keep one that
//! nobody waits for any more, nor let a majority that is gone keep others from hearing so.

use std::convert::Infallible;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::Raft;
use openraft::errors::ClientWriteError;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::state_machine::Machine;
use super::types::TypeConfig;
use crate::domain::ledger::{Command, Reply};

/// A majority commits in a few milliseconds. Where it takes longer than this, to wait for it saves nothing, and may be
/// to wait for one that does not come: a leader that is none any more is told so only when it asks.
const COMMIT_LIMIT: Duration = Duration::from_millis(25);

/// So many at once are a burst: more are about to come, and each delivery waits for others anyway.
const BURST: usize = 4;

/// So many share a sync and a message well enough.
const ENOUGH: usize = 64;

/// In a burst the next ones are gathered for so many times as long as the last ones took to be committed: Raft is busy
/// for that part of the time, and the machine has the rest for deliveries.
const GATHER_TIMES: u32 = 2;

type Answer = Result<Reply, String>;

struct Proposal {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// See the module. How many there are is up to whoever proposes.
pub(super) struct Proposals {
    /// `None` once Raft stops.
    waiting: Mutex<Option<Vec<Proposal>>>,
    wake: Notify,
}

impl Proposals {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), wake: Notify::new() }
    }

    /// Has `command` committed, and says what came of it once it was applied here.
    pub(super) async fn propose(&self, command: Command) -> Answer {
        let (answer, answered) = oneshot::channel();
        if let Some(waiting) = self.waiting().as_mut() {
            waiting.push(Proposal { command, answer });
        }
        self.wake.notify_one();
        answered.await.unwrap_or_else(|_| Err("Raft has stopped".into()))
    }

    /// Hands them to `raft`.
    pub(super) async fn always(&self, raft: &Raft<TypeConfig, Machine>) -> Infallible {
        let mut under_way = FuturesUnordered::new();
        loop {
            let together = tokio::select! {
                together = self.some() => together,
                Some(()) = under_way.next() => continue,
            };
            let (burst, since) = (together.len() >= BURST, Instant::now());
            under_way.push(commit(raft, together));
            let _ = timeout(COMMIT_LIMIT, async { while under_way.next().await.is_some() {} }).await;
            if burst {
                let _ = timeout(since.elapsed() * GATHER_TIMES, self.enough()).await;
            }
        }
    }

    async fn enough(&self) {
        while self.waiting().as_ref().is_some_and(|waiting| waiting.len() < ENOUGH) {
            self.wake.notified().await;
        }
    }

    /// All that somebody waits for: one at least.
    async fn some(&self) -> Vec<Proposal> {
        loop {
            let mut together = self.waiting().as_mut().map(mem::take).unwrap_or_default();
            together.retain(|proposal| !proposal.answer.is_closed());
            if !together.is_empty() {
                return together;
            }
            self.wake.notified().await;
        }
    }

    /// Whoever waits, or comes later, hears that nothing comes of it.
    pub(super) fn close(&self) {
        *self.waiting() = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Proposal>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One entry for each, in this order, appended and sent at once.
async fn commit(raft: &Raft<TypeConfig, Machine>, together: Vec<Proposal>) {
    let (commands, answers): (Vec<_>, Vec<_>) =
        together.into_iter().map(|proposal| (proposal.command, proposal.answer)).unzip();
    let mut committed = match raft.client_write_many(commands).await {
        Ok(committed) => committed,
        Err(fatal) => return answers.into_iter().for_each(|answer| tell(answer, Err(fatal.to_string()))),
    };
    for answer in answers {
        let Some(result) = committed.next().await else { return };
        tell(
            answer,
            match result {
                Ok(Ok(written)) => Ok(written.response),
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err("this replica does not lead".into()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(fatal) => Err(fatal.to_string()),
            },
        );
    }
}

/// Somebody who has given up meanwhile is told nothing.
fn tell(answer: oneshot::Sender<Answer>, said: Answer) {
    let _ = answer.send(said);
}
