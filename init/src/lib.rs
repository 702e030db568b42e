//! What goes over the wire between the controller and the init container, and between the init container and
//! the kubelet's termination message.
//!
//! Owns: the push message ([`Push`]) and its exact bytes, the answers and their bodies ([`answer`]), the limits
//! both sides keep ([`limits`]), and the grammar of durations ([`duration`]) that both read from their users.
//!
//! Must never: do I/O, read a clock, or let a wrapping token out through `Debug` or an error text.
#![forbid(unsafe_code)]

pub mod answer;
mod base64;
pub mod duration;
pub mod gojson;
pub mod limits;
mod message;

pub use base64::encode as base64_encode;
pub use message::{DecodeError, Push};

/// The exact form of an attempt's id in an answer's body and in the termination message: `attempt=<id>`.
pub use answer::{attempt_body, parse_attempt};
