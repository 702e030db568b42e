//! The key `raft.peers`.
//!
//! Owns the grammar of a peer's address. Pure: resolves nothing.

use std::fmt;
use std::net::Ipv6Addr;

use rustls::pki_types::ServerName;

use super::lenient::{Context, Section};

/// Where replicas listen for each other, as the Go version's do.
const RAFT_PORT: u16 = 45_679;

/// `host` or `host:port`; the host is a DNS name, an IPv4 address or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddr {
    /// DNS name or IP address, an IPv6 address without its brackets.
    pub host: String,
    /// The Raft port where it is not the usual one.
    pub port: Option<u16>,
}

impl PeerAddr {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        ServerName::try_from(host).ok()?;
        let port = match port {
            // `parse` would take a sign.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port != 0)?)
            }
            Some(_) => return None,
            None => None,
        };
        Some(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The key `peers` of `section`.
pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Vec<PeerAddr> {
    let mut peers = Vec::new();
    for setting in section.list("peers", cx).map(|setting| setting.value).unwrap_or_default() {
        match PeerAddr::parse(setting.value.trim()) {
            Some(PeerAddr { port: Some(port), .. }) if port != RAFT_PORT => {
                cx.problem(
                    &setting.spot,
                    format!("has the port {port}; all replicas listen on {RAFT_PORT}: leave it out"),
                );
            }
            Some(peer) if peers.contains(&peer) => cx.problem(&setting.spot, "names a peer for the second time"),
            Some(peer) => peers.push(peer),
            None => cx.problem(
                &setting.spot,
                "must be the address of a peer: a DNS name or an IP address, IPv6 in brackets, with :PORT or without",
            ),
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, host, port) in [
            ("kv-0", "kv-0", None),
            ("KV-0.kv.svc:45679", "kv-0.kv.svc", Some(45679)),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:1", "10.0.0.1", Some(1)),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:45679", "fd00::1", Some(45679)),
        ] {
            let peer = PeerAddr::parse(text).unwrap();
            assert_eq!((peer.host.as_str(), peer.port), (host, port), "{text}");
            assert_eq!(peer.to_string(), text.to_lowercase());
        }
        for text in [
            "", ":1", "a:", "a:0", "a:+1", "a:65536", "a b", "a:1:2", "fd00::1", "[a]:1", "[::1", "[::1]1", "http://a",
            "a/b",
        ] {
            assert_eq!(PeerAddr::parse(text), None, "{text}");
        }
    }
}
