//! The testbed tests itself: one cluster, pods as real ones, and nothing left behind.

#[path = "it/bed.rs"]
mod bed;
#[path = "it/cases.rs"]
mod cases;
#[path = "it/inside.rs"]
mod inside;
#[path = "it/nothing_remains.rs"]
mod nothing_remains;
#[path = "it/order.rs"]
mod order;
#[path = "it/replicas.rs"]
mod replicas;
#[path = "it/servers.rs"]
mod servers;

use std::process::ExitCode;
use std::sync::Arc;

use bed::Bed;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    testbed::enter();
    let arguments = Arguments::from_args();
    // One cluster for all cases, started by the first of them.
    let bed = Arc::new(Bed::default());
    let mut trials = Vec::new();
    for (name, case) in nothing_remains::ALL {
        trials.push(Trial::test(name, move || to_failed(case())));
    }
    for (name, case) in cases::ALL {
        let bed = bed.clone();
        let alone = name == "the_api_server_can_be_restarted";
        trials.push(Trial::test(name, move || to_failed(bed.run(case, alone))));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    bed.stop();
    conclusion.exit_code()
}

fn to_failed(result: anyhow::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}
