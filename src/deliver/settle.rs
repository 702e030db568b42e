//! Settling: records what became of attempts, and neutralises what was refused.
//!
//! Must never neutralise an attempt whose fate is unknown.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::sleep;

use super::context::Context;
use super::ports::{Incident, PushRequest};
use super::worker::{Job, Progress, Turn};
use crate::domain::announcement::Announcement;
use crate::domain::backoff::RECORD;
use crate::domain::delivery::{Answer, Meaning, Settlement, settle_by_answer, settle_by_fate};
use crate::domain::ids::{AttemptId, InstanceKey, PodRef};
use crate::domain::ledger::{Command, Entry, Outcome, Verdict};
use crate::domain::pod::Fate;

/// How often the next leader is told of a fact: within the time that a drain may take.
const TELL_THE_NEXT: u32 = 4;

/// A wrapping token that was sent without a complete answer. Should its attempt turn out to have been refused, it
/// is the only way to neutralise its `secret_id` under a policy that does not let us destroy by accessor.
pub(super) struct Held {
    attempt: AttemptId,
    token: SecretString,
}

/// Records what `answer` to `request` settles, tells whom it concerns, and says what follows.
pub(super) async fn by_answer(
    ctx: &Context,
    job: &Job,
    progress: &mut Progress,
    request: PushRequest,
    answer: &Answer,
) -> Turn {
    let meter = &ctx.ports.meter;
    meter.pushed(&job.role, answer);
    let attempt = request.attempt;
    progress.held.push(Held { attempt: attempt.clone(), token: request.secret.token });
    if let Some(entry) = ctx.ports.ledger.read(&job.key) {
        let settlement = settle_by_answer(&entry, &attempt, answer);
        apply(ctx, &job.key, &entry, settlement, &mut progress.held).await;
    }
    let waited = job.waited + job.made_at.elapsed();
    match answer.meaning() {
        Meaning::Accepted => meter.delivered(waited),
        Meaning::TokenRefused { used: true } => meter.happened(Incident::TokenUsedByAnother, 1),
        _ => {}
    }
    log(job, &attempt, answer, waited);
    if let Some(announcement) = announcement(&attempt, answer, waited) {
        ctx.ports.announcer.announce(&job.pod, announcement);
    }
    match answer.meaning() {
        Meaning::Accepted | Meaning::DoneEarlier => Turn::Settled,
        Meaning::Final => Turn::Closed,
        Meaning::WrongPod => Turn::WrongPod,
        Meaning::Unable { retry_after } => Turn::Again(retry_after),
        Meaning::Busy | Meaning::TokenRefused { .. } | Meaning::Unknown => Turn::Again(None),
    }
}

fn log(job: &Job, attempt: &AttemptId, answer: &Answer, waited: Duration) {
    let (pod, uid, role) = (&job.pod, &job.pod.uid, &job.role);
    let duration_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    match answer.meaning() {
        Meaning::Accepted => {
            tracing::info!(%pod, pod.uid = %uid, %role, %attempt, duration_ms, "delivered");
        }
        Meaning::TokenRefused { used: true } => {
            tracing::error!(%pod, pod.uid = %uid, %role, %attempt, duration_ms,
                "SECURITY: the wrapping token was used before the init container could: somebody else may have its secret_id");
        }
        _ => {
            let cause = answer.describe();
            tracing::warn!(%pod, pod.uid = %uid, %role, %attempt, duration_ms, "not delivered: {cause}");
        }
    }
}

fn announcement(attempt: &AttemptId, answer: &Answer, waited: Duration) -> Option<Announcement> {
    Some(match answer.meaning() {
        Meaning::Accepted => Announcement::Delivered { attempt: attempt.clone(), after: waited },
        Meaning::DoneEarlier => Announcement::DeliveredEarlier,
        Meaning::TokenRefused { used: true } => Announcement::TokenUsedByAnother(attempt.clone()),
        Meaning::Final => Announcement::PushRefused(answer.describe()),
        Meaning::WrongPod => return None,
        _ => Announcement::Retrying(answer.describe()),
    })
}

