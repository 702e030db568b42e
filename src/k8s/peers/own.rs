//! Which of the pods is ours.

use std::net::{IpAddr, UdpSocket};

use super::{PeerDirectory, PeersError};
use crate::domain::ids::PodUid;

/// What is known of our own pod before anybody is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPod {
    /// Its UID, from the downward API or from our mounts: then nobody is asked.
    pub uid: Option<PodUid>,
    /// Its name.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
}

impl OwnPod {
    /// `POD_UID`, `POD_NAME` (else `HOSTNAME`, which a pod gets from its name) and `POD_NAMESPACE`.
    pub fn from_env() -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            uid: given("POD_UID").map(|uid| PodUid::from(uid.as_str())),
            name: given("POD_NAME").or_else(|| given("HOSTNAME")),
            namespace: given("POD_NAMESPACE"),
        }
    }
}

impl PeerDirectory {
    /// The UID of our own pod: as `known`, else that of the peer or the pod of our name, else that of the one peer
    /// whose address is ours. `None`: we are not one of the service's pods, or not listed yet.
    ///
    /// # Errors
    /// The peers could not be read.
    pub async fn own_pod(&self, known: &OwnPod) -> Result<Option<PodUid>, PeersError> {
        self.own_pod_with(known, is_local).await
    }

    pub(super) async fn own_pod_with(
        &self,
        known: &OwnPod,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<PodUid>, PeersError> {
        if known.uid.is_some() {
            return Ok(known.uid.clone());
        }
        if known.namespace.as_deref().is_some_and(|namespace| *namespace != *self.namespace) {
            return Ok(None);
        }
        let peers = self.list().await?;
        if let Some(name) = known.name.as_deref() {
            // Needs no right on pods.
            if let Some(peer) = peers.iter().find(|peer| *peer.pod == *name && !peer.terminating) {
                return Ok(Some(peer.uid.clone()));
            }
            match self.pod_named(name).await {
                Ok(Some(pod)) => return Ok(pod.metadata.uid.map(|uid| PodUid::from(uid.as_str()))),
                Ok(None) => {}
                Err(error) if error.is_forbidden() => self.warn_of_pods(&error),
                Err(error) => return Err(error),
            }
        }
        let mut ours = peers.into_iter().filter(|peer| peer.addresses.iter().any(|ip| is_local(*ip)));
        // Two pods of one node in its network have one address: that proves nothing.
        Ok(ours.next().filter(|_| ours.next().is_none()).map(|peer| peer.uid))
    }
}

/// Whether a socket may have that address: only this machine's, or this pod's, addresses can be bound.
pub(super) fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
