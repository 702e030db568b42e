//! What only a real kubelet shows: pods of every shape, nodes that are drained or lose their power, images that change.
//!
//! These run with `KV_E2E=kind` (docs/kind.md); the cases of the testbed that need no testbed run there as well.

pub(crate) mod figures;
pub(crate) mod lost_nodes;
pub(crate) mod reference;
pub(crate) mod shapes;
pub(crate) mod upgrade;

/// What one node and a few minutes are enough for: `make kind-smoke`.
pub(crate) const SMOKE: [&str; 9] = [
    "a_pod_holds_a_token_that_reads_a_secret",
    "the_three_modes_work_under_the_references_policy",
    "a_controller_killed_in_mid_delivery_serves_all_pods",
    "a_controller_that_is_replaced_loses_nothing",
    "a_pod_whose_sandbox_was_made_anew_is_served_at_its_new_address",
    "check_and_explain_in_the_pod_name_what_is_wrong",
    "namespaces_that_enforce_restricted_take_all_of_our_pods",
    "a_job_and_a_native_sidecar_get_a_token",
    "a_pod_runs_with_its_token_in_the_time_that_is_promised",
];
