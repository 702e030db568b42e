//! The decisions, as plain functions over plain data: no async, no input or output, no clock.

pub mod announcement;
pub mod backoff;
pub mod bootstrap;
pub mod delivery;
pub mod fair;
pub mod handover;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod membership;
pub mod peers;
pub mod pod;
pub mod quorum;
pub mod storage;