/// Records what the end of an instance settles. Returns false while it may still run, or where the ledger does
/// not know it.
pub(super) async fn by_fate(ctx: &Context, key: &InstanceKey, fate: &Fate, held: &mut Vec<Held>) -> bool {
    let Some(entry) = ctx.ports.ledger.read(key) else { return false };
    let named = match fate {
        Fate::Exited { message: Some(message), .. } => named_in(message),
        _ => None,
    };
    let Some(settlement) = settle_by_fate(&entry, fate, named.as_ref()) else { return false };
    if entry.closed.is_some() && settlement.verdicts.is_empty() {
        return true;
    }
    // Not the fate as it is: a termination message is the pod's own business, and may hold anything.
    let (pod, uid, attempt, fate) = (&entry.pod, &entry.pod.uid, Attempts(&settlement.verdicts), fate.label());
    tracing::debug!(%pod, pod.uid = %uid, %attempt, fate, "the init container's end settles its attempts");
    apply(ctx, key, &entry, settlement, held).await;
    true
}

/// The attempt that a termination message names.
fn named_in(message: &str) -> Option<AttemptId> {
    wire::parse_attempt(message).map(AttemptId::from)
}

/// The attempts that an outcome is about, for a log line: one most of the time.
struct Attempts<'a>(&'a [(AttemptId, Verdict)]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(
            |(n, (attempt, _))| {
                if n == 0 { write!(f, "{attempt}") } else { write!(f, ",{attempt}") }
            },
        )
    }
}

/// Has the ledger take a fact. While this leadership lasts nobody else would, and an attempt that stays open there
/// keeps its instance from each further one; afterwards the next leader is told, a few times, and has the instance
/// settle it otherwise.
pub(super) async fn record(ctx: &Context, pod: &PodRef, outcome: Outcome) {
    let (mut failures, mut left) = (0, TELL_THE_NEXT);
    let (uid, attempt) = (&pod.uid, Attempts(&outcome.verdicts));
    while let Err(error) = ctx.ports.ledger.propose(Command::Outcome(outcome.clone())).await {
        if ctx.leadership.ended.is_cancelled() {
            left -= 1;
        }
        if left == 0 {
            tracing::warn!(%pod, pod.uid = %uid, %attempt, %error, "could not record an outcome");
            return;
        }
        failures += 1;
        tracing::debug!(%pod, pod.uid = %uid, %attempt, %error, failures, "the ledger did not take an outcome yet");
        sleep(RECORD.wait(failures, ctx.jitter())).await;
    }
}

async fn apply(ctx: &Context, key: &InstanceKey, entry: &Entry, settlement: Settlement, held: &mut Vec<Held>) {
    let outcome = Outcome {
        key: key.clone(),
        verdicts: settlement.verdicts.clone(),
        close: settlement.close,
        at: ctx.ports.clock.now(),
    };
    let neutralise = async {
        for attempt in settlement.refused() {
            let token = held.iter().position(|h| h.attempt == *attempt).map(|at| held.swap_remove(at).token);
            let accessors = entry.attempt(attempt).and_then(|a| a.accessors.clone()).unwrap_or_default();
            let how = ctx.ports.issuer.neutralise(&entry.role, &accessors, token).await;
            ctx.ports.meter.neutralised(how);
        }
    };
    // What is refused is so, whether or not the ledger knows it already.
    tokio::join!(record(ctx, &entry.pod, outcome), neutralise);
    if settlement.kept() > 0 {
        let kept = u64::try_from(settlement.kept()).unwrap_or(u64::MAX);
        ctx.ports.meter.happened(Incident::FateUnknown, kept);
    }
    held.retain(|h| !settlement.verdicts.iter().any(|(id, v)| *id == h.attempt && *v != Verdict::Unknown));
}
