//! The keys: which record lies where, in which order.
//!
//! Owns the layout of each family, and the words in which a record's place is told to a person. A key of a released
//! version must never change its meaning: a new kind of record gets a new key.

use std::ops::Range;

use super::engine::Family;

/// The record that says whose storage this is. It is the first that is ever written.
pub const MARKER: &[u8] = b"marker";

/// Greater than any key that this module makes: the end of a range that goes to the end of a family.
const END: [u8; 17] = [0xff; 17];

/// Largest piece that a snapshot should be cut into. A batch lies in memory twice (queue and memory table), so that
/// pieces of this size keep a snapshot of 20 MiB from taking 40; smaller ones pay more for each record.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;

/// The key of the log record `index`: big-endian, so that the order of keys is the order of the log.
pub fn log(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// The index of a log record's key; none if it is no such key.
pub fn log_index(key: &[u8]) -> Option<u64> {
    key.try_into().map(u64::from_be_bytes).ok()
}

/// Log records from `range.start`, inclusive, to `range.end`, exclusive.
pub fn log_range(range: Range<u64>) -> Range<Vec<u8>> {
    log(range.start)..log(range.end)
}

/// Log records from `first` on: what a truncation removes.
pub fn log_from(first: u64) -> Range<Vec<u8>> {
    log(first)..END.to_vec()
}

/// Log records up to and with `last`: what a purge removes.
pub fn log_through(last: u64) -> Range<Vec<u8>> {
    Vec::new()..last.checked_add(1).map_or(END.to_vec(), log)
}

/// The key of one piece of a snapshot. Give each snapshot a number that no earlier one had: then a half-written one
/// never mixes with another.
pub fn snapshot_piece(snapshot: u64, piece: u32) -> Vec<u8> {
    [&snapshot.to_be_bytes()[..], &piece.to_be_bytes()[..]].concat()
}

/// All pieces of one snapshot.
pub fn snapshot(number: u64) -> Range<Vec<u8>> {
    log(number)..number.checked_add(1).map_or(END.to_vec(), log)
}

/// All pieces of all snapshots before `number`: what is left of those that it replaces.
pub fn snapshots_before(number: u64) -> Range<Vec<u8>> {
    Vec::new()..log(number)
}

/// All records of a family.
pub fn all() -> Range<Vec<u8>> {
    Vec::new()..END.to_vec()
}

/// Where a record lies, as an operator would say it.
pub fn describe(family: Family, key: &[u8]) -> String {
    let number = key.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let piece = key.get(8..).and_then(|rest| rest.try_into().ok()).map(u32::from_be_bytes);
    match (family, number, piece) {
        (Family::Log, Some(index), _) if key.len() == 8 => format!("log record {index}"),
        (Family::Snapshot, Some(snapshot), Some(piece)) => format!("piece {piece} of snapshot {snapshot}"),
        (family, ..) => format!("record `{}` of {}", key.escape_ascii(), family.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_is_the_order_of_the_log() {
        let indexes = [0, 1, 255, 256, 65_535, 1 << 40, u64::MAX];
        let keys: Vec<_> = indexes.iter().map(|index| log(*index)).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys.iter().map(|key| log_index(key)).collect::<Option<Vec<_>>>(), Some(indexes.to_vec()));
        assert_eq!(log_index(b"marker"), None);
    }

    #[test]
    fn ranges_hold_what_they_name_and_nothing_else() {
        assert!(
            log_from(5).contains(&log(5)) && log_from(5).contains(&log(u64::MAX)) && !log_from(5).contains(&log(4))
        );
        assert!(log_through(5).contains(&log(5)) && log_through(5).contains(&log(0)));
        assert!(!log_through(5).contains(&log(6)) && log_through(u64::MAX).contains(&log(u64::MAX)));
        assert!(log_range(2..4).contains(&log(3)) && !log_range(2..4).contains(&log(4)));
        for piece in [0, 1, u32::MAX] {
            assert!(snapshot(7).contains(&snapshot_piece(7, piece)));
            assert!(!snapshot(7).contains(&snapshot_piece(8, piece)));
            assert!(snapshots_before(8).contains(&snapshot_piece(7, piece)));
            assert!(!snapshots_before(8).contains(&snapshot_piece(8, piece)));
            assert!(snapshot(u64::MAX).contains(&snapshot_piece(u64::MAX, piece)));
            assert!(all().contains(&snapshot_piece(u64::MAX, piece)));
        }
    }

    #[test]
    fn a_place_is_told_in_an_operators_words() {
        assert_eq!(describe(Family::Log, &log(17)), "log record 17");
        assert_eq!(describe(Family::Snapshot, &snapshot_piece(3, 2)), "piece 2 of snapshot 3");
        assert_eq!(describe(Family::Meta, MARKER), "record `marker` of meta");
        assert_eq!(describe(Family::Log, b"\x01x"), "record `\\x01x` of log");
    }
}
