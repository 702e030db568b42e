//! The ledger of a single replica: [`crate::domain::ledger::Ledger`] in memory.
//!
//! What a restart forgets is covered by what holds without any ledger: an init container takes one push, and
//! nothing is asked of Vault before its handshake. Must never be used by two replicas.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::deliver::ports::{LedgerError, LedgerPort};
use crate::domain::ids::{InstanceKey, Term};
use crate::domain::ledger::{Command, Entry, Ledger, Reply};

/// The term of the one leadership that a single replica has.
pub const ONLY_TERM: Term = Term(1);

/// See the module.
#[derive(Default)]
pub struct MemoryLedger(Mutex<Ledger>);

impl MemoryLedger {
    fn with<R>(&self, f: impl FnOnce(&mut Ledger) -> R) -> R {
        // `apply` does not panic half-way through a change; what it left is whole.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many entries there are, tombstones included.
    pub fn len(&self) -> usize {
        self.with(|ledger| ledger.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl LedgerPort for MemoryLedger {
    async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        Ok(self.with(|ledger| ledger.apply(&command, ONLY_TERM)))
    }

    fn read(&self, key: &InstanceKey) -> Option<Entry> {
        self.with(|ledger| ledger.get(key).cloned())
    }

    fn open(&self) -> Vec<(InstanceKey, Entry)> {
        self.with(|ledger| ledger.open().map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn holds_lease(&self, term: Term) -> bool {
        term == ONLY_TERM
    }

    async fn confirm(&self, term: Term) -> Result<bool, LedgerError> {
        Ok(term == ONLY_TERM)
    }
}
