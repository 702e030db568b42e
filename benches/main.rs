//! `make bench`: speed and memory of the release binaries against a real API server and a real Vault.
//!
//! One run, one testbed, one section after the other; prints a table and writes `target/bench.json`. Options:
//! `--small` tries everything with a tenth of the pods, `--full` waits until ten idle minutes have passed,
//! `--burst` measures the bursts alone, `--ledger` the ledger alone,
//! `--replicas` what three replicas do, `--memory` memory with many pods, `--operators` pages of metrics and strangers;
//! `--million` lets the ledger take a million deliveries.

mod burst;
mod certificates;
mod controller;
mod cpu;
mod delivery;
mod etcd;
mod init_container;
mod kind;
mod ledger;
mod memory;
mod operators;
mod receivers;
mod replicas;
mod report;
mod rig;
mod sizes;
mod strangers;

use anyhow::Result;

use crate::report::Report;
use crate::rig::Rig;
use crate::sizes::Sizes;

fn main() -> Result<()> {
    testbed::enter();
    testbed::block_on(run())
}

async fn run() -> Result<()> {
    let sizes = Sizes::from_arguments()?;
    let mut report = Report::new();
    report.say("starting the control plane and Vault");
    let rig = Rig::start().await?;
    let measured = measure(&rig, &sizes, &mut report).await;
    rig.bed.stop().await;
    measured?;
    report.finish()
}

async fn measure(rig: &Rig, sizes: &Sizes, report: &mut Report) -> Result<()> {
    if sizes.burst_alone {
        burst::measure(rig, sizes, report).await?;
        return burst::measure_three(rig, sizes, report).await;
    }
    if sizes.replicas_alone {
        return replicas::measure(rig, sizes, report).await;
    }
    if sizes.operators_alone {
        return operators::measure(rig, sizes, report).await;
    }
    if sizes.memory_alone {
        let (controller, alone) = memory::idle(rig, report).await?;
        controller.stop().await?;
        return memory::crowd(rig, sizes, alone, report).await;
    }
    if sizes.ledger_alone {
        return ledger::measure(rig, sizes, report).await;
    }
    let mut quiet = memory::Quiet::start(rig).await?;
    init_container::at_rest(rig, sizes, report).await?;
    let (controller, alone) = memory::idle(rig, report).await?;
    init_container::start_to_token(rig, &controller, sizes, report).await?;
    delivery::measure(rig, &controller, sizes, report).await?;
    controller.stop().await?;
    burst::measure(rig, sizes, report).await?;
    ledger::measure(rig, sizes, report).await?;
    replicas::measure(rig, sizes, report).await?;
    operators::measure(rig, sizes, report).await?;
    memory::crowd(rig, sizes, alone, report).await?;
    quiet.finish(rig, sizes, report).await?;
    kind::take_over(report)
}
