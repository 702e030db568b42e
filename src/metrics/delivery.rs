//! Whether init containers get their secrets: what the workflow counts.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::catalogue::{Label, Maker, Maybe, Section, Values, ours, reference};
use super::roles::Roles;
use super::{Metrics, Waiting, whole};
use crate::deliver::ports::{Incident, Meter, Neutralised};
use crate::domain::delivery::{Answer, Meaning, VaultTrouble};
use crate::domain::ids::RoleName;
use crate::domain::limits::Limit;

/// Upper bounds of the delivery histogram, in seconds: from a delivery that finds everything warm to the default
/// TIMEOUT of an init container.
const DELIVERY_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];

pub(super) const APPROLE: &[Label] = &[Label {
    name: "approle",
    values: Values::Open(
        "the AppRole, once Vault has issued for it; until then, and beyond some 80 of them, `unknown`",
    ),
}];

const OUTCOMES: &[Label] = &[Label {
    name: "outcome",
    values: Values::Known(&[
        ("accepted", "the init container has its `secret_id`"),
        ("busy", "it is busy with another push, and is asked again"),
        ("done_earlier", "it had accepted another push"),
        ("wrong_pod", "another pod answers at this address"),
        ("token_refused", "it could not use the wrapping token: expired, used, or not where it should come from"),
        ("unable", "it cannot now: Vault did not answer it, or its disk is full; another attempt follows"),
        ("refused", "it refuses for good; the Event `PushRefused` says why"),
        ("unknown", "no complete answer came: the instance's end settles it"),
    ]),
}];

const INCIDENTS: &[Label] = &[Label {
    name: "kind",
    values: Values::Known(&[
        ("unreached", "an init container did not answer a dial; a few are usual while it starts to listen"),
        ("never_sent", "a `secret_id` was issued, and then not sent"),
        ("answer_lost", "Vault may have issued a `secret_id` whose answer was lost; its wrapping token runs out"),
        ("fate_unknown", "a `secret_id` was kept since nobody can tell whether it was used"),
        ("token_used_by_another", "**security**: a wrapping token had been used before its init container could"),
        ("reopened", "an init container that had accepted still ran, and was served again"),
        ("ledger_full", "a claim was not taken because the ledger is full"),
        ("too_many_pods", "a pod was not watched because too many are"),
    ]),
}];

const WAYS_OUT: &[Label] = &[Label {
    name: "how",
    values: Values::Known(&[
        ("destroyed", "by its accessor; the policy has to allow that"),
        ("unwrapped", "its wrapping token was used up, and the result dropped"),
        ("left_to_expire", "neither was possible; the wrapping token runs out"),
    ]),
}];

const LIMITS: &[Label] = &[Label {
    name: "limit",
    values: Values::Known(&[
        ("in_flight", "pushes at once"),
        ("vault", "requests to Vault a second"),
        ("role", "deliveries a second for one AppRole"),
        ("namespace", "deliveries a second for one namespace"),
        ("pod", "a pod whose init container fails again and again"),
    ]),
}];

/// See the module.
pub(super) struct DeliveryMetrics {
    waiting: IntGauge,
    oldest_waiting: IntGauge,
    refused_pods: IntGauge,
    delivery: Histogram,
    last: Maybe,
    pushes: IntCounterVec,
    push_failures: IntCounterVec,
    outcomes: IntCounterVec,
    queued: IntGauge,
    in_flight: IntGauge,
    limited: IntCounterVec,
    incidents: IntCounterVec,
    neutralised: IntCounterVec,
    pub(super) roles: Roles,
}

