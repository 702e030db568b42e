//! From EndpointSlices, or from Endpoints, to peers.
//!
//! Pure. One peer for each pod, whatever it is spread over: families have slices of their own, and an endpoint that
//! moves from one slice to another is in both for a while. Must never read a port: none of what is decided depends on
//! them, and a service of an installation may name other ones.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Peer;
use crate::domain::ids::PodUid;

/// Set by the API server's controller on Endpoints that it cut off.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

#[derive(Default)]
struct Collected(BTreeMap<String, Peer>);

impl Collected {
    /// What is known of a pod in one place. An endpoint that is no pod is no peer: somebody wrote it by hand.
    fn add(&mut self, target: Option<&ObjectReference>, addresses: &[String], ready: bool, terminating: bool) {
        let Some(target) = target.filter(|target| target.kind.as_deref().is_none_or(|kind| kind == "Pod")) else {
            return;
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (Some(uid), Some(name)) = (given(&target.uid), given(&target.name)) else { return };
        let peer = self.0.entry(uid).or_insert_with_key(|uid| Peer {
            uid: PodUid::from(uid.as_str()),
            pod: name.into(),
            addresses: Vec::new(),
            ready: false,
            terminating: false,
        });
        // Slices of the kind FQDN hold names.
        peer.addresses.extend(addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
        peer.ready |= ready;
        // A pod that is being deleted stays so: whoever says otherwise is behind.
        peer.terminating |= terminating;
    }

    fn finish(self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.0.into_values().collect();
        for peer in &mut peers {
            peer.addresses.sort_unstable();
            peer.addresses.dedup();
        }
        peers
    }
}

pub(super) fn from_slices(slices: &[EndpointSlice]) -> Vec<Peer> {
    let mut collected = Collected::default();
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
        let conditions = endpoint.conditions.as_ref();
        // `serving` is what the readiness probe says. `ready` says yes to whatever a service publishes unready.
        let ready = conditions.and_then(|conditions| conditions.serving.or(conditions.ready)).unwrap_or(true);
        let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
        collected.add(endpoint.target_ref.as_ref(), &endpoint.addresses, ready, terminating);
    }
    collected.finish()
}

pub(super) fn from_endpoints(endpoints: &Endpoints) -> Vec<Peer> {
    let mut collected = Collected::default();
    for subset in endpoints.subsets.iter().flatten() {
        for (addresses, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            for address in addresses.iter().flatten() {
                collected.add(address.target_ref.as_ref(), std::slice::from_ref(&address.ip), ready, false);
            }
        }
    }
    collected.finish()
}

pub(super) fn is_truncated(endpoints: &Endpoints) -> bool {
    let annotations = endpoints.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(OVER_CAPACITY)).is_some_and(|value| value == "truncated")
}

/// All addresses, ready or not, of pods or not.
pub(super) fn count(endpoints: &Endpoints) -> usize {
    let addresses = |addresses: &Option<Vec<_>>| addresses.as_ref().map_or(0, Vec::len);
    let subsets = endpoints.subsets.iter().flatten();
    subsets.map(|subset| addresses(&subset.addresses) + addresses(&subset.not_ready_addresses)).sum()
}
