//! The cases of the rig `sim`: many seeds, and that all of them together have exercised each class of faults.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use libtest_mimic::{Failed, Trial};

use crate::sim::{self, Report};

/// Seeds of an ordinary run. `KV_SEEDS` sets another number, `KV_FIRST_SEED` the first of them.
const SEEDS: u64 = 200;

/// Cases that the seeds are dealt out to, so that they run beside each other.
const SHARES: u64 = 8;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `--seed N`, or `KV_SEED`.
pub fn take_seed(arguments: &mut Vec<String>) -> Option<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == "--seed") else { return number("KV_SEED") };
    let mut taken = arguments.drain(at..(at + 2).min(arguments.len()));
    taken.nth(1)?.parse().ok()
}

/// Runs one seed, twice, shows its trace, and ends the process.
pub fn replay(seed: u64) -> ! {
    let (first, second) = (sim::run(seed), sim::run(seed));
    println!("{}", first.tail);
    println!("seed {seed}: {} ms simulated, trace {:016x}, again {:016x}", first.simulated, first.hash, second.hash);
    for problem in &first.problems {
        println!("PROBLEM: {problem}");
    }
    std::process::exit(i32::from(!first.problems.is_empty()));
}

/// What is wrong with a seed, and how to see it again.
fn verdict(report: &Report) -> Result<(), Failed> {
    if report.problems.is_empty() {
        return Ok(());
    }
    let Report { seed, problems, tail, .. } = report;
    Err(Failed::from(format!(
        "seed {seed}:\n  {}\nreplay: cargo test --test raft-jepsen -- --seed {seed}\n{tail}",
        problems.join("\n  ")
    )))
}

fn run(seed: u64) -> Result<Report, Failed> {
    catch_unwind(|| sim::run(seed)).map_err(|_| Failed::from(format!("seed {seed} panicked; --seed {seed} shows where")))
}

/// The seeds of the rig `sim`, in shares, and their coverage.
pub fn sim_trials() -> Vec<Trial> {
    let (seeds, first) = (number("KV_SEEDS").unwrap_or(SEEDS), number("KV_FIRST_SEED").unwrap_or(0));
    vec![Trial::test("sim::every_seed_keeps_every_promise", move || all_seeds(first, seeds))]
}

fn all_seeds(first: u64, seeds: u64) -> Result<(), Failed> {
    let shares: Vec<_> = (0..SHARES.min(seeds))
        .map(|share| {
            std::thread::spawn(move || {
                let mut coverage: BTreeMap<String, u64> = BTreeMap::new();
                for seed in (first + share..first + seeds).step_by(usize::try_from(SHARES).unwrap_or(1)) {
                    let report = run(seed)?;
                    verdict(&report)?;
                    for (class, times) in report.coverage {
                        *coverage.entry(class).or_default() += times;
                    }
                }
                Ok::<_, Failed>(coverage)
            })
        })
        .collect();
    let mut coverage: BTreeMap<String, u64> = BTreeMap::new();
    for share in shares {
        for (class, times) in share.join().map_err(|_| Failed::from("a thread of the rig died"))?? {
            *coverage.entry(class).or_default() += times;
        }
    }
    println!("{coverage:#?}");
    let missing: Vec<String> = sim::classes().into_iter().filter(|class| !coverage.contains_key(class)).collect();
    // A few seeds cannot exercise everything, and are not meant to.
    if !missing.is_empty() && seeds >= SEEDS {
        return Err(Failed::from(format!("insufficient coverage, never exercised: {}", missing.join(", "))));
    }
    Ok(())
}
