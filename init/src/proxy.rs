//! Which proxy a call to Vault goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go programs read them.
//!
//! Must never: print a proxy's address with the password in it.

use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::endpoint::Endpoint;

/// A proxy, and what it wants to see.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) endpoint: Endpoint,
    /// The value of Proxy-Authorization.
    pub(crate) authorization: Option<Zeroizing<String>>,
}

/// The three variables.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// One entry of NO_PROXY.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        bits: u32,
        port: Option<u16>,
    },
    /// A domain. `itself`: it matches too, not only what is below it.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the variables; the upper-case name wins over the lower-case one.
    pub(crate) fn read(get: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let either = |upper: &'static str, lower: &str| get(upper).or_else(|| get(lower));
        let proxy = |upper: &'static str, lower: &str| {
            either(upper, lower)
                .map(|text| Proxy::parse(&text).map_err(|e| format!("Invalid {upper}: {e}.")))
                .transpose()
        };
        Ok(Self {
            http: proxy("HTTP_PROXY", "http_proxy")?,
            https: proxy("HTTPS_PROXY", "https_proxy")?,
            exceptions: either("NO_PROXY", "no_proxy")
                .map(|text| text.split(',').filter_map(Exception::parse).collect())
                .unwrap_or_default(),
        })
    }

    /// The proxy for calls to `target`; `None`: straight there.
    pub(crate) fn for_target(&self, target: &Endpoint) -> Option<&Proxy> {
        let proxy = if target.https { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = target.host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        // As Go: what is on this machine is never behind a proxy.
        let local = host == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback());
        let excepted = local || self.exceptions.iter().any(|e| e.matches(&host, address, target.port));
        (!excepted).then_some(proxy)
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Some((scheme, rest)) = full.split_once("://") else {
            return Err("not a URL".to_owned());
        };
        if scheme.starts_with("socks") {
            return Err("SOCKS proxies are not supported, only http:// and https:// ones".to_owned());
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, _) = rest.split_at(authority_end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let mut endpoint = Endpoint::parse(&format!("{scheme}://{host}"))?;
        // A proxy without a port: Go takes the scheme's own, as for any URL.
        endpoint.base.clear();
        let authorization = user.map(|user| {
            let plain = Zeroizing::new(percent_decoded(user));
            let plain = if plain.contains(&b':') { plain } else { Zeroizing::new([&plain[..], b":"].concat()) };
            Zeroizing::new(format!("Basic {}", wire::base64_encode(&plain)))
        });
        Ok(Self { endpoint, authorization })
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        if let Some(byte) = hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            out.push(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|&bits| bits <= width(address))?;
            return Some(Self::Network { address, bits, port: None });
        }
        let (host, port) = split_port(&entry);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Network { address, bits: width(address), port });
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        Some(match host.strip_prefix('.') {
            Some(suffix) => Self::Domain { suffix: suffix.to_owned(), itself: false, port },
            None => Self::Domain { suffix: host.to_owned(), itself: true, port },
        })
    }

    fn matches(&self, host: &str, ip: Option<IpAddr>, target_port: u16) -> bool {
        let port_fits = |port: &Option<u16>| port.is_none_or(|port| port == target_port);
        match self {
            Self::All => true,
            Self::Network { address, bits, port } => {
                port_fits(port) && ip.is_some_and(|ip| same_network(ip.to_canonical(), *address, *bits))
            }
            Self::Domain { suffix, itself, port } => {
                let below = host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'));
                port_fits(port) && (below || (*itself && host == suffix))
            }
        }
    }
}

/// Splits `host:port` and `[v6]:port`; a bare IPv6 address has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(inner) = entry.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':').and_then(|port| port.parse().ok())),
            None => (entry, None),
        };
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

const fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_network(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    let differing = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(env: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::read(&|name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    }

    fn used(env: &[(&str, &str)], target: &str) -> Option<String> {
        let proxies = proxies(env).ok().unwrap();
        proxies.for_target(&Endpoint::parse(target).unwrap()).map(|proxy| proxy.endpoint.authority.clone())
    }

    #[test]
    fn each_scheme_has_its_own() {
        let env = [("HTTP_PROXY", "http://a:1"), ("http_proxy", "http://b:1"), ("https_proxy", "c:3")];
        assert_eq!(used(&env, "http://vault:8200").as_deref(), Some("a:1"));
        assert_eq!(used(&env, "https://vault:8200").as_deref(), Some("c:3"));
        assert_eq!(used(&[("HTTP_PROXY", "a:1")], "https://vault"), None);
    }

    #[test]
    fn this_machine_is_never_behind_a_proxy() {
        for target in ["http://localhost:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://127.9.9.9"] {
            assert_eq!(used(&[("HTTP_PROXY", "a:1")], target), None, "{target}");
        }
    }

    #[test]
    fn exceptions_are_read_as_go_reads_them() {
        let excepted =
            |no_proxy: &str, target: &str| used(&[("HTTP_PROXY", "a:1"), ("no_proxy", no_proxy)], target).is_none();
        for (no_proxy, target) in [
            ("*", "http://vault"),
            ("x, vault.svc ,y", "http://vault.svc"),
            ("svc", "http://vault.svc"),
            (".svc", "http://vault.svc"),
            ("*.svc", "http://vault.svc"),
            ("VAULT.svc", "http://vault.SVC"),
            ("vault:8200", "http://vault:8200"),
            ("10.1.2.3", "http://10.1.2.3:8200"),
            ("10.1.2.3:8200", "http://10.1.2.3:8200"),
            ("10.0.0.0/8", "http://10.1.2.3:8200"),
            ("fd00::/8", "http://[fd00::1]:8200"),
            ("[fd00::1]:8200", "http://[fd00::1]:8200"),
            ("fd00::1", "http://[fd00::1]:8200"),
        ] {
            assert!(excepted(no_proxy, target), "{no_proxy} {target}");
        }
        for (no_proxy, target) in [
            ("", "http://vault"),
            (".svc", "http://svc"),
            ("svc", "http://vaultsvc"),
            ("vault:8201", "http://vault:8200"),
            ("10.1.2.3:1", "http://10.1.2.3:8200"),
            ("10.0.0.0/8", "http://11.1.2.3:8200"),
            ("10.0.0.0/99", "http://10.1.2.3:8200"),
            ("0.0.0.0/0", "http://[fd00::1]:8200"),
        ] {
            assert!(!excepted(no_proxy, target), "{no_proxy} {target}");
        }
    }

    #[test]
    fn a_user_and_password_become_a_header() {
        let proxies = proxies(&[("HTTP_PROXY", "http://us%65r:p%40ss@proxy:3128/")]).ok().unwrap();
        let proxy = proxies.http.unwrap();
        assert_eq!(proxy.endpoint.authority, "proxy:3128");
        assert_eq!(proxy.authorization.unwrap().as_str(), "Basic dXNlcjpwQHNz");
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for bad in ["socks5://user:hunter2@proxy:1", "ftp://user:hunter2@proxy", "http://user:hunter2@:x"] {
            let error = proxies(&[("HTTPS_PROXY", bad)]).err().unwrap();
            assert!(error.starts_with("Invalid HTTPS_PROXY") && !error.contains("hunter2"), "{error}");
        }
    }
}
