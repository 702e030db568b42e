//! The private network: a bridge, one namespace and one link for each pod, and cuts in both.
//!
//! Owns: every address of a testbed and the programs `ip` and `nft`.
//!
//! | addresses | what |
//! |---|---|
//! | 10.76.0.1 | the bridge, the pods' default route |
//! | 10.76.0.0/16 | the control plane and Vault of the n-th testbed: 10.76.0.(10 + n) |
//! | 10.76.(100 + n).i | node i of the n-th testbed |
//! | 10.77.0.0/16 | pods |
//! | 10.96.0.0/16 | ClusterIPs |
//! | fd00:77::/64 | pods once more, where the testbed was built with IPv6 |
//! | 10.99.0.0/16 | all local: one process listens on all of them, for simulated receivers |
//!
//! Must never happen: that an address goes to a second pod by itself. A case that wants an address
//! used again asks for it by the annotation [`IP_ANNOTATION`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;

/// The bridge's address.
pub const BRIDGE_IP: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 1);
/// The bridge's link address. Left alone, a bridge takes the lowest one of its ports: a pod that comes or goes changes
/// it, and those who know the old one reach nobody until they ask again, for up to half a minute.
const BRIDGE_LINK_ADDRESS: &str = "02:76:00:00:00:01";

/// The bridge's IPv6 address, in use only where a testbed was built with it.
pub const BRIDGE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
/// A pod with this annotation gets this address, whoever had it before.
pub const IP_ANNOTATION: &str = "testbed/ip";
/// The range in which every address is local: simulated receivers listen there.
pub const SIMULATED: &str = "10.99.0.0/16";
/// ClusterIPs.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The `kubernetes` service: the first address of the range.
pub(crate) const KUBERNETES_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const BRIDGE: &str = "br0";
/// Nodes and pods share one link, so the prefix covers 10.76 and 10.77.
const PREFIX_LENGTH: u8 = 15;
/// First pod address, 10.77.0.2; the last is 10.77.255.254.
const FIRST_POD: u32 = u32::from_be_bytes([10, 77, 0, 2]);
const LAST_POD: u32 = u32::from_be_bytes([10, 77, 255, 254]);
/// Kernel names of interfaces have 15 characters at most; this leaves room for the number.
const LINK_PREFIX: &str = "veth";

static NEXT_POD: AtomicU32 = AtomicU32::new(FIRST_POD);

/// A pod's own network: namespace, link and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// Name of the namespace, under `/run/netns`.
    pub namespace: String,
    /// The end of the link that is in the bridge.
    pub link: String,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Its second one, where the testbed was built with IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// One way through a pod's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets that the pod would get.
    In,
    /// Packets that the pod sends.
    Out,
}

