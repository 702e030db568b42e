//! Dashboard, alerts and runbooks: each takes the others, and the metrics, at their word.

use std::collections::BTreeSet;

use kubernetes_vault::metrics::catalogue::Kind;
use serde_yaml::Value;

use super::page::metrics;
use super::tool::{path, promtool, read};

const RULES: &str = "deploy/monitoring/rules.yaml";
const CASES: &str = "deploy/monitoring/rules-test.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
const RUNBOOKS: &str = "docs/runbooks.md";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:?}"))
}

/// The rules of the rules file.
fn rules() -> Vec<Value> {
    let file: Value = serde_yaml::from_str(&read(RULES)).unwrap();
    let groups = file["groups"].as_sequence().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap().clone()).collect()
}

/// What of `text` looks like the name of a metric of ours.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("kubernetesvault_") || word.starts_with("process_")).collect()
}

/// The names under which series of ours can be asked for.
fn queryable() -> BTreeSet<String> {
    let metrics = metrics();
    let names = metrics.described().iter().flat_map(|one| {
        let parts: &[&str] = if one.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        parts.iter().map(|part| format!("{}{part}", one.name)).collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn promtool_takes_the_rules_and_each_case_of_them_holds() {
    let rules = path(RULES);
    let cases = path(CASES);
    for arguments in [["check", "rules", rules.to_str().unwrap()], ["test", "rules", cases.to_str().unwrap()]] {
        let (content, said) = promtool(&arguments, b"");
        assert!(content, "promtool {arguments:?}:\n{said}");
    }
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let cases: Value = serde_yaml::from_str(&read(CASES)).unwrap();
    let (mut fires, mut is_quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in cases["tests"].as_sequence().unwrap() {
        for expected in case["alert_rule_test"].as_sequence().unwrap() {
            let firing = !expected["exp_alerts"].as_sequence().unwrap().is_empty();
            let kind = if firing { &mut fires } else { &mut is_quiet };
            kind.insert(text(expected, "alertname").to_owned());
        }
    }
    let alerts: BTreeSet<String> = rules().iter().map(|rule| text(rule, "alert").to_owned()).collect();
    assert_eq!(alerts, fires);
    assert_eq!(alerts, is_quiet);
}

#[test]
fn each_alert_says_what_is_wrong_and_leads_to_its_runbook() {
    for rule in rules() {
        let alert = text(&rule, "alert");
        let annotations = &rule["annotations"];
        for words in ["summary", "description"] {
            assert!(text(annotations, words).ends_with('.'), "{alert}: {words} is no sentence");
        }
        assert!(
            !text(annotations, "summary").contains("{{"),
            "{alert}: a summary groups alerts, so it is always the same"
        );
        assert_eq!(text(annotations, "runbook_url"), format!("{RUNBOOKS}#{}", alert.to_lowercase()));
        assert!(["critical", "warning", "info"].contains(&text(&rule["labels"], "severity")), "{alert}");
    }
}

#[test]
fn each_alert_has_a_section_in_the_runbooks_and_each_section_an_alert() {
    let book = read(RUNBOOKS);
    let sections: Vec<&str> = book.split("\n### ").skip(1).collect();
    let names: Vec<&str> = sections.iter().filter_map(|section| section.lines().next()).collect();
    let rules = rules();
    // In the same order, so that both can be read side by side.
    assert_eq!(names, rules.iter().map(|rule| text(rule, "alert")).collect::<Vec<_>>());
    for section in sections {
        for part in ["**Means:** ", "**Look at:** ", "**Do:** "] {
            assert!(section.contains(part), "no {part} in {section}");
        }
    }
}

#[test]
fn alerts_dashboard_and_pages_name_only_metrics_that_there_are() {
    let there_are = queryable();
    let described: BTreeSet<String> = metrics().described().iter().map(|one| one.name.clone()).collect();
    for file in [RULES, CASES, DASHBOARD, RUNBOOKS, "docs/operations.md", "README.md"] {
        let content = read(file);
        let used = names_in(&content);
        let known = |name: &str| there_are.contains(name) || described.contains(name);
        // `process_*` and the like, in prose.
        let unknown: Vec<_> = used.iter().filter(|name| !name.ends_with('_') && !known(name)).collect();
        assert!(unknown.is_empty(), "{file} has {unknown:?}");
    }
    assert!(!names_in(&read(DASHBOARD)).is_empty() && !names_in(&read(RULES)).is_empty());
}

#[test]
fn the_dashboard_can_be_imported_and_each_panel_says_what_it_shows() {
    let dashboard: Value = serde_yaml::from_str(&read(DASHBOARD)).unwrap();
    assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
    let panels = dashboard["panels"].as_sequence().unwrap();
    let shown: Vec<&Value> = panels.iter().filter(|panel| panel["type"] != "row").collect();
    assert!(shown.len() > 10);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut asked = Vec::new();
    for panel in shown {
        let title = text(panel, "title");
        assert!(!text(panel, "description").is_empty(), "{title}");
        assert_eq!(text(&panel["datasource"], "uid"), "${datasource}", "{title}");
        for target in panel["targets"].as_sequence().unwrap() {
            let expression = text(target, "expr");
            let narrowed = expression.contains(r#"job=~"$job",namespace=~"$namespace""#);
            assert!(narrowed, "{title} shows all installations: {expression}");
            asked.push(in_an_hour(expression));
        }
    }
    // promtool has no check for an expression alone; it has one for rules.
    let rules =
        asked.iter().enumerate().map(|(n, expr)| serde_json::json!({ "record": format!("panel:{n}"), "expr": expr }));
    let file = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules.collect::<Vec<_>>() }] });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    let (content, said) = promtool(&["check", "rules", path.to_str().unwrap()], b"");
    assert!(content, "{said}\n{asked:#?}");
}

// Debian's build of Prometheus knows no Kubernetes; the rest it can check.
const DISCOVERY: &str = "    kubernetes_sd_configs:
      - role: endpointslice
        namespaces: {names: [kubernetes-vault]}
";

// What somebody copies from the manual has to work.
#[test]
fn prometheus_takes_the_scrape_configuration_of_the_manual() {
    let manual = read("docs/operations.md");
    let section = manual.split("\n## ").find(|section| section.starts_with("Monitoring")).unwrap();
    let configuration = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(configuration.contains(DISCOVERY), "{configuration}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, configuration.replace(DISCOVERY, "")).unwrap();
    let (content, said) = promtool(&["check", "config", "--syntax-only", file.to_str().unwrap()], b"");
    assert!(content, "{said}");
}

/// What Grafana puts in the place of its own variables.
fn in_an_hour(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
}
