//! What operators watch us with: the page of metrics, its documentation, the dashboard, the alerts and their runbooks
//! tell of the same things, and Prometheus' own tool takes them.
//!
//! `promtool` comes with Debian's package `prometheus`; scripts/prerequisites installs it.

#![expect(clippy::unwrap_used, reason = "what is missing here is a failed test")]

mod document;
mod files;
mod page;
mod tool;
