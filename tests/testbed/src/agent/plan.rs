//! What to do next with a pod's containers. Pure: records in, steps out.
//!
//! Owns: the order of starts and the back-off between them.
//!
//! Must never happen: a main container that starts before every init container is done.

use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::jiff::Timestamp;

use super::record::{Kind, Record, State};

/// A container that ran this long starts without delay the next time.
const STEADY: Duration = Duration::from_secs(600);
/// A kubelet's longest delay is five minutes: thirty times its shortest.
const MAX_FACTOR: u32 = 30;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start the container with this index.
    Start(usize),
    /// Show that the container with this index waits for its next start.
    BackOff(usize),
    /// The main containers are done for good.
    StopSidecars,
}

/// What to do now, and when to ask again at the latest.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) wake: Option<Timestamp>,
}

/// Decides the next steps; ask again after each start.
pub(crate) fn plan(records: &[Record], restart_policy: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let serving = records.iter().any(|record| record.kind == Kind::Main && record.id.is_some());
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.kind != Kind::Main) {
        if record.is_initialized() {
            continue;
        }
        if record.is_final(restart_policy) {
            return plan;
        }
        consider(&mut plan, index, record, now);
        // Once the main containers were started, a sidecar that restarts does not hold them up.
        if !(record.kind == Kind::Sidecar && serving) {
            return plan;
        }
    }
    let mains = records.iter().enumerate().filter(|(_, record)| record.kind == Kind::Main);
    let mut all_done = true;
    for (index, record) in mains {
        if !record.is_final(restart_policy) {
            all_done = false;
            consider(&mut plan, index, record, now);
        }
    }
    if all_done {
        return Plan { steps: vec![Step::StopSidecars], wake: None };
    }
    plan
}

fn consider(plan: &mut Plan, index: usize, record: &Record, now: Timestamp) {
    if record.is_running() {
        return;
    }
    match record.due {
        Some(due) if due > now => {
            if matches!(record.state, State::Terminated(_)) {
                plan.steps.push(Step::BackOff(index));
            }
            plan.wake = Some(plan.wake.map_or(due, |wake| wake.min(due)));
        }
        _ => plan.steps.push(Step::Start(index)),
    }
}

/// Takes in the end of a container and decides when it may start again.
pub(crate) fn ended(record: &mut Record, end: ContainerStateTerminated, base: Duration) {
    let started = end.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let finished = end.finished_at.as_ref().map_or(started, |time| time.0);
    if finished.duration_since(started).unsigned_abs() >= STEADY {
        record.crashes = 0;
    }
    // The first restart is immediate, as a kubelet's is.
    let delay = match record.crashes {
        0 => Duration::ZERO,
        crashes => base * 2_u32.saturating_pow(crashes - 1).min(MAX_FACTOR),
    };
    record.crashes += 1;
    record.due = Some(finished.saturating_add(delay).unwrap_or(finished));
    record.started = false;
    record.ready = false;
    record.state = State::Terminated(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    const BASE: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn end(code: i32, second: i64) -> ContainerStateTerminated {
        ContainerStateTerminated {
            exit_code: code,
            started_at: Some(Time(at(second))),
            finished_at: Some(Time(at(second))),
            ..ContainerStateTerminated::default()
        }
    }

    fn pod() -> Vec<Record> {
        vec![
            Record::new("one", "i", Kind::Init, true),
            Record::new("side", "i", Kind::Sidecar, true),
            Record::new("app", "i", Kind::Main, true),
        ]
    }

    fn run(record: &mut Record) {
        record.state = State::Running { since: Time(at(0)) };
        record.id = Some("id".into());
        record.started = true;
    }

    #[test]
    fn init_containers_run_one_after_another() {
        let mut records = pod();
        assert_eq!(plan(&records, "Always", at(0)).steps, [Step::Start(0)]);
        run(&mut records[0]);
        assert_eq!(plan(&records, "Always", at(0)), Plan::default());
        ended(&mut records[0], end(0, 1), BASE);
        assert_eq!(plan(&records, "Always", at(1)).steps, [Step::Start(1)]);
        run(&mut records[1]);
        records[1].started = false;
        assert_eq!(plan(&records, "Always", at(1)), Plan::default());
        records[1].started = true;
        assert_eq!(plan(&records, "Always", at(1)).steps, [Step::Start(2)]);
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait() {
        let mut records = pod();
        run(&mut records[0]);
        ended(&mut records[0], end(1, 5), BASE);
        assert_eq!(plan(&records, "Always", at(5)).steps, [Step::Start(0)]);
        ended(&mut records[0], end(1, 6), BASE);
        let waiting = plan(&records, "Always", at(6));
        assert_eq!((waiting.steps.as_slice(), waiting.wake), ([Step::BackOff(0)].as_slice(), Some(at(16))));
        ended(&mut records[0], end(1, 16), BASE);
        assert_eq!(plan(&records, "Always", at(16)).wake, Some(at(36)));
        assert_eq!(plan(&records, "Always", at(36)).steps, [Step::Start(0)]);
    }

    #[test]
    fn a_failed_init_container_of_a_pod_that_never_restarts_ends_it() {
        let mut records = pod();
        run(&mut records[0]);
        ended(&mut records[0], end(1, 5), BASE);
        assert_eq!(plan(&records, "Never", at(9)), Plan::default());
    }

    #[test]
    fn sidecars_end_after_the_main_containers() {
        let mut records = pod();
        run(&mut records[0]);
        ended(&mut records[0], end(0, 1), BASE);
        run(&mut records[1]);
        run(&mut records[2]);
        ended(&mut records[2], end(0, 2), BASE);
        assert_eq!(plan(&records, "OnFailure", at(2)).steps, [Step::StopSidecars]);
    }

    #[test]
    fn a_restarting_sidecar_does_not_hold_up_the_main_containers() {
        let mut records = pod();
        run(&mut records[0]);
        ended(&mut records[0], end(0, 1), BASE);
        run(&mut records[1]);
        run(&mut records[2]);
        ended(&mut records[1], end(1, 2), BASE);
        ended(&mut records[2], end(1, 2), BASE);
        assert_eq!(plan(&records, "Always", at(2)).steps, [Step::Start(1), Step::Start(2)]);
    }
}
