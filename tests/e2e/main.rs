//! The main job, end to end: the released manifests, real pods, a real API server and a real Vault.
//!
//! Cases know a Kubernetes client and the address of a Vault, nothing else ([`cluster`]): they run on the testbed,
//! or, with `KV_E2E=attach`, on the cluster of `KUBECONFIG` and the Vault of `VAULT_ADDR` and `VAULT_TOKEN` (root).
//! Those that break servers, or look into processes, are for the testbed alone.
//!
//! Each case has its own namespaces, AppRole, Vault policy and controller, and needs no other case.

mod announcements;
mod bed;
mod burst;
mod canary;
mod certificates;
mod cluster;
mod commands;
mod controller;
mod crashes;
mod failover;
mod full_disk;
mod identity;
mod impostors;
mod login;
mod membership;
mod modes;
mod outages;
mod peer_certificates;
mod replicas;
mod rollout;
mod scope;
mod scraper;
mod secured;
mod stage;
mod strangers;
mod trio;
mod two_clusters;
mod vault;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bed::{Beds, Case, On};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// Cases mostly wait: twice as many as cores.
const PARALLEL: usize = 4;
/// So many cases take about as long as one that wants a cluster for itself.
const APART: usize = 6;

fn main() -> ExitCode {
    let attached = cluster::is_attached();
    if !attached {
        testbed::enter();
    }
    let mut arguments = Arguments::from_args();
    let beds = Arc::new(Beds::default());
    let run = |arguments: &Arguments, cases| {
        let trials = trials(&beds, cases, attached);
        libtest_mimic::run(arguments, trials)
    };
    let alone = Arguments { test_threads: Some(1), ..arguments.clone() };
    arguments.test_threads.get_or_insert(PARALLEL);
    let failed = [run(&arguments, beside_each_other()), run(&alone, one_by_one())].iter().any(Conclusion::has_failed);
    beds.stop();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn trials(beds: &Arc<Beds>, cases: Vec<Named>, attached: bool) -> Vec<Trial> {
    let trials = cases.into_iter().map(|(name, on, case)| {
        let beds = beds.clone();
        Trial::test(name, move || {
            let begin = Instant::now();
            let result = beds.run(on, case);
            eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
            result.map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_ignored_flag(attached && on != On::Any)
    });
    trials.collect()
}

type Named = (&'static str, On, Case);

/// Cases of several replicas that lose one: they measure times, and want the machine for themselves.
fn one_by_one() -> Vec<Named> {
    let parts: [&[Named]; 7] = [
        &failover::ALL,
        &rollout::ALL,
        &membership::ALL,
        &strangers::ALL,
        &full_disk::ALL,
        &two_clusters::ALL,
        &peer_certificates::ALL,
    ];
    parts.concat()
}

/// The longest first, so that they run beside the short ones. Those that want a cluster for themselves come one in
/// a while: all of them at once would wait for each other in all the threads there are.
fn beside_each_other() -> Vec<Named> {
    let parts: [&[Named]; 11] = [
        &certificates::ALL,
        &burst::ALL,
        &login::ALL,
        &crashes::ALL,
        &announcements::ALL,
        &canary::ALL,
        &identity::ALL,
        &commands::ALL,
        &scope::ALL,
        &modes::ALL,
        &replicas::ALL,
    ];
    let mut all = parts.concat();
    for (index, case) in outages::ALL.into_iter().chain(secured::ALL).enumerate() {
        all.insert((index * APART).min(all.len()), case);
    }
    all
}
