//! The page of metrics before Prometheus' own linter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kubernetes_vault::clock::SystemClock;
use kubernetes_vault::deliver::ports::Meter;
use kubernetes_vault::domain::delivery::{Answer, VaultTrouble};
use kubernetes_vault::domain::ids::RoleName;
use kubernetes_vault::metrics::{Metrics, RaftSampled, Room, Sampled, TlsUse};

use super::tool::promtool;

/// What promtool has against names of the reference, which existing dashboards ask for. Everything else has to be clean.
const EXCEPTED: [(&str, &str); 2] = [
    ("kubernetesvault_kubernetes_discovered_nodes_total", "non-counter metrics should not have \"_total\" suffix"),
    ("kubernetesvault_raft_nodes_total", "non-counter metrics should not have \"_total\" suffix"),
];

pub(crate) fn metrics() -> Metrics {
    Metrics::new(Arc::new(SystemClock)).unwrap()
}

/// A page on which every metric has a series.
pub(crate) fn full_page(metrics: &Metrics) -> String {
    let role = RoleName::parse("web").unwrap();
    metrics.secret_id_requested(&role, None);
    metrics.secret_id_requested(&role, Some(&VaultTrouble::Sealed));
    metrics.pushed(&role, &Answer::Incomplete("reset".into()));
    metrics.delivered(Duration::from_millis(20));
    for event in ["joined", "left", "failed", "reaped"] {
        metrics.gossip_changed(event, "10.0.0.7");
    }
    for used in TlsUse::ALL {
        metrics.certificate_expires(used, Some(1_800_000_000));
    }
    metrics.token_granted(Some(3_600));
    metrics.room(Some(Room { used: 1, free: 1 }));
    let raft = RaftSampled {
        cluster: "0123456789abcdef".into(),
        reachable: Some(3),
        most_behind: Some(0),
        ..RaftSampled::default()
    };
    String::from_utf8(metrics.page(&Sampled { raft: Some(raft), ..Sampled::default() })).unwrap()
}

#[test]
fn promtool_takes_the_page_but_for_names_of_the_reference() {
    let metrics = metrics();
    let page = full_page(&metrics);
    for described in metrics.described() {
        assert!(
            page.contains(&format!("# TYPE {} {}\n", described.name, described.kind)),
            "{} is not on it",
            described.name
        );
    }
    let (_, said) = promtool(&["check", "metrics"], page.as_bytes());
    let found: BTreeSet<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let excepted: Vec<String> = EXCEPTED.iter().map(|(name, lint)| format!("{name} {lint}")).collect();
    assert_eq!(found, excepted.iter().map(String::as_str).collect());
}

#[test]
fn promtool_would_find_a_bad_name() {
    let page = b"# HELP things Things.\n# TYPE things counter\nthings 1\n";
    let (content, said) = promtool(&["check", "metrics"], page);
    assert!(!content && said.contains("should have \"_total\" suffix"), "{said}");
}
