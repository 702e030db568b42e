//! Whole nodes in one process, over a network in memory, in a time that is paused.

mod clusters;
mod suite;
mod world;
