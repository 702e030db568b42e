//! What `check` prints: the findings, grouped, as text or as JSON.
//!
//! Pure. Owns the fields of `check --output json`: fields may be added, none is renamed.

use serde::Serialize;

use crate::config::{ConfigError, Warning};
use crate::domain::findings::{Finding, Group, Level, worst};
use crate::print::{Paint, Tone, View, pretty, wrap};

#[derive(Serialize)]
struct Report<'a> {
    /// No error.
    well: bool,
    errors: usize,
    warnings: usize,
    findings: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    group: &'static str,
    level: &'static str,
    cause: &'a str,
    remedy: Option<&'a str>,
}

/// What is wrong with a configuration that cannot be used.
pub fn of_error(error: &ConfigError) -> Vec<Finding> {
    let ConfigError::Invalid { problems, warnings } = error else {
        let text = error.to_string();
        let (cause, remedy) = text.split_once(". ").map_or((text.as_str(), None), |(cause, rest)| (cause, Some(rest)));
        return vec![Finding {
            group: Group::Configuration,
            level: Level::Error,
            cause: cause.to_owned(),
            remedy: remedy.map(|rest| rest[..1].to_lowercase() + &rest[1..]),
        }];
    };
    let problems = problems.iter().map(|problem| finding(Level::Error, problem.to_string()));
    problems.chain(of_warnings(warnings)).collect()
}

/// What is odd with one that can.
pub fn of_warnings(warnings: &[Warning]) -> Vec<Finding> {
    warnings.iter().map(|warning| finding(Level::Warning, warning.to_string())).collect()
}

/// Whole: the texts of the configuration say what is accepted in the same sentence.
fn finding(level: Level, cause: String) -> Finding {
    Finding { group: Group::Configuration, level, cause, remedy: None }
}

/// All of it, with its last line's end.
pub fn report(findings: &[Finding], view: View) -> String {
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let in_order = || Group::ALL.into_iter().flat_map(|group| findings.iter().filter(move |one| one.group == group));
    match view {
        View::Json => pretty(&Report {
            well: worst(findings) < Level::Error,
            errors,
            warnings,
            findings: in_order()
                .map(|finding| Shown {
                    group: finding.group.label(),
                    level: finding.level.label(),
                    cause: &finding.cause,
                    remedy: finding.remedy.as_deref(),
                })
                .collect(),
        }),
        View::Text(paint) => {
            let mut text = String::new();
            let mut group = None;
            for finding in in_order() {
                if group.replace(finding.group) != Some(finding.group) {
                    text += &format!("{}{}\n", if text.is_empty() { "" } else { "\n" }, finding.group.title());
                }
                text += &line(finding, paint);
            }
            text + &format!("\n{}, {}\n", counted(errors, "error"), counted(warnings, "warning"))
        }
    }
}

fn line(finding: &Finding, paint: Paint) -> String {
    let tone = match finding.level {
        Level::Ok => Tone::Good,
        Level::Warning => Tone::Odd,
        Level::Error => Tone::Bad,
    };
    let lead = format!("  {:<9}", finding.level.label());
    let mut text = paint.wrap(tone, &lead, &finding.cause);
    if let Some(remedy) = &finding.remedy {
        text += &wrap("           -> ", remedy);
    }
    text
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new(Group::Vault, Level::Error, "it is sealed; unseal it (vault operator unseal)"),
            Finding::ok(Group::Configuration, "/a.yml has no problem"),
            Finding::new(
                Group::Kubernetes,
                Level::Warning,
                "the right to create events is missing: nobody is told; grant it",
            ),
        ]
    }

    #[test]
    fn findings_come_by_group_each_with_what_to_do() {
        let golden = "\
Configuration
  ok       /a.yml has no problem

Kubernetes
  warning  the right to create events is missing: nobody is told
           -> grant it

Vault
  error    it is sealed
           -> unseal it (vault operator unseal)

1 error, 1 warning
";
        assert_eq!(report(&findings(), View::Text(Paint::PLAIN)), golden);
    }

    #[test]
    fn json_has_every_finding_in_the_same_order() {
        let json: serde_json::Value = serde_json::from_str(&report(&findings(), View::Json)).unwrap();
        assert_eq!((&json["well"], &json["errors"], &json["warnings"]), (&false.into(), &1.into(), &1.into()));
        assert_eq!(json["findings"][2]["group"], "vault");
        assert_eq!(json["findings"][2]["remedy"], "unseal it (vault operator unseal)");
        assert!(json["findings"][0]["remedy"].is_null());
        let well = report(&findings()[1..], View::Json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&well).unwrap()["well"], true, "a warning is well");
    }

    #[test]
    fn levels_are_coloured_on_a_terminal_alone() {
        let coloured = report(&findings(), View::Text(Paint::choose(true, None)));
        for code in ["32m  ok", "33m  warning", "31m  error"] {
            assert!(coloured.contains(&format!("\u{1b}[{code}")), "{coloured}");
        }
        assert!(!report(&findings(), View::Json).contains('\u{1b}'));
    }

    #[test]
    fn every_problem_and_every_warning_of_a_configuration_is_told_together() {
        let yaml = "vault:\n  addr: ftp://x\n  tokn: a\nkubernetes:\n  service: A_B\n";
        let error = Config::parse(yaml, &|_| None).err().unwrap();
        let found = of_error(&error);
        let has = |level, key: &str| found.iter().any(|one| one.level == level && one.cause.starts_with(key));
        for key in ["vault.addr", "vault.token", "kubernetes.watchNamespace", "kubernetes.service "] {
            assert!(has(Level::Error, key), "{key}: {found:?}");
        }
        assert!(has(Level::Warning, "vault.tokn"), "{found:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_how_to_name_another() {
        let error = Config::load(&crate::config::Source::file("/nowhere/x.yml")).err().unwrap();
        let found = of_error(&error);
        assert!(found[0].cause.contains("/nowhere/x.yml") && found[0].level == Level::Error);
        assert!(found[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("--config")), "{found:?}");
    }
}
