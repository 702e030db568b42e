//! The leader's work: from a waiting init container to a settled delivery.
//!
//! [`ports`] says what it needs of the world, [`Service`] runs for as long as one leadership lasts.

mod absent;
mod context;
mod delays;
pub mod explain;
#[cfg(test)]
mod fixtures;
mod gate;
pub mod ports;
mod queue;
mod reports;
mod rows;
mod service;
mod settle;
#[cfg(test)]
mod tests;
mod turns;
mod worker;

pub use context::Ports;
pub use service::Service;
