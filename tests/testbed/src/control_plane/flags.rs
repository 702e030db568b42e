//! The servers' command lines. Pure: a directory and an address give a list of flags.

use std::net::Ipv4Addr;
use std::path::Path;

use super::{API_PORT, ControlPlaneOptions};
use crate::network::SERVICE_RANGE;

/// Who asked for what, without bodies: enough to count requests.
pub(super) const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
/// Enough for a few hundred pods at once; the defaults (20 and 30 a second) would be what a case measures.
const CLIENT_RATE: [&str; 2] = ["--kube-api-qps=1000", "--kube-api-burst=2000"];

/// etcd and its clients speak on a loopback address, which no pod can reach.
fn loopback(ip: Ipv4Addr) -> Ipv4Addr {
    let [.., last] = ip.octets();
    Ipv4Addr::new(127, 0, 0, last)
}

fn etcd_url(ip: Ipv4Addr) -> String {
    format!("http://{}:2379", loopback(ip))
}

pub(super) fn etcd(directory: &Path, ip: Ipv4Addr) -> Vec<String> {
    let client = etcd_url(ip);
    let peer = format!("http://{}:2380", loopback(ip));
    vec![
        "--name=testbed".into(),
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=testbed={peer}"),
        // The data is on a tmpfs: there is nothing to sync to.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(directory: &Path, ip: Ipv4Addr, options: &ControlPlaneOptions) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers={}", etcd_url(ip)),
        format!("--bind-address={ip}"),
        format!("--advertise-address={ip}"),
        format!("--secure-port={API_PORT}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=Node,RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ];
    if options.audit {
        flags.push(format!("--audit-policy-file={}", file("audit-policy.yaml")));
        flags.push(format!("--audit-log-path={}", file("audit.log")));
        // One file: a case that counts must not miss what was rotated away.
        flags.push("--audit-log-maxsize=1000000".into());
    }
    flags.extend(options.api_server_flags.iter().cloned());
    flags
}

pub(super) fn controller_manager(directory: &Path, ip: Ipv4Addr) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut flags = vec![
        format!("--kubeconfig={}", file("system-kube-controller-manager.kubeconfig")),
        "--use-service-account-credentials".into(),
        format!("--service-account-private-key-file={}", file("accounts.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        "--leader-elect=false".into(),
        format!("--bind-address={}", loopback(ip)),
        "--profiling=false".into(),
    ];
    flags.extend(CLIENT_RATE.map(str::to_owned));
    flags
}

pub(super) fn scheduler(directory: &Path, ip: Ipv4Addr) -> Vec<String> {
    let mut flags = vec![
        format!("--kubeconfig={}", directory.join("system-kube-scheduler.kubeconfig").display()),
        "--leader-elect=false".into(),
        format!("--bind-address={}", loopback(ip)),
        "--profiling=false".into(),
    ];
    flags.extend(CLIENT_RATE.map(str::to_owned));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_is_an_option() {
        let ip = Ipv4Addr::new(10, 76, 0, 11);
        let has_audit = |audit| {
            let options = ControlPlaneOptions { audit, ..ControlPlaneOptions::default() };
            let flags = api_server(Path::new("/x"), ip, &options);
            flags.contains(&"--audit-log-path=/x/audit.log".to_owned())
        };
        assert!(has_audit(true));
        assert!(!has_audit(false));
    }

    #[test]
    fn two_testbeds_have_two_etcds() {
        assert_ne!(etcd_url(Ipv4Addr::new(10, 76, 0, 11)), etcd_url(Ipv4Addr::new(10, 76, 0, 12)));
    }
}
