//! The manifests: that `deploy/` is what the command prints, that a real API server takes all of it, strictly and twice,
//! what the controller may do by it, and that an installation stands that was made by nothing else.
//!
//! One control plane without nodes serves the cases that only apply; the installation has nodes and a Vault of its own.

mod apply;
mod command;
mod install;
mod rights;
mod tree;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use world::{Beds, Case};

fn main() -> ExitCode {
    testbed::enter();
    let arguments = Arguments::from_args();
    let beds = Arc::new(Beds::default());
    let parts: [&[(&'static str, Case)]; 5] = [install::ALL, apply::ALL, rights::ALL, tree::ALL, command::ALL];
    let trials = parts.concat().into_iter().map(|(name, case)| {
        let beds = beds.clone();
        Trial::test(name, move || beds.run(case).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    beds.stop();
    conclusion.exit_code()
}
