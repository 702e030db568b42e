//! The decisions, as plain functions over plain data: no async, no input or output, no clock.

pub mod announcement;
pub mod backoff;
pub mod delivery;
pub mod ids;
pub mod ledger;
pub mod pod;
pub mod storage;
