//! A look at the leader's work on one pod, for `explain`.
//!
//! Owns the way of a question to the loop that owns the rows. Reads only. A question never holds up the loop: what is
//! looked up is in its memory.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::rows::{Conflict, Stage};
use super::service::Service;
use crate::domain::explain::{AddressTaken, Stage as Seen, Work};
use crate::domain::ids::PodUid;

/// Questions that wait for the loop: the control socket has few places, and each asks one.
const QUESTIONS: usize = 8;

/// The loop turns in milliseconds. One that does not answer has ended.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Where questions are asked, whoever leads at the time. Clones share it.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Option<mpsc::Sender<Question>>>>);

/// The questions to one leadership.
pub struct Questions(mpsc::Receiver<Question>);

pub(super) struct Question {
    pod: PodUid,
    answer: oneshot::Sender<Option<Work>>,
}

impl Desk {
    /// From now on questions go to another leadership, which has to take them from what is returned.
    pub fn open(&self) -> Questions {
        let (questions, taken) = mpsc::channel(QUESTIONS);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(questions);
        Questions(taken)
    }

    /// What the leadership of this replica knows of a pod; `None` if nothing, or if there is none.
    pub async fn ask(&self, pod: &PodUid) -> Option<Work> {
        let questions = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (answer, answered) = oneshot::channel();
        let question = Question { pod: pod.clone(), answer };
        let asked = async {
            questions.send(question).await.ok()?;
            answered.await.ok().flatten()
        };
        timeout(ANSWER_LIMIT, asked).await.ok().flatten()
    }
}

/// The next question; never, where nobody may ask.
pub(super) async fn next(questions: &mut Option<Questions>) -> Option<Question> {
    match questions {
        Some(questions) => questions.0.recv().await,
        None => pending().await,
    }
}

impl Service {
    /// Answers `questions` for as long as it runs.
    #[must_use]
    pub fn answering(mut self, questions: Questions) -> Self {
        self.questions = Some(questions);
        self
    }

    pub(super) fn answer(&self, Question { pod, answer }: Question) {
        // Whoever has asked may have given up.
        let _ = answer.send(self.look(&pod));
    }

    fn look(&self, uid: &PodUid) -> Option<Work> {
        let row = self.rows.by_uid.get(uid)?;
        let now = Instant::now();
        let instance = row.instance.as_ref();
        let waits = instance.filter(|instance| instance.stage == Stage::Waiting);
        let progress = instance.and_then(|instance| instance.progress.as_ref());
        let gate = waits.and_then(|instance| self.gates.closed(&instance.role));
        Some(Work {
            stage: instance.map(|instance| match instance.stage {
                Stage::Waiting => Seen::Waiting,
                Stage::Settled(_) => Seen::Settled,
                Stage::Closed => Seen::Closed,
            }),
            at_work: row.working,
            next: self.turns.due(uid).map(|due| due.saturating_duration_since(now)),
            seen_for: instance.map(|instance| now.duration_since(instance.seen_at)),
            dial_failures: progress.map_or(0, |progress| progress.dial_failures),
            attempt_failures: progress.map_or(0, |progress| progress.attempt_failures),
            crashes: row.crashes,
            gate: gate.map(|(why, until)| (why, until.saturating_duration_since(now))),
            wrong_pod: progress.is_some_and(|progress| progress.wrong_pod),
            limit: waits.and_then(|instance| instance.delay).map(|delay| delay.limit),
            address: waits.filter(|_| !row.working).and_then(|_| self.rows.conflict(&row.pod)).map(|conflict| {
                match conflict {
                    Conflict::Shared(ip) => AddressTaken::Shared(ip.to_string()),
                    Conflict::Busy => AddressTaken::Busy,
                }
            }),
        })
    }
}

#[cfg(test)]
mod tests;
