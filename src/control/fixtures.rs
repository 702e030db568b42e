//! A replica that is well, for tests.

use super::{Ledger, Log, Member, MemberKind, Progress, Role, Status, Storage};

pub(super) fn status() -> Status {
    let member = |node: &str, host: u8, pod: &str, lag, acknowledged_ms, reachable| Member {
        node: node.to_owned(),
        address: format!("10.88.0.{host}:45679"),
        pod: Some(pod.to_owned()),
        kind: MemberKind::Voter,
        progress: Some(Progress { lag, acknowledged_ms }),
        reachable,
    };
    Status {
        version: "0.1.0".to_owned(),
        node: "a1b2c3d4e5f60718".to_owned(),
        pod: Some("kubernetes-vault-7d9c5b7f4-x2k8p".to_owned()),
        cluster: Some("00c0ffee00c0ffee".to_owned()),
        epoch: 1,
        role: Role::Leader,
        term: 7,
        leader: Some("a1b2c3d4e5f60718".to_owned()),
        log: Log { committed: Some(8120), applied: Some(8120), last: Some(8121), snapshot: None },
        members: vec![
            member("a1b2c3d4e5f60718", 10, "kubernetes-vault-7d9c5b7f4-x2k8p", 0, None, Some(true)),
            member("0f1e2d3c4b5a6978", 11, "kubernetes-vault-7d9c5b7f4-9wq4z", 1, Some(12), Some(true)),
            member("77665544332211ff", 12, "kubernetes-vault-7d9c5b7f4-mm7rt", 8121, Some(83_000), Some(false)),
        ],
        ledger: Ledger { entries: 42, open: 1, tombstones: 41 },
        storage: Storage {
            directory: "/var/lib/kubernetes-vault/".to_owned(),
            bytes: Some(12_897_485),
            bound_to_pod: true,
        },
        forming: None,
        identity: "a key derived from vault.token".to_owned(),
        another_cluster_met_ms: None,
    }
}
