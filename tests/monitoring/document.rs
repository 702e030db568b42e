//! docs/metrics.md is what the code says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kubernetes_vault::metrics::catalogue::{Described, Label, Section, Values};

use super::page::metrics;
use super::tool::{path, read};

const FILE: &str = "docs/metrics.md";

/// Set to anything, the page is written instead of compared.
const UPDATE: &str = "KV_UPDATE_DOCS";

const HEAD: &str = "# Metrics

Written from the code (`KV_UPDATE_DOCS=1 scripts/cargo test --test monitoring`); a test compares the two.

Each replica serves its own page under `/metrics`, on `prometheus.address`. Deliveries are counted by the replica that
leads, so sum counters over replicas, and take the maximum of what describes the cluster. How to scrape, and how to load
the dashboard and the alerts: [operations.md](operations.md#monitoring). What to do when one fires:
[runbooks.md](runbooks.md).

**Go** marks what the Go version has, too, with the same name, type, labels and meaning. Its `go_*` metrics are gone.

Labels with a list of values are at zero from the start, so that an alert misses no first event. Others appear with
theirs. A page stays under 64 KiB: peers and AppRoles beyond what fits are counted together.
";

fn title(section: Section) -> (&'static str, &'static str) {
    match section {
        Section::Delivery => (
            "Are secrets delivered?",
            "Look at `oldest_waiting_pod_seconds` first: near 0, all is well, whoever leads. If it grows, \
             `push_outcomes_total`, `incidents_total` and the sections below say why.",
        ),
        Section::Vault => ("Vault", "What keeps us from getting a `secret_id`, and the token that we ask with."),
        Section::Cluster => ("Replicas and ledger", "Who leads, who is missing, and how full the ledger is."),
        Section::Kubernetes => ("Kubernetes", "What is known of pods, and what their authors are told."),
        Section::Certificates => ("Certificates", "When they expire, and whether what is new could be loaded."),
        Section::Process => ("The process", "What runs, and what it takes."),
    }
}

fn render(described: &[Described]) -> String {
    let mut page = HEAD.to_owned();
    let mut sections: BTreeMap<Section, Vec<&Described>> = BTreeMap::new();
    for one in described {
        sections.entry(one.section).or_default().push(one);
    }
    for (section, metrics) in sections {
        let (heading, words) = title(section);
        write!(page, "\n## {heading}\n\n{words}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n").unwrap();
        for one in &metrics {
            let labels: Vec<String> = one.labels.iter().map(|label| format!("`{}`", label.name)).collect();
            let go = if one.from_reference { " **Go**" } else { "" };
            writeln!(page, "| `{}` | {} | {} | {}{go} |", one.name, one.kind, labels.join(", "), one.help).unwrap();
        }
        for (label, of) in labels(&metrics) {
            let names: Vec<String> = of.iter().map(|name| format!("`{name}`")).collect();
            write!(page, "\n`{}` of {}:", label.name, names.join(", ")).unwrap();
            match label.values {
                Values::Open(meaning) => writeln!(page, " {meaning}.").unwrap(),
                Values::Known(values) => {
                    page.push_str("\n\n");
                    for (value, meaning) in values {
                        writeln!(page, "- `{value}`: {meaning}").unwrap();
                    }
                }
            }
        }
    }
    page
}

/// The labels of `metrics` in the order of their first use, each with all metrics that have it.
fn labels<'a>(metrics: &[&'a Described]) -> Vec<(Label, Vec<&'a str>)> {
    let mut found: Vec<(Label, Vec<&str>)> = Vec::new();
    for one in metrics {
        for label in one.labels {
            match found.iter_mut().find(|(known, _)| known == label) {
                Some((_, of)) => of.push(&one.name),
                None => found.push((*label, vec![&one.name])),
            }
        }
    }
    found
}

#[test]
fn the_documentation_of_metrics_is_what_the_code_says() {
    let rendered = render(metrics().described());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path(FILE), &rendered).unwrap();
    }
    assert!(
        read(FILE) == rendered,
        "{FILE} is not what the code says; write it anew with\n\n    {UPDATE}=1 scripts/cargo test --test monitoring\n"
    );
}

// Its users' dashboards ask for these: reference-behaviour, section 6.
#[test]
fn the_names_types_and_labels_of_the_reference_are_all_there() {
    let metrics = metrics();
    for (name, kind, label) in [
        ("kubernetes_discovered_nodes_total", "gauge", None),
        ("vault_secret_id_requests_total", "counter", Some("approle")),
        ("vault_secret_id_requests_failures_total", "counter", Some("approle")),
        ("vault_token_renewal_requests_total", "counter", None),
        ("vault_token_renewal_request_failures_total", "counter", None),
        ("vault_certificate_renewal_requests_total", "counter", None),
        ("vault_certificate_renewal_request_failures_total", "counter", None),
        ("raft_leader_changes_seen_total", "counter", None),
        ("raft_nodes_total", "gauge", None),
        ("gossip_nodes_joined_total", "counter", Some("node")),
        ("gossip_nodes_left_total", "counter", Some("node")),
        ("gossip_nodes_failed_total", "counter", Some("node")),
        ("gossip_nodes_reaped_total", "counter", Some("node")),
        ("server_secret_pushes_total", "counter", Some("approle")),
        ("server_secret_push_failures_total", "counter", Some("approle")),
    ] {
        let whole = format!("kubernetesvault_{name}");
        let one = metrics.described().iter().find(|one| one.name == whole).unwrap_or_else(|| panic!("no {whole}"));
        assert_eq!(one.kind.to_string(), kind, "{whole}");
        assert!(one.labels.iter().map(|label| label.name).eq(label), "{whole}: {:?}", one.labels);
        assert!(one.from_reference, "{whole}");
    }
}
