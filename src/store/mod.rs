//! What must survive: the Raft log, the vote, snapshots, and the marker that says whose storage this is.
//!
//! Owns the folder `raftDir`, the format of each record in it, and the threads that write. It knows keys and bytes, and
//! nothing of Raft. Must never say that something is durable before it was synced, nor go on after a write failed.
//!
//! Bottom up: an [`engine`] ([`rocks`] on disk, [`mem`] in memory) under a [`Store`], whose records have their [`keys`]
//! and their form ([`codec`]); the first of them is the [`marker`].

pub mod codec;
pub mod engine;
mod handle;
pub mod keys;
pub mod marker;
pub mod mem;
pub mod rocks;
#[cfg(test)]
mod tests;
pub mod trouble;
mod writer;

pub use engine::{Batch, Engine, EngineError, Family, Record};
pub use handle::Store;
pub use writer::{QUEUE, StoreError, UNSYNCED};
