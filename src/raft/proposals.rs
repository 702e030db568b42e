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
/// for a third of the time, and the machine has the rest for deliveries.
const GATHER_TIMES: u32 = 2;

const STOPPED: &str = "Raft has stopped";

type Answer = Result<Reply, String>;

/// A command, and who waits for what becomes of it.
pub(super) struct Proposal {
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
        match self.waiting().as_mut() {
            Some(waiting) => waiting.push(Proposal { command, answer }),
            None => return Err(STOPPED.into()),
        }
        self.wake.notify_one();
        answered.await.unwrap_or_else(|_| Err(STOPPED.into()))
    }

    /// Hands them to `commit`, which answers them.
    pub(super) async fn always<F: Future<Output = ()>>(&self, commit: impl Fn(Vec<Proposal>) -> F) -> Infallible {
        let mut under_way = FuturesUnordered::new();
        loop {
            let together = tokio::select! {
                together = self.some() => together,
                Some(()) = under_way.next() => continue,
            };
            let (burst, since) = (together.len() >= BURST, Instant::now());
            under_way.push(commit(together));
            let in_time = timeout(COMMIT_LIMIT, async { while under_way.next().await.is_some() {} }).await.is_ok();
            if burst && in_time {
                let _ = timeout(since.elapsed() * GATHER_TIMES, self.enough()).await;
            }
        }
    }

    /// Until a full batch waits.
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

/// Has `raft` append and send them at once, an entry each, in this order.
pub(super) async fn commit(raft: &Raft<TypeConfig, Machine>, together: Vec<Proposal>) {
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use futures::future::join_all;

    use super::*;
    use crate::domain::ids::{InstanceKey, Timestamp};
    use crate::domain::ledger::Outcome;

    const COMMITS_IN: Duration = Duration::from_millis(4);

    fn command(n: u32) -> Command {
        let key = InstanceKey { pod: "p".into(), container: "c".into(), container_id: "i".into(), generation: n };
        Command::Outcome(Outcome { key, verdicts: Vec::new(), close: false, at: Timestamp(0) })
    }

    /// What was handed over together, and when.
    type Batches = RefCell<Vec<(Duration, usize)>>;

    /// Commits everything in [`COMMITS_IN`] while `work` goes on.
    async fn with_raft<T>(proposals: &Proposals, batches: &Batches, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let always = proposals.always(|together| async move {
            batches.borrow_mut().push((begun.elapsed(), together.len()));
            tokio::time::sleep(COMMITS_IN).await;
            together.into_iter().for_each(|proposal| tell(proposal.answer, Ok(Reply::Done)));
        });
        tokio::select! {
            never = always => match never {},
            done = work => done,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_waits_for_nobody() {
        let (proposals, batches) = (Proposals::new(), Batches::default());
        with_raft(&proposals, &batches, async {
            for n in 0..3 {
                assert_eq!(proposals.propose(command(n)).await, Ok(Reply::Done));
            }
        })
        .await;
        assert_eq!(*batches.borrow(), [(Duration::ZERO, 1), (COMMITS_IN, 1), (2 * COMMITS_IN, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_burst_what_comes_meanwhile_follows_as_one() {
        let (proposals, batches) = (Proposals::new(), Batches::default());
        let one = |n: u32| {
            let proposals = &proposals;
            async move {
                tokio::time::sleep(Duration::from_millis(n.into())).await;
                proposals.propose(command(n)).await
            }
        };
        let burst = join_all((0..10).map(|n| one(if n < 5 { 0 } else { n })));
        let said = with_raft(&proposals, &batches, burst).await;
        assert!(said.iter().all(|answer| *answer == Ok(Reply::Done)));
        assert_eq!(*batches.borrow(), [(Duration::ZERO, 5), (COMMITS_IN * (1 + GATHER_TIMES), 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_is_not_gathered_any_longer() {
        let (proposals, batches) = (Proposals::new(), Batches::default());
        let twice = || async {
            assert!(proposals.propose(command(0)).await.is_ok());
            proposals.propose(command(1)).await
        };
        with_raft(&proposals, &batches, join_all((0..ENOUGH).map(|_| twice()))).await;
        assert_eq!(*batches.borrow(), [(Duration::ZERO, ENOUGH), (COMMITS_IN, ENOUGH)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_never_committed_does_not_keep_the_next_from_being_asked() {
        let (proposals, batches) = (Proposals::new(), Batches::default());
        let begun = Instant::now();
        let always = proposals.always(|together| {
            batches.borrow_mut().push((begun.elapsed(), together.len()));
            async move {
                pending::<()>().await;
                drop(together);
            }
        });
        let later = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            proposals.propose(command(1)).await
        };
        tokio::select! {
            never = always => match never {},
            _ = async { tokio::join!(proposals.propose(command(0)), later) } => {}
            () = tokio::time::sleep(2 * COMMIT_LIMIT) => {}
        }
        assert_eq!(*batches.borrow(), [(Duration::ZERO, 1), (COMMIT_LIMIT, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_given_up_is_not_proposed_and_who_comes_to_a_stopped_one_hears_so() {
        let (proposals, batches) = (Proposals::new(), Batches::default());
        let gave_up = timeout(Duration::from_millis(1), proposals.propose(command(0)));
        assert!(gave_up.await.is_err(), "nobody hands it over");
        with_raft(&proposals, &batches, proposals.propose(command(1))).await.unwrap();
        assert_eq!(*batches.borrow(), [(Duration::ZERO, 1)]);
        let (waits, ()) = tokio::join!(proposals.propose(command(2)), async { proposals.close() });
        assert_eq!(waits, Err(STOPPED.to_owned()));
        assert_eq!(proposals.propose(command(3)).await, Err(STOPPED.to_owned()));
    }
}
