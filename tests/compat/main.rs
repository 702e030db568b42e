//! Compatibility with the Go version, both ways, against the real binaries, a real API server and a real Vault.
//!
//! `vectors/` holds what the Go version was seen to do. Every section of every recording is a case, and a section
//! without one fails the suite. Where our rules ask for something else they win, and the case names the rule.

mod case;
mod controller;
mod controller_config;
mod controller_metrics;
mod controller_push;
mod controller_start;
mod controller_vault;
mod go_controller;
mod go_init;
mod init_environment;
mod init_files;
mod init_http;
mod init_pushes;
mod pod;
mod process;
mod tls;
mod vectors;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

/// Cases mostly wait for processes, so that more of them than cores is faster.
const THREADS: usize = 8;

fn main() -> ExitCode {
    testbed::enter();
    // A tmpfs that ends with the namespaces, whatever ends them.
    if tempfile::env::override_temp_dir(Path::new(testbed::ROOT)).is_err() {
        eprintln!("the directory for temporary files is chosen already");
        return ExitCode::FAILURE;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let all = [
        init_http::cases(),
        init_pushes::cases(),
        init_files::cases(),
        init_environment::cases(),
        controller_start::cases(),
        controller_vault::cases(),
        controller_config::cases(),
        controller_push::cases(),
        controller_metrics::cases(),
    ];
    let shared = Arc::new(world::Shared::default());
    let mut covered = BTreeSet::new();
    let mut trials = Vec::new();
    for case in all.into_iter().flatten() {
        covered.extend(case.covers.iter().map(|section| (section.file, section.title)));
        let shared = shared.clone();
        trials.push(Trial::test(case.name.clone(), move || to_failed(shared.run(case))));
    }
    trials.push(Trial::test("no recording is left out", move || to_failed(case::nothing_is_left_out(&covered))));
    let conclusion = libtest_mimic::run(&arguments, trials);
    shared.stop();
    conclusion.exit_code()
}

fn to_failed(result: anyhow::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}
