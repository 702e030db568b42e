//! Controller.

pub mod config;
