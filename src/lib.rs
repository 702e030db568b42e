//! kubernetes-vault: hands every annotated pod a single-use, response-wrapped AppRole `secret_id`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod causes;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod deliver;
pub mod domain;
pub mod files;
pub mod k8s;
pub mod manifests;
pub mod metrics;
pub mod pem;
pub mod places;
pub mod print;
pub mod push;
pub mod raft;
pub mod seeded;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod vault;
