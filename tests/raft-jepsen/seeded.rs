//! The suite's own test: each bug that is put in on purpose is found within a bounded number of seeds.

use kubernetes_vault::seeded::{Bug, here};
use libtest_mimic::{Failed, Trial};

use crate::sim::nemesis::Fault;
use crate::{sim, store};

/// Seeds that a bug may survive.
const SEEDS: usize = 20;

/// One case for each bug.
pub(crate) fn trials() -> Vec<Trial> {
    let case = |bug: Bug| Trial::test(format!("each_seeded_bug_is_caught::{bug:?}"), move || is_caught(bug));
    Bug::ALL.into_iter().map(case).collect()
}

/// The fault that brings it out soonest. Seeds begin with each fault in turn, so that these are ordinary seeds.
fn brought_out_by(bug: Bug) -> Fault {
    match bug {
        Bug::NoSyncInCaller => Fault::PowerCutAll,
        Bug::NoTermFence => Fault::LateCommand,
        Bug::NodeIdReused | Bug::VoteWhileUninitialised => Fault::LoseStorage,
        Bug::NoTargetCheck => Fault::Strangers,
        Bug::LeaderRestored => Fault::QuickRestart,
        Bug::BusyIsDelivered => Fault::LosePushAnswers,
        Bug::UnknownIsRefused => Fault::Lossy,
        Bug::NoSyncInRocks | Bug::NoClaim | Bug::DoneBeforeCommit => Fault::KillLeader,
    }
}

fn is_caught(bug: Bug) -> Result<(), Failed> {
    if bug == Bug::NoSyncInRocks {
        return store::finds_a_missing_sync().map_err(Failed::from);
    }
    for (tried, seed) in sim::seeds_that_begin_with(brought_out_by(bug)).take(SEEDS).enumerate() {
        here(Some(bug));
        let report = std::panic::catch_unwind(|| sim::run(seed));
        here(None);
        let problem = match report {
            Ok(report) => report.problems.into_iter().next(),
            Err(_) => Some("a panic".to_owned()),
        };
        if let Some(problem) = problem {
            println!(
                "{bug:?} is caught by seed {seed}, the {}. tried: {}",
                tried + 1,
                problem.lines().next().unwrap_or("")
            );
            return Ok(());
        }
    }
    Err(Failed::from(format!("{bug:?} survived {SEEDS} seeds")))
}
