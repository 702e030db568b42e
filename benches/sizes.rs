//! How much of everything a run does.

use std::time::Duration;

use anyhow::{Result, bail};

/// Numbers of pods and times of waiting.
pub(crate) struct Sizes {
    pub(crate) deliveries: u16,
    pub(crate) burst: u16,
    pub(crate) running: u32,
    pub(crate) pending: u16,
    pub(crate) init_starts: u16,
    /// Each kind of fail-over is made so often.
    pub(crate) fail_overs: u16,
    /// How long the idle controller is watched at least.
    pub(crate) idle: Duration,
    /// No other section: for profiling.
    pub(crate) burst_alone: bool,
    /// Only the ledger.
    pub(crate) ledger_alone: bool,
    /// A million deliveries through the ledger, too: some minutes.
    pub(crate) million: bool,
    /// Only what three replicas do.
    pub(crate) replicas_alone: bool,
    /// Only memory with many pods.
    pub(crate) memory_alone: bool,
    /// Only what operators ask and what strangers cost.
    pub(crate) operators_alone: bool,
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

impl Sizes {
    pub(crate) fn from_arguments() -> Result<Self> {
        let mut sizes = Self {
            deliveries: 200,
            burst: 2_000,
            running: 20_000,
            pending: 5_000,
            init_starts: 30,
            fail_overs: 20,
            idle: Duration::from_secs(120),
            burst_alone: false,
            replicas_alone: false,
            memory_alone: false,
            operators_alone: false,
            ledger_alone: false,
            million: false,
        };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                // Cargo's own word to every benchmark.
                "--bench" => {}
                "--full" => {
                    sizes.idle = TEN_MINUTES;
                    sizes.million = true;
                }
                "--ledger" => sizes.ledger_alone = true,
                "--million" => sizes.million = true,
                "--burst" => sizes.burst_alone = true,
                "--replicas" => sizes.replicas_alone = true,
                "--memory" => sizes.memory_alone = true,
                "--operators" => sizes.operators_alone = true,
                "--small" => {
                    sizes.deliveries /= 10;
                    sizes.burst /= 10;
                    sizes.running /= 10;
                    sizes.pending /= 10;
                    sizes.init_starts /= 3;
                    sizes.fail_overs /= 4;
                    sizes.idle = Duration::from_secs(10);
                }
                other => bail!(
                    "unknown argument {other}; known are --full, --small, --burst, --ledger, --million, --replicas, \
                     --memory and --operators"
                ),
            }
        }
        Ok(sizes)
    }
}
