//! The main job, end to end: the released manifests, real pods, a real API server and a real Vault.
//!
//! Cases know a Kubernetes client and the address of a Vault, nothing else ([`cluster`]): they run on the testbed,
//! or, with `KV_E2E=attach`, on the cluster of `KUBECONFIG` and the Vault of `VAULT_ADDR` and `VAULT_TOKEN` (root).
//! Those that break servers, or look into processes, are for the testbed alone. `KV_E2E=kind` is the same on a cluster
//! of `kind/up` (docs/kind.md), with cases that need a real kubelet; it refuses any other.
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
mod kind;
mod login;
mod membership;
mod modes;
mod nodes;
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
use cluster::Place;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// Cases mostly wait: twice as many as cores.
const PARALLEL: usize = 4;
/// Starting a container is work, where it is a real one.
const PARALLEL_KUBELETS: usize = 2;
/// So many cases take about as long as one that wants a cluster for itself.
const APART: usize = 6;

fn main() -> ExitCode {
    let place = match Place::chosen() {
        Ok(place) => place,
        Err(error) => {
            eprintln!("e2e: {error}");
            return ExitCode::FAILURE;
        }
    };
    if place == Place::Testbed {
        testbed::enter();
    }
    let mut arguments = Arguments::from_args();
    let beds = Arc::new(Beds::new(place));
    let (mut beside, mut alone_cases) = (beside_each_other(), one_by_one());
    if place != Place::Testbed {
        // Hundreds of real containers leave nothing to cases beside them.
        let bursts = burst::ALL.map(|(name, ..)| name);
        beside.retain(|(name, ..)| !bursts.contains(name));
        alone_cases.extend(burst::ALL);
    }
    let run = |arguments: &Arguments, cases| {
        let trials = trials(&beds, cases, place);
        libtest_mimic::run(arguments, trials)
    };
    let alone = Arguments { test_threads: Some(1), ..arguments.clone() };
    arguments.test_threads.get_or_insert(if place == Place::Testbed { PARALLEL } else { PARALLEL_KUBELETS });
    let failed = [run(&arguments, beside), run(&alone, alone_cases)].iter().any(Conclusion::has_failed);
    beds.stop();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn trials(beds: &Arc<Beds>, cases: Vec<Named>, place: Place) -> Vec<Trial> {
    let smoke = std::env::var_os("KV_E2E_SMOKE").is_some();
    let cases = cases.into_iter().filter(|(name, ..)| !smoke || kind::SMOKE.contains(name));
    let trials = cases.map(|(name, on, case)| {
        let beds = beds.clone();
        Trial::test(name, move || {
            let begin = Instant::now();
            let result = beds.run(on, case);
            eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
            result.map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_ignored_flag(!on.runs_at(place))
    });
    trials.collect()
}

type Named = (&'static str, On, Case);

/// Cases of several replicas that lose one: they measure times, and want the machine for themselves.
fn one_by_one() -> Vec<Named> {
    let parts: [&[Named]; 10] = [
        &kind::figures::ALL,
        &kind::lost_nodes::ALL,
        &kind::upgrade::ALL,
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
    let parts: [&[Named]; 13] = [
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
        &kind::reference::ALL,
        &kind::shapes::ALL,
    ];
    let mut all = parts.concat();
    for (index, case) in outages::ALL.into_iter().chain(secured::ALL).enumerate() {
        all.insert((index * APART).min(all.len()), case);
    }
    all
}
