//! Who used the cores: CPU time of the processes of this testbed, by name, and of the whole machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// Linux has counted CPU time in hundredths of a second since always.
const TICK_MS: f64 = 10.0;
/// Key of the whole machine, other people's processes included.
const MACHINE: &str = "machine";
/// What is less than this share of a core is left out.
const LEAST: f64 = 0.02;

/// CPU time so far, in milliseconds.
pub(crate) struct Cpu(BTreeMap<String, f64>);

impl Cpu {
    pub(crate) fn now() -> Result<Self> {
        let mut times = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            // Processes end while we look.
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if let Ok((command, used)) = process(pid) {
                *times.entry(command).or_default() += used;
            }
        }
        let stat = std::fs::read_to_string("/proc/stat")?;
        // user nice system idle iowait irq softirq steal
        let machine: Vec<f64> =
            stat.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
        let busy: f64 = machine.iter().enumerate().filter(|(place, _)| ![3, 4].contains(place)).map(|(_, n)| n).sum();
        times.insert(MACHINE.to_owned(), busy * TICK_MS);
        Ok(Self(times))
    }

    /// Cores in use since `earlier`, over so many milliseconds.
    pub(crate) fn cores_since(&self, earlier: &Self, window_ms: f64) -> String {
        let mut text = String::new();
        for (name, used) in &self.0 {
            let cores = (used - earlier.0.get(name).copied().unwrap_or_default()) / window_ms;
            if cores >= LEAST {
                // Writing to a String cannot fail.
                let _ = write!(text, "{}{name} {cores:.2}", if text.is_empty() { "" } else { ", " });
            }
        }
        text
    }
}

/// Name and CPU time, user and system, of a process.
pub(crate) fn process(pid: u32) -> Result<(String, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (head, fields) = stat.rsplit_once(')').context("not a stat line")?;
    let (_, command) = head.split_once('(').context("not a stat line")?;
    // After the command: state is the first, utime and stime are the 12th and 13th.
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok((command.to_owned(), ticks.sum::<f64>() * TICK_MS))
}
