//! What a certificate says of itself: when it is valid, and for whom it may be used.
//!
//! Owns the checks of a certificate that we are about to show to others. Pure.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain::ids::Timestamp;

/// When a certificate is valid, in Unix seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// From.
    pub not_before: i64,
    /// Until.
    pub not_after: i64,
}

impl Validity {
    /// Whether it is valid at `now`; if not, why.
    pub(super) fn check(self, now: Timestamp) -> Result<(), String> {
        let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
        if seconds > self.not_after {
            return Err(format!("it has expired {} s ago: renew it", seconds - self.not_after));
        }
        if seconds < self.not_before {
            return Err(format!("it is not valid for another {} s: is the clock right?", self.not_before - seconds));
        }
        Ok(())
    }
}

/// The validity of a chain: from when all of it is valid, until something in it is not.
pub(super) fn validity(chain: &[CertificateDer<'_>]) -> Result<Validity, String> {
    let mut all = Validity { not_before: i64::MIN, not_after: i64::MAX };
    for certificate in chain {
        let parsed = parse(certificate)?;
        let one = parsed.validity();
        all.not_before = all.not_before.max(one.not_before.timestamp());
        all.not_after = all.not_after.min(one.not_after.timestamp());
    }
    Ok(all)
}

/// When the first of the certificates in a PEM text runs out, in Unix seconds; `None` if there is none.
pub fn expiry(pem: &str) -> Option<i64> {
    let certificates = super::pem::certificates(pem.as_bytes()).ok()?;
    validity(&certificates).ok().map(|validity| validity.not_after)
}

/// Whether the first certificate of `chain` may be a server's at `now`; its validity if so.
pub(super) fn check_server(chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Validity, String> {
    let leaf = parse(chain.first().ok_or("there is no certificate")?)?;
    let usage = leaf.extended_key_usage().map_err(|_| "its extended key usage cannot be read")?;
    if usage.is_some_and(|usage| !usage.value.any && !usage.value.server_auth) {
        return Err("it is not for servers: its extended key usage lacks server authentication".to_owned());
    }
    // What else is in the chain may be a root that clients do not need.
    let own = leaf.validity();
    Validity { not_before: own.not_before.timestamp(), not_after: own.not_after.timestamp() }.check(now)?;
    validity(chain)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|_| "it is no X.509 certificate".to_owned())
}
