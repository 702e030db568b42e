//! The table of cases.

use futures::future::FutureExt as _;

use super::bed::Case;
use super::{inside, order, replicas, servers};

/// Each with the name under which it is chosen.
pub(crate) const ALL: [(&str, Case); 22] = [
    ("statuses_come_in_the_kubelets_order", |bed| order::statuses(bed).boxed_local()),
    ("a_container_killed_in_place_restarts", |bed| order::killed_in_place(bed).boxed_local()),
    ("a_new_sandbox_has_a_new_address", |bed| order::new_sandbox(bed).boxed_local()),
    ("environment_and_volumes", |bed| inside::environment(bed).boxed_local()),
    ("mountinfo_names_the_pod", |bed| inside::mountinfo(bed).boxed_local()),
    ("a_failing_container_backs_off", |bed| order::back_off(bed).boxed_local()),
    ("sigterm_comes_before_sigkill", |bed| order::graceful(bed).boxed_local()),
    ("unknown_fields_are_refused", |bed| order::refused(bed).boxed_local()),
    ("links_can_be_cut", |bed| inside::cut(bed).boxed_local()),
    ("probes_and_sidecars", |bed| inside::probes(bed).boxed_local()),
    ("simulated_pods_take_any_status", |bed| servers::simulated(bed).boxed_local()),
    ("requests_are_audited", |bed| servers::audited(bed).boxed_local()),
    ("services_have_names", |bed| inside::names(bed).boxed_local()),
    ("volumes_follow_their_config_map", |bed| inside::changed_volume(bed).boxed_local()),
    ("host_network_is_the_node's", |bed| inside::host_network(bed).boxed_local()),
    ("two_testbeds_run_side_by_side", |bed| servers::second_testbed(bed).boxed_local()),
    ("a_pod_reaches_the_api_server", |bed| inside::api_server_from_a_pod(bed).boxed_local()),
    ("storage_goes_with_the_container_the_pod_or_neither", |bed| replicas::storage(bed).boxed_local()),
    ("replicas_of_a_stateful_set_see_each_other_in_any_state", |bed| replicas::stateful_set(bed).boxed_local()),
    ("replicas_of_a_deployment_are_endpoints", |bed| replicas::deployment(bed).boxed_local()),
    ("the_api_server_can_be_restarted", |bed| servers::api_server_restart(bed).boxed_local()),
    ("vault_can_be_sealed", |bed| servers::vault_sealed(bed).boxed_local()),
];
