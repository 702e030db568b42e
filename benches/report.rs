//! The table: what was measured, what was wanted, what the reference does.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

/// What a value is held against.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// The rows of the table, in its order.
const NAMES: [&str; 29] = [
    "delivery_p50_ms",
    "delivery_p99_ms",
    "start_to_token_p50_ms",
    "burst_share_of_vault",
    "cpu_ms_per_delivery",
    "rss_mib_20k_running",
    "rss_kib_per_pending",
    "api_lists_idle_10min",
    "surplus_secret_ids",
    "init_size_mib",
    "init_rss_mib",
    "init_listen_ms",
    "failover_kill_p50_ms",
    "failover_kill_max_ms",
    "failover_term_max_ms",
    "failover_cut_max_ms",
    "delivery_p50_ms_3",
    "burst_share_of_vault_3",
    "ledger_deliveries_per_s",
    "leader_changes_under_burst",
    "catch_up_100k_s",
    "disk_mib_1m",
    "rss_mib_replica",
    "cpu_percent_idle",
    "metrics_p99_ms",
    "metrics_kib",
    "stranger_slowdown",
    "kind_pod_start_p50_ms",
    "kind_init_p50_ms",
];

struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    target: Target,
    reference: &'static str,
}

/// Rows and remarks, as they come in.
pub(crate) struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    load_at_start: String,
    started: Instant,
}

impl Row {
    fn met(&self) -> bool {
        match self.target {
            Target::AtMost(most) => self.value <= most,
            Target::AtLeast(least) => self.value >= least,
        }
    }

    fn cells(&self) -> [String; 6] {
        let (sign, target) = match self.target {
            Target::AtMost(most) => ("<=", most),
            Target::AtLeast(least) => (">=", least),
        };
        let met = if self.met() { "met" } else { "MISSED" };
        [
            self.name.to_owned(),
            round(self.value).to_string(),
            self.unit.to_owned(),
            format!("{sign} {}", round(target)),
            met.to_owned(),
            self.reference.to_owned(),
        ]
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), notes: Vec::new(), load_at_start: load(), started: Instant::now() }
    }

    /// Progress, for whoever waits.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// One row of the table.
    pub(crate) fn row(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        target: Target,
        reference: &'static str,
    ) {
        self.say(&format!("{name} = {} {unit}", round(value)));
        self.rows.push(Row { name, value, unit, target, reference });
    }

    /// A remark under the table: what a value stands on.
    pub(crate) fn note(&mut self, text: String) {
        self.say(&text);
        self.notes.push(text);
    }

    /// A value that was measured before.
    pub(crate) fn value(&self, name: &str) -> Result<f64> {
        let row = self.rows.iter().find(|row| row.name == name);
        row.map(|row| row.value).with_context(|| format!("{name} was not measured"))
    }

    /// Prints the table and writes it.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.rows.sort_by_key(|row| NAMES.iter().position(|name| *name == row.name));
        self.print();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let (Target::AtMost(target) | Target::AtLeast(target)) = row.target;
                json!({
                    "name": row.name, "value": round(row.value), "unit": row.unit,
                    "target": round(target), "met": row.met(),
                })
            })
            .collect();
        let path = testbed::target_folder().join("bench.json");
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
        Ok(())
    }

    fn print(&self) {
        let head = ["name", "value", "unit", "target", "", "reference"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
        println!();
        for line in &lines {
            // Numbers to the right, words to the left.
            let cells: Vec<_> = (0..line.len())
                .map(|column| match column {
                    1 | 3 => format!("{:>w$}", line[column], w = width(column)),
                    _ => format!("{:<w$}", line[column], w = width(column)),
                })
                .collect();
            println!("{}", cells.join("  ").trim_end());
        }
        println!();
        for note in &self.notes {
            println!("- {note}");
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "- {cores} cores, shared with API server, etcd and Vault; load average {} before, {} after; took {:.0} s",
            self.load_at_start,
            load(),
            self.started.elapsed().as_secs_f64()
        );
    }
}

/// The value at a quantile, by nearest rank. Sorts.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().context("nothing was measured")
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
