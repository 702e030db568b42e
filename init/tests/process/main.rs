//! The compiled init container against its promises, from the outside: environment, files, answers, exit codes.
//!
//! Each case runs in its own user, network and mount namespace (no root needed), because the port is fixed and the
//! termination log has one place. Vault is a scripted server of the test's own; the real one is in `tests/compat/`.
//!
//! Every end of a process is also a search of its log for the canaries that all cases use as secrets.
#![expect(clippy::unwrap_used, reason = "a test ends where its assumptions do not hold")]

mod environment;
mod fake_vault;
mod files;
mod harness;
mod http;
mod proxies;
mod pushes;
mod vault_faults;