/// Makes the bridge and its routes. Runs before a thread starts, hence not async.
pub(crate) fn set_up() -> Result<()> {
    let batch = format!(
        "link set lo up\n\
         link add {BRIDGE} address {BRIDGE_LINK_ADDRESS} type bridge forward_delay 0 mcast_snooping 0\n\
         addr add {BRIDGE_IP}/{PREFIX_LENGTH} dev {BRIDGE}\n\
         link set {BRIDGE} up\n\
         route add local {SIMULATED} dev lo\n"
    );
    run_batch_blocking(&batch)?;
    // `ip netns add` mounts its directory at the first call, and two first calls would race.
    for verb in ["add", "delete"] {
        run_blocking("ip", &["netns", verb, "first"])?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")?;
    Ok(())
}

/// The control plane's and Vault's address of the n-th testbed of this sandbox.
pub(crate) fn server_ip(testbed: u8) -> Ipv4Addr {
    let [a, b, c, _] = BRIDGE_IP.octets();
    // Ten keeps clear of the bridge; more than 245 testbeds in one process never happen.
    Ipv4Addr::new(a, b, c, testbed.saturating_add(10))
}

/// The address of node `index` (from 0) of the n-th testbed of this sandbox.
pub(crate) fn node_ip(testbed: u8, index: u8) -> Ipv4Addr {
    let [a, b, ..] = BRIDGE_IP.octets();
    Ipv4Addr::new(a, b, testbed.saturating_add(100), index.saturating_add(1))
}

/// Gives the bridge one more address.
pub async fn add_address(ip: Ipv4Addr) -> Result<()> {
    let address = format!("{ip}/{PREFIX_LENGTH}");
    run("ip", &["addr", "replace", &address, "dev", BRIDGE]).await
}

/// Lets the bridge speak IPv6.
pub(crate) async fn add_ipv6() -> Result<()> {
    let address = format!("{BRIDGE_IPV6}/64");
    run("ip", &["addr", "replace", &address, "dev", BRIDGE, "nodad"]).await
}

/// The IPv6 address of a pod: its other address, behind the common prefix.
fn ipv6_of(ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = ip.octets();
    let [p, q, ..] = BRIDGE_IPV6.segments();
    Ipv6Addr::new(p, q, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// The next pod address that nobody had.
pub(crate) fn next_pod_ip() -> Result<Ipv4Addr> {
    let ip = NEXT_POD.fetch_add(1, Ordering::Relaxed);
    if ip > LAST_POD {
        bail!("all of 10.77.0.0/16 was given to pods: start a new testbed");
    }
    Ok(Ipv4Addr::from(ip))
}

impl PodNetwork {
    /// Makes namespace and link. The number in their names is never used twice.
    pub(crate) async fn create(ip: Ipv4Addr, with_ipv6: bool) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let network = Self {
            namespace: format!("pod{number}"),
            link: format!("{LINK_PREFIX}{number}"),
            ip,
            ipv6: with_ipv6.then(|| ipv6_of(ip)),
        };
        let (namespace, link) = (&network.namespace, &network.link);
        run("ip", &["netns", "add", namespace]).await?;
        run_batch(
            &[],
            &format!(
                "link add {link} type veth peer name eth0 netns {namespace}\n\
                 link set {link} master {BRIDGE} up\n"
            ),
        )
        .await?;
        let mut batch = format!(
            "link set lo up\n\
             addr add {ip}/{PREFIX_LENGTH} dev eth0\n\
             link set eth0 up\n\
             route add default via {BRIDGE_IP}\n"
        );
        if let Some(ipv6) = network.ipv6 {
            // Nobody else can have it: waiting for duplicates would cost a second.
            batch.push_str(&format!("addr add {ipv6}/64 dev eth0 nodad\nroute add default via {BRIDGE_IPV6}\n"));
        }
        run_batch(&["-n", namespace], &batch).await?;
        Ok(network)
    }

    /// Removes namespace and link, whatever of them is left.
    pub(crate) async fn remove(&self) {
        // The link may have gone with its peer; what stays behind dies with the sandbox.
        let _ = run("ip", &["link", "delete", &self.link]).await;
        let _ = run("ip", &["netns", "delete", &self.namespace]).await;
    }

    /// All its addresses, in the order in which the status shows them.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        [IpAddr::V4(self.ip)].into_iter().chain(ipv6).collect()
    }

    /// Pulls the pod's cable.
    pub async fn cut(&self) -> Result<()> {
        run("ip", &["link", "set", &self.link, "down"]).await
    }

    /// Puts the cable back. The kernel may take up to a second to use it again.
    pub async fn mend(&self) -> Result<()> {
        run("ip", &["link", "set", &self.link, "up"]).await
    }

    /// Drops the packets of one direction silently, from or to `peer` or everybody.
    pub async fn drop_packets(&self, direction: Direction, peer: Option<IpAddr>) -> Result<()> {
        let (hook, side) = match direction {
            Direction::In => ("input", "saddr"),
            Direction::Out => ("output", "daddr"),
        };
        let matches = match peer {
            Some(IpAddr::V4(peer)) => format!("ip {side} {peer} "),
            Some(IpAddr::V6(peer)) => format!("ip6 {side} {peer} "),
            None => String::new(),
        };
        let rules = format!(
            "add table inet cut\n\
             add chain inet cut {hook} {{ type filter hook {hook} priority 0; }}\n\
             add rule inet cut {hook} {matches}drop\n"
        );
        run_nft(Some(&self.namespace), &rules).await
    }

    /// Drops all packets from and to `peers` silently, both ways at one moment.
    pub async fn part_from(&self, peers: &[Ipv4Addr]) -> Result<()> {
        let mut rules = String::from(
            "add table inet cut\n\
             add chain inet cut input { type filter hook input priority 0; }\n\
             add chain inet cut output { type filter hook output priority 0; }\n",
        );
        for peer in peers {
            rules.push_str(&format!("add rule inet cut input ip saddr {peer} drop\n"));
            rules.push_str(&format!("add rule inet cut output ip daddr {peer} drop\n"));
        }
        run_nft(Some(&self.namespace), &rules).await
    }

    /// Takes back every [`drop_packets`](Self::drop_packets) and [`part_from`](Self::part_from).
    pub async fn let_packets_through(&self) -> Result<()> {
        run_nft(Some(&self.namespace), "add table inet cut\ndelete table inet cut\n").await
    }
}

/// Feeds rules to `nft`, in a pod's namespace or (`None`) in the one of the servers.
pub async fn run_nft(namespace: Option<&str>, rules: &str) -> Result<()> {
    match namespace {
        Some(name) => feed("ip", &["netns", "exec", name, "nft", "-f", "-"], rules).await,
        None => feed("nft", &["-f", "-"], rules).await,
    }
}

async fn run_batch(options: &[&str], batch: &str) -> Result<()> {
    let mut arguments = options.to_vec();
    arguments.extend(["-batch", "-"]);
    feed("ip", &arguments, batch).await
}

async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    feed(program, arguments, "").await
}

