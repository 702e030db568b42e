//! The rig `store`: what really reaches the disk, on RocksDB.
//!
//! The simulation proves that callers ask for a sync; only this proves that RocksDB did one. (openraft's own suite for
//! stores runs in `src/raft/tests/suite.rs`.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kubernetes_vault::clock::Dice;
use kubernetes_vault::deliver::ports::LedgerPort;
use kubernetes_vault::domain::ids::{
    AttemptId, BootId, ContainerId, InstanceKey, NodeId, PodRef, PodUid, RoleName, Timestamp,
};
use kubernetes_vault::domain::ledger::{Author, Claim, Command, Reply};
use kubernetes_vault::domain::peers::{Listed, PodState};
use kubernetes_vault::raft::Timings;
use kubernetes_vault::raft::ports::Directory;
use kubernetes_vault::raft::service::{Options, Service};
use kubernetes_vault::store::marker::{self, Claimant};
use kubernetes_vault::store::rocks::RocksEngine;
use kubernetes_vault::store::{Batch, Family, Store, keys};
use libtest_mimic::{Failed, Trial};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::sim::rng::Rng;

/// Commands that are proposed one by one.
const COMMANDS: u32 = 50;

/// A bug of RocksDB's that is seeded on purpose is seen by the whole process: one case at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The cases.
pub(crate) fn trials() -> Vec<Trial> {
    let case = |name: &str, run: fn() -> Result<(), String>| {
        Trial::test(format!("store::{name}"), move || {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            run().map_err(Failed::from)
        })
    };
    vec![
        case("each_acknowledged_command_was_synced_by_rocksdb", each_command_is_synced),
        case("each_commit_of_each_kind_was_synced_by_rocksdb", each_commit_is_synced),
        case("a_power_cut_takes_nothing_that_was_committed", committed_survives),
    ]
}

/// Whether a missing sync in RocksDB shows: for the suite's own test.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn finds_a_missing_sync() -> Result<(), String> {
    use kubernetes_vault::seeded::{Bug, in_process};
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    in_process(Some(Bug::NoSyncInRocks));
    let found = [each_command_is_synced(), each_commit_is_synced()];
    in_process(None);
    if found.iter().all(Result::is_err) { Ok(()) } else { Err(format!("not found: {found:?}")) }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| e.to_string())
}

/// A service of one replica.
struct Alone;

fn uid() -> PodUid {
    PodUid::from("controller-0")
}

#[async_trait]
impl Directory for Alone {
    async fn listed(&self) -> Result<Vec<Listed>, String> {
        Ok(vec![Listed { uid: uid(), name: "controller-0".into(), address: [127, 0, 0, 1].into() }])
    }

    async fn pods(&self, _peers: &[Listed]) -> BTreeMap<PodUid, PodState> {
        BTreeMap::new()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    fn urgent(&self, _urgent: bool) {}
}

fn claim(n: u32, by: Author) -> Command {
    let pod = PodRef { namespace: "apps".into(), name: format!("app-{n}").into(), uid: PodUid::from("app") };
    let container_id = ContainerId::from(format!("containerd://{n}").as_str());
    Command::Claim(Claim {
        key: InstanceKey { pod: pod.uid.clone(), container: "init".into(), container_id, generation: 0 },
        attempt: AttemptId::from(format!("{n:032x}").as_str()),
        pod,
        role: RoleName::parse("role").expect("a letter is in the grammar"),
        by,
        at: Timestamp(1),
    })
}

fn each_command_is_synced() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    runtime()?.block_on(async {
        let (engine, syncs) = RocksEngine::open_counted(folder.path()).map_err(|error| error.to_string())?;
        let store = Store::start(engine).map_err(|error| error.to_string())?;
        let claimant = Claimant {
            fresh: NodeId(1),
            pod: Some(uid()),
            bound_to_pod: true,
            owner: "ns/service/".to_owned(),
            now: Timestamp(1),
        };
        let marker = marker::claim(&store, claimant.clone()).await.map_err(|error| error.to_string())?;
        let (service, handle, mut leaderships) = Service::new(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            network: None,
            directory: Arc::new(Alone),
            store: store.clone(),
            marker,
            claimant,
            uid: uid(),
            boot: BootId(1),
            timings: Timings {
                heartbeat: Duration::from_millis(60),
                election_min: Duration::from_millis(150),
                election_max: Duration::from_millis(300),
            },
            grace: Duration::from_secs(600),
            dice: Dice::fair(),
        });
        let stop = CancellationToken::new();
        let runs = tokio::spawn(service.run(stop.clone()));
        let leadership = leaderships.recv().await.ok_or("no leadership")?;
        // The marker, the vote, the first configuration, and the entry of the term.
        let begun = syncs.count();
        let mut unsynced = if begun < 4 { vec![format!("{begun} syncs when it leads")] } else { Vec::new() };
        for n in 0..COMMANDS {
            let before = syncs.count();
            let reply = handle.ledger.propose(claim(n, leadership.author)).await;
            if reply != Ok(Reply::Done) {
                return Err(format!("{reply:?}"));
            }
            if syncs.count() == before {
                unsynced.push(format!("command {n}"));
            }
        }
        stop.cancel();
        drop(runs.await);
        store.close().await;
        if unsynced.is_empty() { Ok(()) } else { Err(format!("acknowledged without a sync: {unsynced:?}")) }
    })
}

