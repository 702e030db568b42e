//! What peers say to each other: frames over mutual TLS, one request and one answer at a time on a connection.
//!
//! Owns the wire format and its limits. Whoever has no certificate of the cluster's identity says and learns nothing;
//! whoever has one still has to name cluster, epoch, source and target in every frame that is Raft's, so that an
//! address which another node has taken over never answers in its predecessor's name.

pub mod client;
pub mod door;
pub mod frame;
pub mod message;
pub mod network;
pub mod server;
