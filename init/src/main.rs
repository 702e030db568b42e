//! The init container.
fn main() {}
