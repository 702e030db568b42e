//! The storage stays small, on disk and in memory, however much goes through it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::store::engine::{Batch, Engine, Family};
use crate::store::keys;
use crate::store::rocks::{RocksEngine, disk_bytes};

/// What a storage may take.
const DISK_BYTES: u64 = 64 << 20;

/// What of it may be resident.
const RESIDENT_BYTES: u64 = 15 << 20;

/// Records that a purge leaves.
const KEPT: u64 = 1_000;

/// Writes `records` log records in groups of 100, purges all but the last each 5,000, and replaces a snapshot of
/// `snapshot_bytes` each `records / snapshots`. Returns the most that was on disk and in memory on the way.
fn run(folder: &Path, records: u64, snapshots: u64, snapshot_bytes: usize) -> (u64, u64) {
    let before = resident();
    let engine = RocksEngine::open(folder).unwrap();
    let (mut disk, mut memory) = (0, 0);
    let mut sequence = 0_u64;
    for first in (0..records).step_by(100) {
        let mut batch = Batch::default();
        for index in first..first + 100 {
            batch.put(Family::Log, keys::log(index), noise(&mut sequence, 250));
        }
        engine.write(batch).unwrap();
        if first % 5_000 == 0 && first > KEPT {
            let mut batch = Batch::default();
            batch.put(Family::Meta, "purged", (first - KEPT).to_be_bytes());
            batch.delete_range(Family::Log, keys::log_through(first - KEPT));
            engine.write(batch).unwrap();
            engine.sync().unwrap();
            disk = disk.max(disk_bytes(folder).unwrap());
            memory = memory.max(resident().saturating_sub(before));
        }
        if first % (records / snapshots) == 0 {
            replace_snapshot(&engine, first, snapshot_bytes, &mut sequence);
            disk = disk.max(disk_bytes(folder).unwrap());
            memory = memory.max(resident().saturating_sub(before));
        }
    }
    (disk, memory)
}

fn replace_snapshot(engine: &RocksEngine, number: u64, bytes: usize, sequence: &mut u64) {
    for piece in 0..bytes.div_ceil(keys::SNAPSHOT_PIECE_BYTES) {
        let mut batch = Batch::default();
        let key = keys::snapshot_piece(number, u32::try_from(piece).unwrap());
        batch.put(Family::Snapshot, key, noise(sequence, keys::SNAPSHOT_PIECE_BYTES));
        engine.write(batch).unwrap();
    }
    let mut batch = Batch::default();
    batch.put(Family::Meta, "snapshot", number.to_be_bytes());
    batch.delete_range(Family::Snapshot, keys::snapshots_before(number));
    engine.write(batch).unwrap();
    engine.sync().unwrap();
}

/// Bytes that no file system makes smaller.
fn noise(sequence: &mut u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        *sequence = sequence.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*sequence ^ (*sequence >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&mixed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What of this process is in memory, without code and files, which the kernel drops when it needs the room.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The least that is on disk within a while: merging goes on after the last write.
fn settled(folder: &Path) -> u64 {
    let start = Instant::now();
    let mut least = u64::MAX;
    while least > 3 << 20 && start.elapsed() < Duration::from_secs(2) {
        least = least.min(disk_bytes(folder).unwrap());
        std::thread::yield_now();
    }
    least
}

#[test]
fn purged_records_and_replaced_snapshots_leave_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, memory) = run(folder.path(), 60_000, 4, 8 << 20);
    println!("15 MB of log, 4 snapshots of 8 MiB: at most {disk} bytes on disk, {memory} resident");
    assert!(disk < DISK_BYTES, "{disk}");
}

#[test]
fn a_deleted_snapshot_leaves_the_disk_without_a_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path()).unwrap();
    replace_snapshot(&engine, 1, 20 << 20, &mut 0);
    assert!(disk_bytes(folder.path()).unwrap() > 20 << 20);
    replace_snapshot(&engine, 2, 1 << 10, &mut 0);
    let left = settled(folder.path());
    assert!(left < 12 << 20, "{left}");
    assert_eq!(engine.scan(Family::Snapshot, keys::all(), 9).unwrap().len(), 1);
}

#[test]
#[ignore = "takes a minute: the full size of the promise, and alone in its process, since it measures memory"]
fn three_million_records_and_large_snapshots_stay_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let (disk, memory) = run(folder.path(), 3_000_000, 30, 20 << 20);
    let after = disk_bytes(folder.path()).unwrap();
    println!("at most {disk} bytes on disk, {after} after; at most {memory} resident; {:?}", start.elapsed());
    assert!(after < DISK_BYTES, "{after}");
    assert!(memory < RESIDENT_BYTES, "{memory}");
}
