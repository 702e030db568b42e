//! openraft's own suite for stores, on both engines.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::domain::ids::PodUid;
use crate::domain::membership::Member;
use crate::raft::log_store::LogStore;
use crate::raft::running::seeded;
use crate::raft::state_machine::Machine;
use crate::raft::types::TypeConfig;
use crate::store::Store;
use crate::store::mem::MemEngine;
use crate::store::rocks::RocksEngine;

impl Default for Member {
    fn default() -> Self {
        Self { address: [127, 0, 0, 1].into(), pod: PodUid::from("pod"), bound_to_pod: true }
    }
}

struct Memory;

impl StoreBuilder<TypeConfig, LogStore, Machine> for Memory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let store = Store::inline(MemEngine::new());
        let (machine, _) = Machine::load(store.clone()).unwrap();
        Ok(((), LogStore::new(store), machine))
    }
}

struct Rocks;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Rocks {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::start(RocksEngine::open(dir.path()).unwrap()).unwrap();
        let (machine, _) = Machine::load(store.clone()).unwrap();
        Ok((dir, LogStore::new(store), machine))
    }
}

#[tokio::test]
async fn the_store_in_memory_passes_openrafts_suite() {
    seeded(1, Suite::test_all(Memory)).await.unwrap();
}

#[tokio::test]
async fn the_store_on_rocksdb_passes_openrafts_suite() {
    seeded(1, Suite::test_all(Rocks)).await.unwrap();
}
