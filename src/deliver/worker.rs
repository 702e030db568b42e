//! One attempt: claim, dial, wrap, `Issued`, push, outcome. Each arrow waits for the one before it to be committed.
//!
//! Owns nothing between attempts: what has to outlive one is in [`Progress`]. Must never ask Vault for anything
//! before a handshake with the instance, nor send anything before `Issued` is committed and the lease still held.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::context::{CLAIM_FRESH, Context, Place, permit};
use super::ports::{DialError, Incident, Line, PushRequest, SecretIdRequest, WrappedSecretId};
use super::settle::{self, Held};
use crate::domain::announcement::Announcement;
use crate::domain::delivery::{Answer, Meaning, VaultTrouble, may_still_be_sent};
use crate::domain::ids::{AttemptId, InstanceKey, PodRef, RoleName};
use crate::domain::ledger::{Accessors, AttemptState, Claim, Command, Issued, Outcome, Refused, Reply, Verdict};
use crate::seeded::{self, Bug};

/// An init container that is busy with another push is done with it, or gives it up, within 20 s.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// What an attempt is about.
pub(super) struct Job {
    pub(super) key: InstanceKey,
    pub(super) pod: PodRef,
    pub(super) role: RoleName,
    pub(super) node: Arc<str>,
    pub(super) service_account: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
    /// For how long the instance had been running when the job was made.
    pub(super) waited: Duration,
    pub(super) made_at: Instant,
}

/// What is known of an instance from one attempt to the next.
#[derive(Default)]
pub(super) struct Progress {
    /// A claim under which nothing was asked of Vault yet, and when it was made or confirmed last.
    claim: Option<(AttemptId, Instant)>,
    /// Dials in a row that failed.
    pub(super) dial_failures: u32,
    /// Attempts in a row that came to nothing after something was issued.
    pub(super) attempt_failures: u32,
    /// Who answered the last push belongs to another pod.
    pub(super) wrong_pod: bool,
    /// Wrapping tokens of attempts whose fate is unknown, kept to neutralise them once they are known as refused.
    pub(super) held: Vec<Held>,
}

impl Progress {
    /// The attempt under whose claim nothing was issued yet.
    pub(super) fn claimed(&self) -> Option<&AttemptId> {
        self.claim.as_ref().map(|(attempt, _)| attempt)
    }
}

/// How an attempt ended, and so what the instance needs next.
#[derive(Debug)]
pub(super) enum Turn {
    /// The instance has what it may have. It may still be seen running for a while.
    Settled,
    /// No further attempt for this instance.
    Closed,
    /// The instance does not answer (yet).
    Unreached,
    /// A fresh attempt, after back-off, not before this.
    Again(Option<Duration>),
    /// Vault issued nothing.
    Vault(VaultTrouble),
    /// The pod is not who its status says: read it anew.
    WrongPod,
    /// The ledger cannot take the claim now.
    LedgerFull,
    /// The ledger did not answer, or we lead no more.
    NotLeading,
}

/// One attempt, seen from outside.
pub(super) struct Attempted {
    pub(super) turn: Turn,
    /// Vault was asked for a `secret_id`.
    pub(super) asked: bool,
    /// Vault issued a `secret_id`.
    pub(super) issued: bool,
    /// Of [`Turn::Unreached`]: why.
    pub(super) cause: Option<String>,
}

impl From<Turn> for Attempted {
    fn from(turn: Turn) -> Self {
        Self { turn, asked: false, issued: false, cause: None }
    }
}

