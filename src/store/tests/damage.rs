//! What a storage is refused for, and what survives: kills, torn tails, flipped bytes, other processes, full disks.
//!
//! Some of it needs a process or a file system of its own: the test then starts itself again as a child.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{indexes, put};
use crate::store::engine::{Batch, Engine, Family};
use crate::store::keys;
use crate::store::rocks::{OpenError, RocksEngine};
use crate::store::trouble::{Kind, Trouble};

/// Tells a child that it is one, and its folder.
const CHILD: &str = "STORE_TEST_CHILD_FOLDER";

/// The folder, in the child.
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The arguments that run `test` alone, and let its output through.
fn only(test: &str) -> [String; 3] {
    let module = module_path!().split_once("::").unwrap().1;
    [format!("{module}::{test}"), "--exact".into(), "--nocapture".into()]
}

/// Starts `test` as a child with `folder`.
fn child(test: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(only(test)).env(CHILD, folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Runs `test` as a child whose folder is a file system in memory, after `mount` was run in it. No root needed: the
/// child has namespaces of its own.
fn on_a_small_disk(test: &str, mount: &str) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command.arg(std::env::current_exe().unwrap()).args(only(test)).env(CHILD, folder.path());
    let output = command.output().expect("unshare (util-linux) is needed, as for the testbed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The only file of `folder` with this ending that is not empty.
fn file(folder: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut found = files.filter(|entry| entry.path().extension().is_some_and(|is| is == ending));
    found.find(|entry| entry.metadata().unwrap().len() > 0).unwrap().path()
}

/// Flips a bit of the byte at `at`.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Why `folder` is refused, in its one line.
fn refusal(folder: &Path) -> (Kind, String) {
    let error: OpenError = RocksEngine::open(folder).err().expect("it should be refused");
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&folder.display().to_string()), "{line}");
    (error.trouble.kind, line)
}

/// A record of half a block of RocksDB's log, so that damage to one leaves others whole.
fn long(index: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Family::Log, keys::log(index), vec![b'x'; 16 << 10]);
    batch
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    if let Some(folder) = child_folder() {
        let engine = RocksEngine::open(&folder).unwrap();
        for index in 0..100 {
            engine.write(put(index)).unwrap();
        }
        std::process::abort();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = child("a_killed_process_loses_nothing_that_it_wrote", folder.path());
    assert!(!child.wait().unwrap().success());
    assert_eq!(indexes(&RocksEngine::open(folder.path()).unwrap()).len(), 100);
}

#[test]
fn a_second_process_is_refused_while_the_first_one_runs() {
    if let Some(folder) = child_folder() {
        let _engine = RocksEngine::open(&folder).unwrap();
        println!("\nopened");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = child("a_second_process_is_refused_while_the_first_one_runs", folder.path());
    // Kept to the end: the child's test runner has more to say.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    lines.find(|line| line.ends_with("opened")).expect("the child opens the folder");
    let (kind, line) = refusal(folder.path());
    assert_eq!(kind, Kind::InUse);
    assert!(line.contains("another process has it open: give each replica a folder of its own (raftDir)"), "{line}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    RocksEngine::open(folder.path()).unwrap();
}

#[test]
fn a_second_handle_is_refused_while_the_first_one_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = RocksEngine::open(folder.path()).unwrap();
    assert_eq!(refusal(folder.path()).0, Kind::InUse);
    drop(first);
    RocksEngine::open(folder.path()).unwrap();
}

#[test]
fn a_missing_folder_is_made_with_its_parents() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/raft");
    RocksEngine::open(&deep).unwrap().write(put(1)).unwrap();
    assert_eq!(indexes(&RocksEngine::open(&deep).unwrap()), [1]);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let Some(folder) = child_folder() else {
        let mount = format!("mount -t tmpfs -o ro none \"${CHILD}\"");
        return on_a_small_disk("a_folder_that_cannot_be_written_is_refused", &mount);
    };
    for folder in [folder.clone(), folder.join("raft")] {
        let (kind, line) = refusal(&folder);
        assert_eq!(kind, Kind::ReadOnly, "{line}");
        assert!(line.contains("mount it read-write"), "{line}");
    }
}

#[test]
fn a_full_disk_is_told_and_takes_nothing_that_was_acknowledged() {
    let Some(folder) = child_folder() else {
        let mount = format!("mount -t tmpfs -o size=12m none \"${CHILD}\"");
        return on_a_small_disk("a_full_disk_is_told_and_takes_nothing_that_was_acknowledged", &mount);
    };
    let filler = folder.join("filler");
    fs::write(&filler, vec![0; 4 << 20]).unwrap();
    let raft = folder.join("raft");
    let engine = RocksEngine::open(&raft).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        if let Err(error) = engine.write(long(acknowledged)).and_then(|()| engine.sync()) {
            break error;
        }
        acknowledged += 1;
    };
    let trouble = error.cause.downcast_ref::<Trouble>().unwrap();
    assert_eq!(trouble.kind, Kind::Full, "{trouble}");
    assert!(acknowledged > 100, "{acknowledged}");
    drop(engine);
    if let Err(error) = RocksEngine::open(&raft) {
        assert_eq!(error.trouble.kind, Kind::Full, "{error}");
    }
    fs::remove_file(&filler).unwrap();
    let found = indexes(&RocksEngine::open(&raft).unwrap());
    assert!(found.starts_with(&(0..acknowledged).collect::<Vec<_>>()), "{acknowledged} were acknowledged: {found:?}");
}

