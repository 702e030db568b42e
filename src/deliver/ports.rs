//! What the workflow needs of the world, as traits: adapters implement them, tests replace them.
//!
//! Owns no state. A secret crosses here only inside a type without `Debug` that is zeroed when dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::domain::announcement::Announcement;
use crate::domain::delivery::{Answer, VaultTrouble};
use crate::domain::ids::{AttemptId, InstanceKey, PodRef, RoleName, Term};
use crate::domain::ledger::{Accessors, Author, Command, Entry, Reply};
use crate::domain::limits::Limit;
use crate::domain::pod::Pod;

/// What the watch says. A watch narrowed to `status.phase=Pending`: a pod that is running is one that left.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// A new complete list begins: a pod that is not seen before [`PodEvent::Synced`] has left meanwhile.
    Restarted,
    /// The pod as it is now.
    Seen(Arc<Pod>),
    /// It left the selection: deleted, or not pending any more. The pod as it was before.
    Left(Arc<Pod>),
    /// The complete list was seen.
    Synced,
}

/// The pods that may wait for us.
#[async_trait]
pub trait PodFeed: Send + Sync {
    /// The watch. It heals itself, with back-off, and never ends.
    fn events(&self) -> BoxStream<'static, PodEvent>;

    /// One pod by name, by a fresh `list` with a field selector (the reference's permissions have no `get`).
    async fn read(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ReadError>;
}

/// The API server did not say how a pod is.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer for the pod: {0}")]
pub struct ReadError(pub String);

/// What is asked of Vault.
#[derive(Clone, Debug)]
pub struct SecretIdRequest {
    /// The role.
    pub role: RoleName,
    /// For whom: goes into the `secret_id`'s metadata, and so into Vault's audit log.
    pub pod: PodRef,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// `spec.nodeName`.
    pub node: Arc<str>,
    /// The attempt.
    pub attempt: AttemptId,
}

/// A response-wrapped `secret_id`. No `Debug`: the token is a secret.
pub struct WrappedSecretId {
    /// The wrapping token.
    pub token: SecretString,
    /// `wrap_info.creation_time`.
    pub creation_time: jiff::Timestamp,
    /// `wrap_info.ttl`, whole seconds.
    pub ttl_seconds: u32,
    /// What names it without giving it away.
    pub accessors: Accessors,
}

/// Where the init container is told to find Vault.
#[derive(Clone, Debug)]
pub struct VaultAddress {
    /// `vault.addr`, byte for byte as configured.
    pub address: String,
    /// Vault's CA certificates as a PEM bundle, where configured.
    pub ca_bundle: Option<String>,
    /// `vault.namespace`, where configured.
    pub namespace: Option<String>,
}

/// How a `secret_id` that nobody may use was put out of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neutralised {
    /// Destroyed by its accessor.
    Destroyed,
    /// Its wrapping token was unwrapped and the result dropped.
    Unwrapped,
    /// Left: its wrapping token runs out.
    LeftToExpire,
}

/// Vault, as far as the workflow sees it.
#[async_trait]
pub trait SecretIssuer: Send + Sync {
    /// Completes once we are logged in and the checks of our token have passed. Nothing is claimed before.
    async fn usable(&self);

    /// Why [`SecretIssuer::usable`] has not completed yet, in words for the pods that wait for it.
    fn unusable_because(&self) -> String;

    /// One wrapped `secret_id`. One request, no retry: back-off is the workflow's.
    async fn wrap(&self, request: &SecretIdRequest) -> Result<WrappedSecretId, VaultTrouble>;

    /// Puts out of the world a `secret_id` that was refused or never sent, by the first way that is possible:
    /// destroyed by accessor, or its wrapping token (where we still hold it) unwrapped and the result dropped.
    /// Never call this for an attempt whose fate is unknown.
    async fn neutralise(&self, role: &RoleName, accessors: &Accessors, token: Option<SecretString>) -> Neutralised;

    /// Where the init container is told to find Vault.
    fn address(&self) -> Arc<VaultAddress>;
}

/// What is sent to an init container. No `Debug`: it carries the wrapping token.
pub struct PushRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// The pod it is meant for.
    pub pod: PodRef,
    /// What to send.
    pub secret: WrappedSecretId,
    /// Where Vault is.
    pub vault: Arc<VaultAddress>,
}

/// Reaches init containers.
#[async_trait]
pub trait Courier: Send + Sync {
    /// Connects to the first of `addresses` that completes a TLS handshake: in order, one second each.
    async fn dial(&self, addresses: &[IpAddr]) -> Result<Box<dyn Line>, DialError>;
}

