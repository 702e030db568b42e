//! kubernetes-vault: hands every annotated pod a single-use, response-wrapped AppRole `secret_id`.

#![forbid(unsafe_code)]

pub mod clock;
pub mod deliver;
pub mod domain;
pub mod vault;