#[test]
fn a_newer_version_is_named_and_its_data_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    RocksEngine::open(folder.path()).unwrap().write(put(1)).unwrap();
    let names = Family::ALL.map(Family::name);
    let mut newer = rocksdb::DB::open_cf(&rocksdb::Options::default(), folder.path(), names).unwrap();
    newer.create_cf("bindings", &rocksdb::Options::default()).unwrap();
    drop(newer);
    let (kind, line) = refusal(folder.path());
    assert_eq!(kind, Kind::Newer, "{line}");
    assert!(line.contains("run that version"), "{line}");
    let names = names.into_iter().chain(["bindings"]);
    let newer = rocksdb::DB::open_cf(&rocksdb::Options::default(), folder.path(), names).unwrap();
    let log = newer.cf_handle(Family::Log.name()).unwrap();
    assert_eq!(newer.get_cf(log, keys::log(1)).unwrap(), Some(b"record 1".to_vec()));
}

#[test]
fn a_torn_tail_costs_only_the_write_that_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path()).unwrap();
    for index in 0..10 {
        engine.write(long(index)).unwrap();
    }
    drop(engine);
    let log = file(folder.path(), "log");
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - 100).unwrap();
    assert_eq!(indexes(&RocksEngine::open(folder.path()).unwrap()), (0..9).collect::<Vec<_>>());
}

#[test]
fn a_flipped_byte_in_the_log_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path()).unwrap();
    for index in 0..10 {
        engine.write(long(index)).unwrap();
    }
    engine.sync().unwrap();
    drop(engine);
    let log = file(folder.path(), "log");
    flip(&log, 70 << 10);
    let (kind, line) = refusal(folder.path());
    assert_eq!(kind, Kind::Damaged, "{line}");
    let name = log.file_name().unwrap().to_str().unwrap();
    assert!(line.contains(name) && line.contains("dropping") && line.contains("never repair it"), "{line}");
}

#[test]
fn a_flipped_byte_in_a_table_is_refused_with_its_file_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path()).unwrap();
    for index in 0..10 {
        engine.write(long(index)).unwrap();
    }
    drop(engine);
    // What is found in the log goes into a table.
    drop(RocksEngine::open(folder.path()).unwrap());
    let table = file(folder.path(), "sst");
    flip(&table, 50 << 10);
    let engine = RocksEngine::open(folder.path()).unwrap();
    let error = engine.scan(Family::Log, keys::all(), usize::MAX).unwrap_err();
    let trouble = error.cause.downcast_ref::<Trouble>().unwrap();
    assert_eq!(trouble.kind, Kind::Damaged, "{trouble}");
    let line = trouble.to_string();
    let name = table.file_name().unwrap().to_str().unwrap();
    assert!(line.contains(name) && line.contains(" offset "), "{line}");
    // The rest can still be read.
    assert!(engine.get(Family::Log, &keys::log(0)).unwrap().is_some());
}
