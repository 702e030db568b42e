//! The form of each record on disk: one byte of format version, postcard, and a CRC-32 of both.
//!
//! RocksDB has checksums of its own, which find a damaged file. Ours is for what they do not see: memory that flipped a
//! bit before the write, and the engine in memory, whose records the fault suite damages. A record that does not match
//! must never be taken for an older or an empty one: it is refused, with its place.
//!
//! Postcard has no names and no optional fields: a type that was released must never change its form. Make it an enum
//! with a variant for each version, and add variants at the end.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::engine::Family;
use super::keys;

/// The version that is written. Every later one, too, ends with a CRC-32 of all before, or a damaged first byte would
/// be taken for a newer version.
pub const FORMAT: u8 = 1;

/// Length of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// A value that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("a record cannot be encoded")]
pub struct EncodeError(#[source] postcard::Error);

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not what was written.
    #[error("{place} is damaged: its checksum is {computed:08x} and should be {stored:08x}")]
    Damaged {
        /// Which record.
        place: String,
        /// What the record says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Shorter than the shortest record.
    #[error("{place} is damaged: it has {length} bytes")]
    Short {
        /// Which record.
        place: String,
        /// Its length.
        length: usize,
    },
    /// The version that wrote it knows more than this one.
    #[error("{place} was written by a newer version: its format is {found}, and this version knows {FORMAT}")]
    Newer {
        /// Which record.
        place: String,
        /// Its format.
        found: u8,
    },
    /// Its bytes are what was written, but mean something else.
    #[error("{place} cannot be decoded")]
    Content {
        /// Which record.
        place: String,
        /// What postcard says.
        #[source]
        cause: postcard::Error,
    },
    /// More bytes than its value has.
    #[error("{place} cannot be decoded: {extra} bytes follow its value")]
    Extra {
        /// Which record.
        place: String,
        /// How many.
        extra: usize,
    },
}

/// The bytes of `value`.
///
/// # Errors
/// Its type cannot be written at all (a sequence of unknown length).
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = postcard::to_extend(value, vec![FORMAT]).map_err(EncodeError)?;
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// The value of the record `bytes`, which lies at `key` of `family`.
///
/// # Errors
/// It is damaged, or of another form; the error names its place.
pub fn decode<T: DeserializeOwned>(family: Family, key: &[u8], bytes: &[u8]) -> Result<T, DecodeError> {
    let place = || keys::describe(family, key);
    let short = || DecodeError::Short { place: place(), length: bytes.len() };
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(short)?;
    let (format, value) = body.split_first().ok_or_else(short)?;
    let (stored, computed) = (u32::from_le_bytes(*checksum), crc32fast::hash(body));
    if stored != computed {
        return Err(DecodeError::Damaged { place: place(), stored, computed });
    }
    // Zero was never written, and is as unknown as a newer one.
    if *format != FORMAT {
        return Err(DecodeError::Newer { place: place(), found: *format });
    }
    match postcard::take_from_bytes(value) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::Extra { place: place(), extra: rest.len() }),
        Err(cause) => Err(DecodeError::Content { place: place(), cause }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Value = (u64, String, Option<Vec<u8>>);

    fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
        decode(Family::Log, &keys::log(17), bytes)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(value: Value) {
            prop_assert_eq!(read(&encode(&value).unwrap()), Ok(value));
        }

        #[test]
        fn a_flipped_bit_anywhere_is_refused_with_its_place(value: Value, at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = encode(&value).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let error = read(&bytes).unwrap_err();
            prop_assert!(matches!(error, DecodeError::Damaged { .. }), "{error}");
            prop_assert!(error.to_string().starts_with("log record 17 is damaged"), "{error}");
        }

        #[test]
        fn a_cut_record_is_refused(value: Value, at: prop::sample::Index) {
            let bytes = encode(&value).unwrap();
            prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
        }
    }

    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let checksum = crc32fast::hash(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        body
    }

    #[test]
    fn a_newer_format_is_told_from_a_damaged_record() {
        let error = read(&sealed(vec![FORMAT + 1, 1, 2, 3])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "log record 17 was written by a newer version: its format is 2, and this version knows 1"
        );
    }

    #[test]
    fn another_content_is_refused_and_named() {
        assert!(matches!(read(&sealed(vec![FORMAT, 1])), Err(DecodeError::Content { .. })));
        assert!(matches!(read(&sealed(vec![FORMAT, 1, 0, 0, 9])), Err(DecodeError::Extra { extra: 1, .. })));
        assert!(matches!(read(&[]), Err(DecodeError::Short { length: 0, .. })));
    }
}
