//! How many replicas there are: the addresses behind our own service.
//!
//! Uses `endpoints: get` alone, which is all that an unchanged installation grants. One read at start.

use k8s_openapi::api::core::v1::Endpoints;
use kube::Api;

use crate::causes::with_causes;

/// Counts the addresses of `service`, ready or not.
///
/// # Errors
/// What the API server said, in words.
pub async fn count(client: &kube::Client, namespace: &str, service: &str) -> Result<usize, String> {
    let api: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    let endpoints = api.get(service).await.map_err(|error| match error {
        // The library would print all fields of the answer.
        kube::Error::Api(status) => status.message,
        error => with_causes(&error),
    })?;
    let subsets = endpoints.subsets.unwrap_or_default();
    let addresses = |addresses: &Option<Vec<_>>| addresses.as_ref().map_or(0, Vec::len);
    Ok(subsets.iter().map(|subset| addresses(&subset.addresses) + addresses(&subset.not_ready_addresses)).sum())
}
