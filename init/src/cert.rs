//! The certificate this instance shows to whoever pushes: made at the start, known to nobody, kept in memory.
//!
//! The controller does not verify it; it keeps a listener on the wire from reading the wrapping token.
//!
//! Must never: write the key anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::clock;
use crate::exit::{Cause, Failure};

/// Clocks of node and controller differ; a certificate from the future helps nobody.
const BACKDATED_SECS: i64 = 300;

/// Even an instance that gives up within seconds shows a certificate that holds while it answers.
const LIFETIME_MIN: SignedDuration = SignedDuration::from_mins(1);

/// A TIMEOUT of centuries must not make a date that X.509 cannot write.
const LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);

/// The TLS side of the listener: a fresh key and certificate, TLS 1.3 and 1.2.
pub(crate) fn server(timeout: SignedDuration) -> Result<Arc<ServerConfig>, Failure> {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Failure::new(Cause::Internal, format!("Cannot make a certificate ({what}): {e}."))
    };
    let key = KeyPair::generate().map_err(|e| failed("key", &e))?;
    let certificate = params(timeout, own_addresses()).self_signed(&key).map_err(|e| failed("signature", &e))?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = ring::sign::any_ecdsa_type(&der).map_err(|e| failed("key", &e))?;
    let chain = vec![certificate.der().clone()];
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, signer));
    let mut config = ServerConfig::builder_with_provider(Arc::new(crate::tls::provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed("versions", &e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    // Each sender comes once or twice: nothing to resume, and no memory spent on it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn params(timeout: SignedDuration, addresses: Vec<IpAddr>) -> CertificateParams {
    let now = clock::now().as_second();
    let lifetime = timeout.clamp(LIFETIME_MIN, LIFETIME_MAX).as_secs();
    let date = |secs: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs.max(0).unsigned_abs());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes-vault-init");
    params.subject_alt_names = addresses.into_iter().map(SanType::IpAddress).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date(now - BACKDATED_SECS);
    params.not_after = date(now + lifetime);
    params
}

/// The addresses this pod speaks from, or the loopback ones where it has no network.
///
/// Asked of the routing table: connecting a UDP socket sends nothing. The targets are documentation addresses.
fn own_addresses() -> Vec<IpAddr> {
    let probe = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).ok()?;
        socket.connect(SocketAddr::new(to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = probe(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = probe(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let found: Vec<_> = v4.into_iter().chain(v6).collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_timeout_makes_a_certificate() {
        for timeout in [SignedDuration::MIN, SignedDuration::ZERO, SignedDuration::from_mins(5), SignedDuration::MAX] {
            assert!(server(timeout).is_ok(), "{timeout}");
        }
    }

    #[test]
    fn its_lifetime_is_the_timeout() {
        let params = params(SignedDuration::from_mins(7), vec![Ipv4Addr::LOCALHOST.into()]);
        let lifetime = params.not_after - params.not_before;
        assert_eq!(lifetime.whole_seconds(), 7 * 60 + BACKDATED_SECS);
    }
}
