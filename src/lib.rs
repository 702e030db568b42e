//! Controller.

pub mod cli;
pub mod config;