/// No address of the pod completed a handshake. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no TLS handshake with the init container: {0}")]
pub struct DialError(pub String);

/// A connection to an init container, for one push.
#[async_trait]
pub trait Line: Send {
    /// Which of the pod's addresses completed the handshake.
    fn peer(&self) -> IpAddr;

    /// Sends `request` and waits for the answer, 30 s at most.
    async fn push(self: Box<Self>, request: &PushRequest) -> Answer;
}

/// The replicated ledger.
#[async_trait]
pub trait LedgerPort: Send + Sync {
    /// Commits `command` and returns what [`crate::domain::ledger::Ledger::apply`] said.
    ///
    /// # Errors
    /// The outcome is unknown: the command may or may not be committed later.
    async fn propose(&self, command: Command) -> Result<Reply, LedgerError>;

    /// The entry as applied here: all that this leader has committed is in it.
    fn read(&self, key: &InstanceKey) -> Option<Entry>;

    /// The entries with something open, as applied here.
    fn open(&self) -> Vec<(InstanceKey, Entry)>;

    /// Whether we lead in `term` and our lease has not run out. Cheap: asked just before each push.
    fn holds_lease(&self, term: Term) -> bool;

    /// Asks a majority whether we lead in `term` still. For a claim that has grown old: it may have been
    /// committed after our lease ran out.
    async fn confirm(&self, term: Term) -> Result<bool, LedgerError>;
}

/// The ledger could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger did not answer: {0}")]
pub struct LedgerError(pub String);

/// A leadership that has begun: an entry of its own term is applied.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// In whose name commands are proposed.
    pub author: Author,
    /// Cancelled when it ends.
    pub ended: CancellationToken,
}

/// Tells the pod's author, by a Kubernetes Event. Never waits: beyond its limit it drops and counts.
pub trait Announcer: Send + Sync {
    /// Announces `what` on `pod`.
    fn announce(&self, pod: &PodRef, what: Announcement);
}

/// What the workflow measures. A role becomes a label only once Vault has accepted it, so that no pod author can
/// make labels at will: implementations remember for which roles a `secret_id` was issued.
pub trait Meter: Send + Sync {
    /// Vault was asked for a `secret_id` of `role`.
    fn secret_id_requested(&self, role: &RoleName, trouble: Option<&VaultTrouble>);
    /// A push for `role` ended with `answer`.
    fn pushed(&self, role: &RoleName, answer: &Answer);
    /// An init container got its `secret_id` that long after it was started.
    fn delivered(&self, after: Duration);
    /// Something that is worth counting happened, `times` times.
    fn happened(&self, what: Incident, times: u64);
    /// A `secret_id` was put out of the world.
    fn neutralised(&self, how: Neutralised);
    /// A pod that is due is kept waiting by `limit`; once for each of its attempts.
    fn limited(&self, limit: Limit);
    /// Pods that are due and wait for their turn, and pods being worked on.
    fn load(&self, queued: usize, in_flight: usize);
}

/// What is counted beside requests and pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Incident {
    /// An init container could not be dialled.
    Unreached,
    /// A `secret_id` was issued, but never sent.
    NeverSent,
    /// Vault may have issued a `secret_id` whose answer was lost: its wrapping token runs out.
    AnswerLost,
    /// A `secret_id` was kept because nobody can tell whether it was used.
    FateUnknown,
    /// A wrapping token had been used before its init container could.
    TokenUsedByAnother,
    /// An init container that had accepted was served again.
    Reopened,
    /// A claim was not taken because the ledger is full.
    LedgerFull,
    /// A pod was not watched because too many are.
    TooManyPods,
}

impl Incident {
    /// All of them: each is a label of one metric.
    pub const ALL: [Self; 8] = [
        Self::Unreached,
        Self::NeverSent,
        Self::AnswerLost,
        Self::FateUnknown,
        Self::TokenUsedByAnother,
        Self::Reopened,
        Self::LedgerFull,
        Self::TooManyPods,
    ];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::NeverSent => "never_sent",
            Self::AnswerLost => "answer_lost",
            Self::FateUnknown => "fate_unknown",
            Self::TokenUsedByAnother => "token_used_by_another",
            Self::Reopened => "reopened",
            Self::LedgerFull => "ledger_full",
            Self::TooManyPods => "too_many_pods",
        }
    }
}
