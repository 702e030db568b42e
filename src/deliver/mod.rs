//! The leader's work: from a waiting init container to a settled delivery.

pub mod ports;
