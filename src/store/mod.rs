//! What must survive: the Raft log, the vote, snapshots, and the marker that says whose storage this is.
//!
//! Owns the folder `raftDir`, the format of each record in it, and the one thread that writes. It knows keys and
//! bytes, and nothing of Raft. Must never say that something is durable before it was synced, nor go on after a write
//! failed.

pub mod engine;
