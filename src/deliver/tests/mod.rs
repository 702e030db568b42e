//! The workflow against a scripted world, in simulated time: what is promised for each answer, each failure, each end.

mod attempts;
mod ends;
mod limits;
mod stops;
mod troubles;
pub(super) mod world;
