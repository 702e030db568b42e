//! Component tests: our adapters, and the whole controller, against a real Vault and a real API server.
//!
//! One testbed without nodes serves all cases: pods are simulated, and so are their init containers. Vault's and
//! the network's faults come from a small proxy of our own. Cases are independent of each other (roles, namespaces
//! and addresses of their own); one that disturbs a server runs alone.

mod api_proxy;
mod check_failures;
mod check_pods;
mod commands;
mod controller;
mod explain_answers;
mod explain_failures;
mod explain_outages;
mod fault_proxy;
mod kubernetes_events;
mod kubernetes_faults;
mod kubernetes_peers;
mod kubernetes_watch;
mod limits;
mod push_answers;
mod push_life;
mod push_outages;
mod push_pods;
mod push_start;
mod push_unknown;
mod receivers;
mod secrets;
mod vault_adapter;
mod vault_faults;
mod vault_logins;
mod vault_neutralise;
mod vault_outages;
mod vault_secret_ids;
mod vault_tls;
mod vault_tokens;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use world::{Case, Shared};

/// Cases wait for timers and servers far more than they compute.
const CASES_AT_ONCE: usize = 12;

fn main() -> ExitCode {
    testbed::enter();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CASES_AT_ONCE);
    let shared = Arc::new(Shared::default());
    // The longest waits first; those that run alone at the end.
    let beside: [&[(&str, Case)]; 24] = [
        secrets::ALL,
        limits::ALL,
        push_unknown::ALL,
        push_answers::ALL,
        push_pods::ALL,
        push_life::ALL,
        explain_answers::ALL,
        explain_failures::ALL,
        commands::ALL,
        check_failures::ALL,
        check_pods::ALL,
        vault_faults::ALL,
        vault_logins::ALL,
        vault_neutralise::ALL,
        vault_secret_ids::ALL,
        vault_tls::ALL,
        vault_tokens::ALL,
        kubernetes_watch::ALL,
        kubernetes_events::ALL,
        kubernetes_faults::ALL,
        kubernetes_peers::ALL,
        push_start::ALL,
        push_outages::BESIDE,
        explain_outages::BESIDE,
    ];
    let alone = [vault_outages::ALONE, push_outages::ALONE, kubernetes_watch::ALONE, explain_outages::ALONE];
    let mut trials = Vec::new();
    for (cases, is_alone) in beside.into_iter().map(|c| (c, false)).chain(alone.into_iter().map(|c| (c, true))) {
        for &(name, case) in cases {
            let shared = shared.clone();
            let name = name.strip_prefix("component::").unwrap_or(name);
            trials.push(Trial::test(name, move || {
                shared.run(case, is_alone).map_err(|error| Failed::from(format!("{error:#}")))
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    shared.stop();
    conclusion.exit_code()
}
