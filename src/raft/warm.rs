//! The ways to other voters are open before they are needed: an election is a question and its answer, without a
//! handshake.
//!
//! Owns when they are looked at. Must never be in the way of an election: who uses a way has it for itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::running::Running;

/// A look costs nothing where all are open.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the ways to the other voters open, for as long as it is polled.
pub(super) async fn always(running: Arc<Running>) {
    loop {
        let links = &running.links;
        let addresses: Vec<SocketAddr> = if running.is_voter() {
            let metrics = running.metrics();
            let membership = metrics.membership_config.membership();
            let others = membership.voter_ids().filter(|voter| *voter != running.identity.node);
            others.filter_map(|voter| Some(SocketAddr::new(membership.get_node(&voter)?.address, links.port))).collect()
        } else {
            Vec::new()
        };
        links.elections.keep(&links.network, &addresses).await;
        sleep(LOOK_EVERY).await;
    }
}