/// What a vote, an append, a truncation, a purge and a snapshot write.
fn kinds(index: u64) -> [(&'static str, Batch); 5] {
    let mut batches = [(); 5].map(|()| Batch::default());
    batches[0].put(Family::Meta, &b"vote"[..], index.to_be_bytes());
    batches[1].put(Family::Log, keys::log(index), &b"entry"[..]);
    batches[2].delete_range(Family::Log, keys::log_from(index));
    batches[3].put(Family::Meta, &b"purged"[..], index.to_be_bytes());
    batches[3].delete_range(Family::Log, keys::log_through(index));
    batches[4].put(Family::Snapshot, keys::snapshot_piece(index, 0), &b"piece"[..]);
    let names = ["vote", "append", "truncate", "purge", "install"];
    let mut batches = batches.into_iter();
    names.map(|name| (name, batches.next().unwrap_or_default()))
}

fn each_commit_is_synced() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    runtime()?.block_on(async {
        let (engine, syncs) = RocksEngine::open_counted(folder.path()).map_err(|error| error.to_string())?;
        let store = Store::start(engine).map_err(|error| error.to_string())?;
        let mut unsynced = Vec::new();
        for index in 0..u64::from(COMMANDS) {
            for (kind, batch) in kinds(index) {
                let before = syncs.count();
                store.commit(batch).await.map_err(|error| error.to_string())?;
                if syncs.count() == before {
                    unsynced.push(kind);
                }
            }
        }
        store.close().await;
        if unsynced.is_empty() { Ok(()) } else { Err(format!("acknowledged without a sync: {unsynced:?}")) }
    })
}

/// The write-ahead log that is written now.
fn wal(folder: &Path) -> Result<PathBuf, String> {
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let logs = files.filter_map(|file| Some(file.ok()?.path()).filter(|path| path.extension() == Some("log".as_ref())));
    logs.max().ok_or_else(|| "no write-ahead log".to_owned())
}

fn length(file: &Path) -> Result<u64, String> {
    fs::metadata(file).map(|metadata| metadata.len()).map_err(|error| error.to_string())
}

/// Writes and commits in turn, then loses a tail of the log that was not synced: all that was committed is there, and of
/// the rest a beginning.
fn committed_survives() -> Result<(), String> {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let (folder, copy) = (tempfile::tempdir(), tempfile::tempdir());
        let (folder, copy) = (folder.map_err(|e| e.to_string())?, copy.map_err(|e| e.to_string())?);
        let writes = rng.between(1, 60);
        let (committed, synced) = runtime()?.block_on(async {
            let engine = RocksEngine::open(folder.path()).map_err(|error| error.to_string())?;
            let store = Store::start(engine).map_err(|error| error.to_string())?;
            let (mut committed, mut synced) = (0, 0);
            for index in 1..=writes {
                let mut batch = Batch::default();
                batch.put(Family::Log, keys::log(index), vec![7; 200]);
                if rng.chance(30) {
                    store.commit(batch).await.map_err(|error| error.to_string())?;
                    (committed, synced) = (index, length(&wal(folder.path())?)?);
                } else {
                    store.write(batch).await.map_err(|error| error.to_string())?;
                }
            }
            // What the page cache has, as it would be without the power cut.
            for file in fs::read_dir(folder.path()).map_err(|error| error.to_string())?.flatten() {
                fs::copy(file.path(), copy.path().join(file.file_name())).map_err(|error| error.to_string())?;
            }
            store.close().await;
            Ok::<_, String>((committed, synced))
        })?;
        let log = wal(copy.path())?;
        let kept = rng.between(synced.min(length(&log)?), length(&log)?);
        let file = fs::OpenOptions::new().write(true).open(&log).map_err(|error| error.to_string())?;
        file.set_len(kept).map_err(|error| error.to_string())?;
        let engine = RocksEngine::open(copy.path()).map_err(|error| error.to_string())?;
        let store = Store::inline(engine);
        let found = store.scan(Family::Log, keys::all(), usize::MAX).map_err(|error| error.to_string())?;
        let found: Vec<u64> = found.iter().filter_map(|(key, _)| keys::log_index(key)).collect();
        let last = found.last().copied().unwrap_or(0);
        if last < committed || !found.iter().copied().eq(1..=last) {
            return Err(format!("seed {seed}: {committed} of {writes} were committed, and there are {found:?}"));
        }
    }
    Ok(())
}
