//! The fault suite. One ledger model, one oracle, named invariants; rigs that run the system in different worlds.
//!
//! `sim` simulates all of it from a seed; `store` looks at what reaches the disk. `proc/` (the real program on the
//! testbed) is a target of its own. See `README.md` beside this file.

mod history;
mod invariants;
mod model;
mod oracle;
mod receivers;
#[cfg(feature = "seeded-bugs")]
mod seeded;
mod sim;
mod store;
mod suite;

use libtest_mimic::Arguments;

fn main() {
    let mut arguments: Vec<String> = std::env::args().collect();
    let replayed = suite::take_seed(&mut arguments);
    let arguments = Arguments::from_iter(arguments);
    if let Some(seed) = replayed {
        suite::replay(seed);
    }
    // A rig adds its cases here.
    let mut trials = suite::sim_trials();
    trials.extend(store::trials());
    #[cfg(feature = "seeded-bugs")]
    trials.extend(seeded::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
