//! Addresses to listen on.
//!
//! Owns the grammar of `prometheus.address` and `health.address`. Pure: binds nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::lenient::{Context, Section};

/// `:PORT`, `IPv4:PORT` or `[IPv6]:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAddr {
    /// The address to listen on; none means all of them, IPv4 and IPv6.
    pub ip: Option<IpAddr>,
    /// The TCP port; 0 lets the kernel choose.
    pub port: u16,
}

impl ListenAddr {
    /// A port on all addresses.
    pub const fn port(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// Whether a socket on one would take the other's place.
    pub(super) fn collides(&self, other: &Self) -> bool {
        let all = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        self.port == other.port && self.port != 0 && (all(self.ip) || all(other.ip) || self.ip == other.ip)
    }
}

impl FromStr for ListenAddr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            return port.parse().map(Self::port).map_err(drop);
        }
        let address: SocketAddr = text.parse().map_err(drop)?;
        Ok(Self { ip: Some(address.ip()), port: address.port() })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// The key `address` of `section`.
pub(super) fn read(section: &Section<'_>, default: ListenAddr, cx: &mut Context<'_>) -> ListenAddr {
    let Some(setting) = section.text("address", cx) else {
        return default;
    };
    setting.value.parse().unwrap_or_else(|()| {
        cx.problem(&setting.spot, "must be an address to listen on: :PORT, IPv4:PORT or [IPv6]:PORT");
        default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, want) in [(":80", ":80"), ("8080", ":8080"), ("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:9", "[::1]:9")]
        {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), want);
        }
        for text in ["", ":", "localhost:80", "1.2.3.4", "::1:80", ":65536", ":-1", ":+1", " :80"] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn collisions() {
        let at = |text: &str| text.parse::<ListenAddr>().unwrap();
        assert!(at(":80").collides(&at("127.0.0.1:80")));
        assert!(at("0.0.0.0:80").collides(&at("127.0.0.1:80")));
        assert!(!at("127.0.0.2:80").collides(&at("127.0.0.1:80")));
        assert!(!at(":80").collides(&at(":81")) && !at(":0").collides(&at(":0")));
    }
}