impl DeliveryMetrics {
    pub(super) fn new(make: &mut Maker) -> prometheus::Result<Self> {
        make.begin(Section::Delivery);
        Ok(Self {
            waiting: make.gauge(ours(
                "waiting_pods",
                "Pods whose annotated init container runs and has not ended, by the watch of this replica: they wait for their secret_id, or have just got it. Every replica counts them, whoever leads.",
            ))?,
            oldest_waiting: make.gauge(ours(
                "oldest_waiting_pod_seconds",
                "For how long the init container that waits longest has been running; 0 while none waits.",
            ))?,
            refused_pods: make.gauge(ours(
                "refused_pods",
                "Pending pods that will not be served as they stand. The Event SecretIdNotDelivered on each says why.",
            ))?,
            delivery: make.histogram(
                ours("delivery_seconds", "From the init container's start to its answer that it has its secret_id."),
                DELIVERY_BUCKETS,
            )?,
            last: make.maybe(ours(
                "last_delivery_timestamp_seconds",
                "When this replica delivered last, Unix time; absent before it has.",
            ))?,
            pushes: make.counters(
                reference("server_secret_pushes_total", "The total number of secrets pushed. Attempts, failed ones included.").by(APPROLE),
            )?,
            push_failures: make.counters(
                reference("server_secret_push_failures_total", "The total number of secret pushes that failed: any answer but that it is done.")
                    .by(APPROLE),
            )?,
            outcomes: make.counters(ours("push_outcomes_total", "Pushes by how they ended.").by(OUTCOMES))?,
            queued: make.gauge(ours("queue_pods", "Pods that are due and wait for a free worker; the leader knows."))?,
            in_flight: make.gauge(ours("in_flight_pods", "Pods that a worker is busy with; the leader knows."))?,
            limited: make
                .counters(ours("limited_total", "Deliveries that had to wait for a limit, by limit.").by(LIMITS))?,
            incidents: make
                .counters(ours("incidents_total", "What an operator should know of, by kind.").by(INCIDENTS))?,
            neutralised: make.counters(
                ours(
                    "secret_ids_neutralised_total",
                    "secret_ids that were refused or never sent, by how they were put out of the world.",
                )
                .by(WAYS_OUT),
            )?,
            roles: Roles::default(),
        })
    }

    pub(super) fn observe(&self, seen: &Waiting) {
        self.waiting.set(whole(seen.pods));
        self.oldest_waiting.set(whole(seen.oldest.as_secs()));
        self.refused_pods.set(whole(seen.refused));
    }
}

fn how_label(how: Neutralised) -> &'static str {
    match how {
        Neutralised::Destroyed => "destroyed",
        Neutralised::Unwrapped => "unwrapped",
        Neutralised::LeftToExpire => "left_to_expire",
    }
}

impl Meter for Metrics {
    fn secret_id_requested(&self, role: &RoleName, trouble: Option<&VaultTrouble>) {
        let label = self.delivery.roles.label(role, trouble.is_none());
        self.vault.requested(label, trouble);
    }

    fn pushed(&self, role: &RoleName, answer: &Answer) {
        let label = self.delivery.roles.label(role, false);
        self.delivery.pushes.with_label_values(&[label]).inc();
        self.delivery.outcomes.with_label_values(&[answer.label()]).inc();
        if answer.meaning() != Meaning::Accepted {
            self.delivery.push_failures.with_label_values(&[label]).inc();
        }
    }

    fn delivered(&self, after: Duration) {
        self.delivery.delivery.observe(after.as_secs_f64());
        self.delivery.last.set(Some(self.now_seconds()));
    }

    fn happened(&self, what: Incident, times: u64) {
        self.delivery.incidents.with_label_values(&[what.label()]).inc_by(times);
    }

    fn neutralised(&self, how: Neutralised) {
        self.delivery.neutralised.with_label_values(&[how_label(how)]).inc();
    }

    fn limited(&self, limit: Limit) {
        self.delivery.limited.with_label_values(&[limit.label()]).inc();
    }

    fn load(&self, queued: usize, in_flight: usize) {
        self.delivery.queued.set(whole(queued as u64));
        self.delivery.in_flight.set(whole(in_flight as u64));
    }
}
