//! The replicated ledger: openraft on the store, between peers that know each other by the cluster's identity.
//!
//! Owns everything that makes several controllers one: who is a member, who leads, what is committed. Only this folder
//! uses openraft. Must never acknowledge what was not synced, serve Raft for a cluster that is not its own, or begin
//! leader work before an entry of its own term is applied.

mod belong;
mod front;
pub mod gossip;
mod leader;
mod ledger;
mod log_store;
pub mod ports;
mod proposals;
mod pulse;
mod reconcile;
mod reform;
mod retire;
mod rounds;
pub mod rpc;
mod running;
pub mod service;
mod snapshot;
mod state_machine;
pub mod status;
mod suspect;
#[cfg(test)]
mod tests;
pub mod thread;
mod types;
mod warm;

pub use ledger::RaftLedger;
pub use running::Timings;
