//! `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, as Go reads them: that is how the reference did.
//!
//! Pure but for reading the environment once. `ALL_PROXY` is not read, and a loopback address is never proxied.

use std::net::IpAddr;

use reqwest::{NoProxy, Proxy};
use url::{Host, Url};

use super::error::Fatal;

/// What the environment says about proxies. A proxy's address may hold a password: no `Debug`.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    pub(super) http: Option<String>,
    pub(super) https: Option<String>,
    pub(super) none_for: Option<String>,
}

impl Proxies {
    /// Reads the environment.
    pub(super) fn from_env() -> Self {
        let first = |names: [&str; 2]| {
            names.into_iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty())
        };
        Self {
            http: first(["HTTP_PROXY", "http_proxy"]),
            https: first(["HTTPS_PROXY", "https_proxy"]),
            none_for: first(["NO_PROXY", "no_proxy"]),
        }
    }

    /// The proxy for `target`, if there is one.
    pub(super) fn for_url(&self, target: &Url) -> Result<Option<Proxy>, Fatal> {
        let (variable, address) = match target.scheme() {
            "https" => ("HTTPS_PROXY", &self.https),
            _ => ("HTTP_PROXY", &self.http),
        };
        let Some(address) = address else { return Ok(None) };
        if is_loopback(target) {
            return Ok(None);
        }
        // Go takes `proxy:3128` for `http://proxy:3128`.
        let address = if address.contains("://") { address.clone() } else { format!("http://{address}") };
        let parsed = Url::parse(&address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let parsed = parsed.ok_or(Fatal::Proxy { variable })?;
        let proxy = Proxy::all(parsed).map_err(|_| Fatal::Proxy { variable })?;
        Ok(Some(proxy.no_proxy(self.none_for.as_deref().and_then(NoProxy::from_string))))
    }
}

fn is_loopback(target: &Url) -> bool {
    match target.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}