/// Makes one attempt. `before_push` makes room for the next worker once Vault has answered.
pub(super) async fn attempt(ctx: &Context, job: &Job, progress: &mut Progress, before_push: Place) -> Attempted {
    let attempt = match claim(ctx, job, progress).await {
        Ok(attempt) => attempt,
        Err(turn) => return turn.into(),
    };
    let dialling = permit(&ctx.dials).await;
    let line = match ctx.ports.courier.dial(&job.addresses).await {
        Ok(line) => line,
        Err(DialError(cause)) => {
            progress.dial_failures += 1;
            ctx.ports.meter.happened(Incident::Unreached, 1);
            let (pod, uid) = (&job.pod, &job.pod.uid);
            tracing::debug!(%pod, pod.uid = %uid, %attempt, cause, "the init container does not answer yet");
            return Attempted { cause: Some(cause), ..Turn::Unreached.into() };
        }
    };
    progress.dial_failures = 0;
    let asking = permit(&ctx.vault_requests).await;
    // Only now may the next one be dialled: an open line that waits for a slow Vault costs a file descriptor and
    // memory here, and patience of the init container.
    drop(dialling);
    match confirm_claim(ctx, &job.key, progress).await {
        Ok(true) => {}
        Ok(false) => return Turn::NotLeading.into(),
        Err(turn) => return turn.into(),
    }
    let wrapped = wrap(ctx, job, &attempt).await;
    drop(asking);
    drop(before_push);
    let secret = match wrapped {
        Ok(secret) => secret,
        Err(trouble) => return Attempted { asked: true, ..Turn::Vault(trouble).into() },
    };
    // From here on a secret_id exists: the claim is used up, whatever happens.
    progress.claim = None;
    let turn = deliver(ctx, job, progress, attempt, secret, line).await;
    progress.wrong_pod = matches!(turn, Turn::WrongPod);
    match turn {
        Turn::Settled => progress.attempt_failures = 0,
        _ => progress.attempt_failures += 1,
    }
    Attempted { turn, asked: true, issued: true, cause: None }
}

/// The second half of an attempt: from the `secret_id` to the outcome.
async fn deliver(
    ctx: &Context,
    job: &Job,
    progress: &mut Progress,
    attempt: AttemptId,
    secret: WrappedSecretId,
    line: Box<dyn Line>,
) -> Turn {
    let issued_at = Instant::now();
    if let Err(turn) = record_issued(ctx, job, &attempt, &secret.accessors).await {
        // The init container waits for somebody else now; what follows may take long where there is no leader.
        drop(line);
        drop_unsent(ctx, job, attempt, secret).await;
        return turn;
    }
    let request = PushRequest { attempt, pod: job.pod.clone(), secret, vault: ctx.ports.issuer.address() };
    match send(ctx, job, request, issued_at, line).await {
        Sent::Answered(request, answer) => settle::by_answer(ctx, job, progress, request, &answer).await,
        Sent::Never(request) => {
            drop_unsent(ctx, job, request.attempt, request.secret).await;
            Turn::Again(None)
        }
    }
}

async fn claim(ctx: &Context, job: &Job, progress: &mut Progress) -> Result<AttemptId, Turn> {
    if ctx.leadership.ended.is_cancelled() {
        return Err(Turn::NotLeading);
    }
    // SEEDED BUG
    if seeded::on(Bug::NoClaim) {
        return Ok(new_attempt_id(ctx));
    }
    if confirm_claim(ctx, &job.key, progress).await?
        && let Some((attempt, _)) = &progress.claim
    {
        return Ok(attempt.clone());
    }
    let attempt = new_attempt_id(ctx);
    let command = Command::Claim(Claim {
        key: job.key.clone(),
        attempt: attempt.clone(),
        pod: job.pod.clone(),
        role: job.role.clone(),
        by: ctx.leadership.author,
        at: ctx.ports.clock.now(),
    });
    match ctx.ports.ledger.propose(command).await {
        Ok(Reply::Done) => {
            progress.claim = Some((attempt.clone(), Instant::now()));
            Ok(attempt)
        }
        Ok(Reply::Refused(Refused::Closed)) => Err(Turn::Settled),
        Ok(Reply::Refused(refused @ Refused::TooManyAttempts)) => {
            ctx.ports.announcer.announce(&job.pod, Announcement::PushRefused(refused.to_string()));
            Err(Turn::Closed)
        }
        Ok(Reply::Refused(Refused::Full)) => Err(Turn::LedgerFull),
        Ok(Reply::Refused(Refused::Fenced | Refused::Busy | Refused::NotOpen)) | Err(_) => Err(Turn::NotLeading),
    }
}

/// Whether there is a claim that may be used now.
async fn confirm_claim(ctx: &Context, key: &InstanceKey, progress: &mut Progress) -> Result<bool, Turn> {
    // SEEDED BUG
    if seeded::on(Bug::NoClaim) {
        return Ok(true);
    }
    let Some((attempt, confirmed)) = &mut progress.claim else { return Ok(false) };
    // FENCING: an old claim says nothing about who leads now.
    if confirmed.elapsed() > CLAIM_FRESH {
        let leads = ctx.ports.ledger.confirm(ctx.leadership.author.term).await;
        if leads != Ok(true) {
            return Err(Turn::NotLeading);
        }
        *confirmed = Instant::now();
    }
    let entry = ctx.ports.ledger.read(key);
    let state = entry.as_ref().filter(|e| e.closed.is_none()).and_then(|e| e.attempt(attempt)).map(|a| a.state);
    Ok(state == Some(AttemptState::Claimed))
}

