//! The cases of the rig `sim`: many seeds, and that all of them together have exercised each class of faults.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use libtest_mimic::{Failed, Trial};

use crate::sim::{self, Report};

/// Seeds of an ordinary run. `KV_SEEDS` sets another number, `KV_FIRST_SEED` the first of them.
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `--seed N`, or `KV_SEED`.
pub(crate) fn take_seed(arguments: &mut Vec<String>) -> Option<u64> {
    let Some(at) = arguments.iter().position(|argument| argument == "--seed") else { return number("KV_SEED") };
    let mut taken = arguments.drain(at..(at + 2).min(arguments.len()));
    taken.nth(1)?.parse().ok()
}

/// Runs one seed, twice, shows its trace, and ends the process.
pub(crate) fn replay(seed: u64) -> ! {
    // `KV_LOG=info` shows what the controllers say, too.
    if let Ok(level) = std::env::var("KV_LOG") {
        tracing_subscriber::fmt().with_env_filter(level).without_time().init();
    }
    let (first, second) = (sim::run(seed), sim::run(seed));
    println!("{}", first.tail);
    println!("seed {seed}: {} ms simulated, trace {:016x}, again {:016x}", first.simulated, first.hash, second.hash);
    for problem in &first.problems {
        println!("PROBLEM: {problem}");
    }
    std::process::exit(i32::from(!first.problems.is_empty()));
}

/// What is wrong with a seed, and how to see it again.
fn verdict(report: &Report) -> Result<(), String> {
    if report.problems.is_empty() {
        return Ok(());
    }
    let Report { seed, problems, tail, .. } = report;
    Err(format!(
        "{tail}seed {seed}:\n  {}\nreplay: cargo test --test raft-jepsen -- --seed {seed}",
        problems.join("\n  ")
    ))
}

fn run(seed: u64) -> Result<Report, String> {
    catch_unwind(|| sim::run(seed)).map_err(|_| format!("seed {seed} panicked; --seed {seed} shows where"))
}

/// The seeds of the rig `sim`, in shares, and their coverage.
pub(crate) fn sim_trials() -> Vec<Trial> {
    let (seeds, first) = (number("KV_SEEDS").unwrap_or(SEEDS), number("KV_FIRST_SEED").unwrap_or(0));
    vec![Trial::test("sim::every_seed_keeps_every_promise", move || all_seeds(first, seeds))]
}

/// What some seeds came to.
#[derive(Default)]
struct Tally {
    coverage: BTreeMap<String, u64>,
    failed: BTreeMap<u64, String>,
    simulated: u64,
}

impl Tally {
    fn add(&mut self, seed: u64) {
        match run(seed) {
            Ok(report) => {
                self.simulated += report.simulated;
                if let Err(failed) = verdict(&report) {
                    self.failed.insert(seed, failed);
                }
                self.merge(Self { coverage: report.coverage, ..Self::default() });
            }
            Err(failed) => drop(self.failed.insert(seed, failed)),
        }
    }

    fn merge(&mut self, other: Self) {
        for (class, times) in other.coverage {
            *self.coverage.entry(class).or_default() += times;
        }
        self.failed.extend(other.failed);
        self.simulated += other.simulated;
    }
}

fn all_seeds(first: u64, seeds: u64) -> Result<(), Failed> {
    let began = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64).min(seeds);
    let share = |share: u64| {
        let mut tally = Tally::default();
        (first + share..first + seeds).step_by(threads as usize).for_each(|seed| tally.add(seed));
        tally
    };
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..threads).map(|number| scope.spawn(move || share(number))).collect();
        shares.into_iter().for_each(|share| tally.merge(share.join().unwrap_or_default()));
    });
    let took = began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {} s simulated in {took:.1} s on {threads} threads", tally.simulated / 1_000);
    println!("{:#?}", tally.coverage);
    if let Some((_, told)) = tally.failed.first_key_value() {
        let seeds: Vec<u64> = tally.failed.keys().copied().collect();
        return Err(Failed::from(format!("{} seeds failed: {seeds:?}\n{told}", seeds.len())));
    }
    let missing: Vec<String> = sim::classes().into_iter().filter(|class| !tally.coverage.contains_key(class)).collect();
    // A few seeds cannot exercise everything, and are not meant to.
    if !missing.is_empty() && seeds >= SEEDS {
        return Err(Failed::from(format!("insufficient coverage, never exercised: {}", missing.join(", "))));
    }
    Ok(())
}
