//! Pods for the unit tests of this folder.

use crate::domain::ids::{ContainerId, PodRef, PodUid};
use crate::domain::pod::{ContainerState, ContainerStatus, Phase, Pod, Target, Wish};

/// A pod that waits for us, at `address`, its init container's id derived from its name.
pub(crate) fn pod(name: &str, address: &str) -> Pod {
    Pod {
        reference: PodRef {
            namespace: "apps".into(),
            name: name.into(),
            uid: PodUid::from(format!("uid-{name}").as_str()),
        },
        node: "node-1".into(),
        service_account: "default".into(),
        host_network: false,
        deleting: false,
        phase: Phase::Pending,
        ips: vec![address.parse().unwrap()],
        wish: Some(Wish {
            role: Some("sample-app".into()),
            container: Some("install".into()),
            target: Target::Init {
                sidecar: false,
                never_restarts: false,
                restarts: 0,
                status: ContainerStatus { state: running(&format!("containerd://{name}-0")), last: None },
            },
        }),
    }
}

/// `running` under that container id.
pub(crate) fn running(id: &str) -> ContainerState {
    ContainerState::Running { id: Some(ContainerId::from(id)), since: None }
}

/// The same pod with its init container in another state.
pub(crate) fn with_status(mut pod: Pod, state: ContainerState) -> Pod {
    if let Some(Wish { target: Target::Init { status, .. }, .. }) = &mut pod.wish {
        status.state = state;
    }
    pod
}
