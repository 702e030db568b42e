//! RocksDB's options: small memory, small disk, and no guess where data is damaged.
//!
//! Owns every number that RocksDB is given. The budget is 15 MiB resident and 64 MiB on disk.

use rocksdb::statistics::StatsLevel;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options};

use crate::store::engine::Family;

/// Blocks that were read, of all families together. The log is read at its end, which lies in the page cache anyway.
const CACHE_BYTES: usize = 4 << 20;

/// A memory table of the log. Two exist while one is flushed.
const TABLE_BYTES: usize = 2 << 20;

/// A memory table of snapshots, which come seldom and are no hurry.
const SNAPSHOT_TABLE_BYTES: usize = 1 << 20;

/// A merge reads and writes its files in pieces of this size. The defaults (2 MB for each file that is read, 1 MB for
/// each that is written) are made for spinning disks, and would be most of our memory.
const MERGE_BYTES: usize = 256 << 10;

/// A memory table of the few small records.
const META_TABLE_BYTES: usize = 256 << 10;

/// One is written while one is flushed; with more, a slow disk would take memory instead of slowing the writer.
const TABLES: i32 = 2;

/// Handles of tables that are kept open: a few dozen files of 2 MB are all there is.
const OPEN_FILES: i32 = 64;

/// One flush and one compaction at a time.
const BACKGROUND_JOBS: i32 = 2;

/// Over this, the family that holds the oldest write-ahead log is flushed. The rarely written meta family would keep
/// every log alive else.
const WAL_BYTES: u64 = 8 << 20;

/// Size of a table file. As large as a memory table: what a purge leaves empty goes file by file.
const FILE_BYTES: u64 = TABLE_BYTES as u64;

/// RocksDB's list of its files is begun anew at this size (its default is a gigabyte) and grows by this step (its
/// default takes 4 MB of disk at once).
const MANIFEST_BYTES: usize = 1 << 20;
const MANIFEST_STEP_BYTES: usize = 64 << 10;

/// Options of the database, and of a family that has none of its own. RocksDB's own log goes to `log`, from warnings on.
pub(super) fn database(statistics: bool, log: impl Fn(&str) + Send + Sync + 'static) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_compaction_readahead_size(MERGE_BYTES);
    options.set_writable_file_max_buffer_size(MERGE_BYTES as u64);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_manifest_preallocation_size(MANIFEST_STEP_BYTES);
    // A write that was cut off by a crash was acknowledged to nobody: it is dropped. Damage before the end is not the
    // work of a crash: RocksDB's default (up to the damage) would drop acknowledged writes without a word.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A log file that is gone or shorter than when it was synced is refused instead of taken for an old end.
    options.set_track_and_verify_wals_in_manifest(true);
    // No atomic flush. It is for databases without a write-ahead log: with one, RocksDB syncs the logs that it closed
    // before a family's flush counts (`FlushMemTableToOutputFile`), so that no family gets ahead of the others. It
    // would flush the few bytes of meta with every table of the log.
    options.set_atomic_flush(false);
    // Errors are told by the calls that fail. Nothing is written to a LOG file, of which one more would appear with
    // each start; the last warning names the place of damage (see `open`).
    options.set_keep_log_file_num(1);
    let told = move |level, line: &str| {
        // At each start RocksDB lists its hundreds of options, whatever level is asked for.
        if matches!(level, LogLevel::Warn | LogLevel::Error | LogLevel::Fatal) {
            log(line);
        }
    };
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, told));
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    if statistics {
        options.enable_statistics();
        options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    }
    options
}

/// The cache that all families share.
pub(super) fn cache() -> Cache {
    Cache::new_lru_cache(CACHE_BYTES)
}

/// Options of one family.
pub(super) fn family(family: Family, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(match family {
        Family::Meta => META_TABLE_BYTES,
        Family::Log => TABLE_BYTES,
        Family::Snapshot => SNAPSHOT_TABLE_BYTES,
    });
    options.set_max_write_buffer_number(TABLES);
    options.set_target_file_size_base(FILE_BYTES);
    // Said although no codec is compiled in: data written with one could not be opened without it.
    options.set_compression_type(DBCompressionType::None);
    options
}
