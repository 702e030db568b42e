//! An engine whose syncs wait for the test.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use crate::store::engine::{Batch, Engine, EngineError, Family, Record};
use crate::store::mem::MemEngine;

/// Memory whose syncs begin, and then wait until the gate is opened.
#[derive(Clone, Default)]
pub(super) struct Gated {
    pub(super) memory: MemEngine,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    open: bool,
    waiting: u32,
}

impl Gated {
    /// Lets every sync pass, from now on.
    pub(super) fn open(&self) {
        self.gate.0.lock().unwrap().open = true;
        self.gate.1.notify_all();
    }

    /// Blocks until a sync waits.
    pub(super) fn wait_for_a_sync(&self) {
        let guard = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(guard, |gate| gate.waiting == 0).unwrap());
    }
}

impl Engine for Gated {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        self.memory.write(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut guard = self.gate.0.lock().unwrap();
        guard.waiting += 1;
        self.gate.1.notify_all();
        drop(self.gate.1.wait_while(guard, |gate| !gate.open).unwrap());
        self.memory.sync()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.memory.get(family, key)
    }

    fn scan(&self, family: Family, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Record>, EngineError> {
        self.memory.scan(family, range, limit)
    }

    fn last(&self, family: Family) -> Result<Option<Record>, EngineError> {
        self.memory.last(family)
    }
}
