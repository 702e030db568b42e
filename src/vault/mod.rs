//! Vault: logging in, keeping the token alive, and asking for response-wrapped `secret_id`s.
//!
//! Owns the only HTTP client that speaks to Vault, the controller's own token and its renewal, and what was learned
//! of roles (capabilities, refused metadata). It must never log, print or keep a token, a `secret_id` or a body,
//! never send a token to another host than the configured one, and never claim that Vault is usable before the
//! checks of the token have passed.
//!
//! The requests are a thin layer of our own over `reqwest`; `vaultrs` and `rustify` are not used. Their typed
//! endpoints hide what back-off needs (`Retry-After`, and the status of an answer that is not Vault's), paste role
//! names into paths as they are, fix the wrapping TTL at ten minutes, hold tokens in plain `String`s whose holders
//! derive `Debug`, and panic on a token with a newline. What would have been left of them are eight small structs.

mod answer;
mod ca;
mod call;
mod check;
mod client;
mod connection;
mod error;
mod handle;
mod inspect;
mod keeper;
mod login;
mod memory;
mod neutralise;
mod options;
mod pki;
mod proxies;
mod renew;
mod service;
mod session;
mod tls;
mod token;
mod wrap;

#[cfg(test)]
mod fake;

pub use ca::{Fingerprint, InvalidFingerprint};
pub use check::TokenFault;
pub use error::Fatal;
pub use handle::Handle;
pub use inspect::{CertificateRole, inspect};
pub use options::{Ca, ClientCertificate, Login, Options, Tls};
pub use pki::{CertificateRequest, IssuedCertificate, Taken};
pub use service::Service;
pub use session::{Meter, State};
