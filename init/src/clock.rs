//! The only reader of wall-clock time.

use jiff::Timestamp;

/// Now, by this node's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