fn new_attempt_id(ctx: &Context) -> AttemptId {
    let (high, low) = (ctx.ports.dice.roll(), ctx.ports.dice.roll());
    AttemptId::from(format!("{high:016x}{low:016x}").as_str())
}

async fn dial(ctx: &Context, addresses: &[IpAddr]) -> Result<Box<dyn Line>, String> {
    let _permit = permit(&ctx.dials).await;
    ctx.ports.courier.dial(addresses).await.map_err(|error| error.0)
}

async fn wrap(ctx: &Context, job: &Job, attempt: &AttemptId) -> Result<WrappedSecretId, VaultTrouble> {
    let request = SecretIdRequest {
        role: job.role.clone(),
        pod: job.pod.clone(),
        service_account: job.service_account.clone(),
        node: job.node.clone(),
        attempt: attempt.clone(),
    };
    let result = ctx.ports.issuer.wrap(&request).await;
    let trouble = result.as_ref().err();
    ctx.ports.meter.secret_id_requested(&job.role, trouble);
    if let Some(trouble) = trouble {
        if trouble.may_have_issued() {
            ctx.ports.meter.happened(Incident::AnswerLost, 1);
        }
        let (pod, uid, role) = (&job.pod, &job.pod.uid, &job.role);
        tracing::debug!(%pod, pod.uid = %uid, %role, %attempt, cause = %trouble, "Vault issued no secret_id");
    }
    result
}

async fn record_issued(ctx: &Context, job: &Job, attempt: &AttemptId, accessors: &Accessors) -> Result<(), Turn> {
    let command = Command::Issued(Issued {
        key: job.key.clone(),
        attempt: attempt.clone(),
        accessors: accessors.clone(),
        by: ctx.leadership.author,
        at: ctx.ports.clock.now(),
    });
    match ctx.ports.ledger.propose(command).await {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(Refused::Closed)) => Err(Turn::Settled),
        Ok(Reply::Refused(_)) | Err(_) => Err(Turn::NotLeading),
    }
}

/// Puts out of the world what was issued and will not be sent.
async fn drop_unsent(ctx: &Context, job: &Job, attempt: AttemptId, secret: WrappedSecretId) {
    let WrappedSecretId { token, accessors, .. } = secret;
    let outcome = Outcome {
        key: job.key.clone(),
        verdicts: vec![(attempt, Verdict::NeverSent)],
        close: false,
        at: ctx.ports.clock.now(),
    };
    ctx.ports.meter.happened(Incident::NeverSent, 1);
    let neutralise = ctx.ports.issuer.neutralise(&job.role, &accessors, Some(token));
    // Nobody has seen the token: it may go before the ledger knows.
    let ((), how) = tokio::join!(settle::record(ctx, &job.pod, outcome), neutralise);
    ctx.ports.meter.neutralised(how);
}

/// What became of a request to push.
enum Sent {
    /// Nothing left this process.
    Never(PushRequest),
    /// It was sent, and this is what came back.
    Answered(PushRequest, Answer),
}

/// Sends until there is an answer that means something: a receiver that is busy is asked again.
async fn send(ctx: &Context, job: &Job, request: PushRequest, issued_at: Instant, line: Box<dyn Line>) -> Sent {
    let ttl = Duration::from_secs(request.secret.ttl_seconds.into());
    // FENCING: no push is begun in a term whose lease has run out.
    let may_send =
        || ctx.ports.ledger.holds_lease(ctx.leadership.author.term) && may_still_be_sent(ttl, issued_at.elapsed());
    if !may_send() {
        return Sent::Never(request);
    }
    // Once a body was sent, no other address of the pod is tried.
    let peer = [line.peer()];
    let mut line = line;
    loop {
        let answer = line.push(&request).await;
        if answer.meaning() != Meaning::Busy {
            return Sent::Answered(request, answer);
        }
        ctx.ports.meter.pushed(&job.role, &answer);
        sleep(BUSY_PAUSE).await;
        let unknown = |cause: String| Answer::Incomplete(format!("it was busy with another push, then {cause}").into());
        line = match dial(ctx, &peer).await {
            Ok(line) => line,
            Err(cause) => return Sent::Answered(request, unknown(cause)),
        };
        if !may_send() {
            return Sent::Answered(request, unknown("the time of the wrapping token was up".into()));
        }
    }
}
