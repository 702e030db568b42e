//! Where a server is: an `http` or `https` address, taken apart.
//!
//! Must never: repeat an address in an error. It may hold a password.

use std::fmt;

use hyper::Uri;

/// An `http` or `https` address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) https: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as written: what the Host header says.
    pub(crate) authority: String,
    /// The path before `/v1`, without a slash at its end.
    pub(crate) base: String,
}

impl Endpoint {
    /// Reads an address. The error does not repeat it: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("it does not start with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?.as_str();
        if authority.contains('@') {
            return Err("it holds a user or password".to_owned());
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.ends_with(':') {
            return Err("it names no host or port".to_owned());
        }
        Ok(Self {
            https,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether both are the same server, spoken to the same way.
    pub(crate) fn same_server(&self, other: &Self) -> bool {
        self.https == other.https && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let endpoint = Endpoint::parse("https://[fd00::1]:8200/vault/").unwrap();
        assert_eq!((endpoint.https, endpoint.host.as_str(), endpoint.port), (true, "fd00::1", 8200));
        assert_eq!((endpoint.authority.as_str(), endpoint.base.as_str()), ("[fd00::1]:8200", "/vault"));
        assert_eq!(Endpoint::parse("https://vault").unwrap().port, 443);
        assert_eq!(Endpoint::parse("HTTP://vault").unwrap().port, 80);
        assert_eq!(Endpoint::parse("http://vault:8200").unwrap().base, "");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for bad in [
            "",
            "vault:8200",
            "vault",
            "unix:///x",
            "http://",
            "http://:80",
            "http://v:",
            "http://a b",
            "http://u:hunter2@v",
            "http://v\n",
        ] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
