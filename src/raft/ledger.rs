//! The ledger's port, answered by Raft.
//!
//! Owns the limits on a proposal. A claim and an `Issued` are proposed by the leader alone; an outcome is a fact, and
//! goes to whoever leads. Must never call a command committed before it was applied here, nor a lease held on the
//! strength of anything but a majority's word.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use openraft::ReadPolicy;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::running::Running;
use crate::deliver::ports::{LedgerError, LedgerPort};
use crate::domain::ids::{InstanceKey, Term};
use crate::domain::ledger::{Command, Entry, Reply};
use crate::seeded::{self, Bug};

/// A majority that is there answers in milliseconds, and an election takes half a second. What takes longer has an
/// unknown outcome, and whoever waits for it has to find out in another way.
const PROPOSE_LIMIT: Duration = Duration::from_secs(2);

/// A majority's word on who leads: one round trip.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);

/// Proposals at once. They share fsyncs, so more at once are cheaper each; beyond some thousands they only queue up
/// inside Raft, where nobody can give up on them.
const MAX_PROPOSALS: usize = 4_096;

/// The replicated ledger, also while this node forms or joins a cluster: it answers nothing then.
#[derive(Clone)]
pub struct RaftLedger {
    running: Arc<RwLock<Option<Arc<Running>>>>,
    proposals: Arc<Semaphore>,
}

impl RaftLedger {
    pub(super) fn new() -> Self {
        Self { running: Arc::default(), proposals: Arc::new(Semaphore::new(MAX_PROPOSALS)) }
    }

    pub(super) fn set(&self, running: Option<Arc<Running>>) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }

    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl LedgerPort for RaftLedger {
    async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        let Some(running) = self.running() else { return Err(LedgerError("there is no cluster yet".into())) };
        let _permit = self.proposals.acquire().await;
        let fact = matches!(command, Command::Outcome(_));
        // SEEDED BUG: done before it is committed.
        if seeded::on(Bug::DoneBeforeCommit) {
            drop(tokio::spawn(async move { running.propose(command).await }));
            return Ok(Reply::Done);
        }
        let proposed = async {
            match fact && !running.is_leader() {
                true => running.forward(command).await,
                false => running.propose(command).await,
            }
        };
        match timeout(PROPOSE_LIMIT, proposed).await {
            Ok(result) => result.map_err(LedgerError),
            Err(_) => Err(LedgerError("a majority of the replicas does not answer in time".into())),
        }
    }

    fn read(&self, key: &InstanceKey) -> Option<Entry> {
        self.running()?.ledger.read(|applied| applied.ledger.get(key).cloned())
    }

    fn open(&self) -> Vec<(InstanceKey, Entry)> {
        let Some(running) = self.running() else { return Vec::new() };
        running.ledger.read(|applied| applied.ledger.open().map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn holds_lease(&self, term: Term) -> bool {
        self.running().is_some_and(|running| running.holds_lease(term))
    }

    async fn confirm(&self, term: Term) -> Result<bool, LedgerError> {
        let Some(running) = self.running() else { return Ok(false) };
        let asked = timeout(CONFIRM_LIMIT, running.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        match asked {
            Ok(Ok(_)) => Ok(running.leads_in() == Some(term)),
            Ok(Err(_)) => Ok(false),
            Err(_) => Err(LedgerError("a majority of the replicas does not answer in time".into())),
        }
    }
}