async fn feed(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing(program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes its input; its exit code and message tell why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    check(program, arguments, input, &output)
}

fn run_batch_blocking(batch: &str) -> Result<()> {
    use std::io::Write as _;
    let mut child = std::process::Command::new("ip")
        .args(["-batch", "-"])
        // Ctrl-C on the terminal is for the program, and waits for it in the pipe.
        .process_group(0)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing("ip"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(batch.as_bytes());
    }
    check("ip", &["-batch"], batch, &child.wait_with_output()?)
}

fn run_blocking(program: &str, arguments: &[&str]) -> Result<()> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .process_group(0)
        .output()
        .with_context(|| missing(program))?;
    check(program, arguments, "", &output)
}

fn check(program: &str, arguments: &[&str], input: &str, output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    bail!("{program} {} failed: {}\n{input}", arguments.join(" "), message.trim())
}

fn missing(program: &str) -> String {
    format!("cannot start {program} (Debian, Ubuntu: apt install iproute2 nftables)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_addresses_are_never_given_twice() {
        let first = next_pod_ip().unwrap();
        let second = next_pod_ip().unwrap();
        assert_ne!(first, second);
        assert_eq!(first.octets()[..2], [10, 77]);
    }

    #[test]
    fn both_addresses_of_a_pod_belong_together() {
        assert_eq!(ipv6_of(Ipv4Addr::new(10, 77, 1, 2)).to_string(), "fd00:77::a4d:102");
    }

    #[test]
    fn testbeds_and_nodes_have_addresses_of_their_own() {
        assert_eq!(server_ip(1), Ipv4Addr::new(10, 76, 0, 11));
        assert_eq!(node_ip(1, 0), Ipv4Addr::new(10, 76, 101, 1));
        assert_ne!(node_ip(1, 1), node_ip(2, 1));
    }
}
