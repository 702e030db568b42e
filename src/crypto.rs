//! The cryptography of every TLS connection of this process.

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, ring};

/// ring, with AES-128 and SHA-256 first, which TLS 1.3 makes mandatory. ring itself begins with AES-256 and SHA-384, and
/// has the processor's own instructions for SHA-256 only: the other hash was 2 % of what a burst of deliveries costs.
/// Whoever prefers another suite still gets it.
pub fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_suite_is_lost_and_the_cheapest_strong_one_comes_first() {
        let (ours, rings) = (provider().cipher_suites, ring::default_provider().cipher_suites);
        assert_eq!(ours[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ours.len(), rings.len());
        assert!(rings.iter().all(|suite| ours.contains(suite)));
    }
}
