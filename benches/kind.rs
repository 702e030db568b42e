//! The rows that only a real kubelet gives: measured by `make e2e-kind` or `make kind-smoke`, taken over from there.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::report::{Report, Target};

const ROWS: [&str; 2] = ["kind_pod_start_p50_ms", "kind_init_p50_ms"];

/// Adds what the last run on kind has measured; says where there was none.
pub(crate) fn take_over(report: &mut Report) -> Result<()> {
    let path = testbed::target_folder().join("bench-kind.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        report
            .note("no rows of kind: `make kind-smoke` measures them, on a machine with a container engine".to_owned());
        return Ok(());
    };
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    for name in ROWS {
        let row = rows.iter().find(|row| row["name"] == name).with_context(|| format!("no {name}"))?;
        let number = |key: &str| row[key].as_f64().with_context(|| format!("{name} without {key}"));
        report.row(name, number("value")?, "ms", Target::AtMost(number("target")?), "");
    }
    report.note("the rows of kind are those of its last run".to_owned());
    Ok(())
}
