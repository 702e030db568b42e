//! The CA certificates that verify Vault, where the configuration names any.
//!
//! Owns the bundle's bytes: what verifies Vault here is what init containers are given, byte for byte. The fetch
//! from a PKI mount is not verified (as the reference does it) and therefore never sends a token.

use std::fmt;
use std::fmt::Write as _;

use rustls::CipherSuite;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use url::Url;

use super::call::{ApiPath, Call};
use super::client::Client;
use super::error::{Fatal, Stopped, is_verdict, words};
use super::options::{Ca, Options};
use super::proxies::Proxies;
use super::tls::{Trust, certificates, client_config, text};
use crate::pem::{append, certificate_blocks};

const CA_BACKENDS: &str = "vault.tls.vaultCABackends";

/// The SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no SHA-256 fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 fingerprint has 64 hexadecimal digits; colons, spaces and a leading \"sha256:\" are accepted")]
pub struct InvalidFingerprint;

impl From<[u8; 32]> for Fingerprint {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl Fingerprint {
    /// Reads a fingerprint as `openssl x509 -fingerprint -sha256` and `sha256sum` write it.
    ///
    /// # Errors
    /// What is accepted.
    pub fn parse(text: &str) -> Result<Self, InvalidFingerprint> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix("sha256:").unwrap_or(&text);
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !matches!(c, ':' | ' '))
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(InvalidFingerprint)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }

    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let provider = ring::default_provider();
        let is_sha256 = |suite: &rustls::SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
        let suite = provider.cipher_suites.iter().find(|suite| is_sha256(suite))?.tls13()?;
        suite.common.hash_provider.hash(certificate).as_ref().try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// The bundle, `None` for the public roots. Over plain http there is nothing to verify, and the reference pushes none.
///
/// `verified` is a client that verifies Vault already, if there is one: then what a PKI mount says is as good as that, and
/// nothing else is believed. First use is at the start, and not whenever somebody stands in between for a moment. What is
/// pinned may come from anybody.
pub(super) async fn load(
    options: &Options,
    url: &Url,
    proxies: &Proxies,
    verified: Option<&Client>,
) -> Result<Option<String>, Stopped> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    match &options.tls.ca {
        Ca::Public => Ok(None),
        Ca::File(path) => {
            let key = "vault.tls.caCert";
            let pem = text(key, path)?;
            certificates(key, &pem)?;
            Ok(Some(pem))
        }
        Ca::Pki { mounts, fingerprints } => {
            if let Some(client) = verified {
                match of_mounts(client, mounts, fingerprints).await {
                    Ok(bundle) => return Ok(Some(bundle)),
                    Err(stopped) if fingerprints.is_empty() => return Err(stopped),
                    Err(_) => {}
                }
            }
            let tls = client_config(&Trust::Anyone, &options.tls)?;
            let client = Client::new(url, options.namespace.as_deref(), Some(tls), proxies)?;
            of_mounts(&client, mounts, fingerprints).await.map(Some)
        }
    }
}

/// The CA certificates of `mounts`, each of them among `allowed`, unless that is empty.
pub(super) async fn of_mounts(client: &Client, mounts: &[String], allowed: &[Fingerprint]) -> Result<String, Stopped> {
    let mut bundle = String::new();
    for mount in mounts {
        append(&mut bundle, &fetch(client, mount, allowed).await?);
    }
    Ok(bundle)
}

/// The certificates of both, each once: what is believed while one root follows another.
pub(super) fn union(one: &str, other: &str) -> Result<String, Fatal> {
    let mut bundle = one.to_owned();
    let known = certificates(CA_BACKENDS, one)?;
    for block in certificate_blocks(other) {
        if !certificates(CA_BACKENDS, block)?.iter().all(|certificate| known.contains(certificate)) {
            append(&mut bundle, block);
        }
    }
    Ok(bundle)
}

/// The SHA-256 of each certificate in `bundle`, for people.
pub(super) fn fingerprints(bundle: &str) -> String {
    let found = certificates(CA_BACKENDS, bundle).unwrap_or_default();
    let found: Vec<String> = found.iter().filter_map(Fingerprint::of).map(|one| one.to_string()).collect();
    found.join(", ")
}

async fn fetch(client: &Client, mount: &str, allowed: &[Fingerprint]) -> Result<String, Stopped> {
    let path = ApiPath::default().then(mount).then("ca/pem");
    let refused = |why: String| Fatal::PkiMount { mount: mount.to_owned(), why };
    let answer = client.send(&Call::get(path)).await.map_err(|trouble| match is_verdict(&trouble) {
        true => Stopped::Fatal(refused(words(&trouble))),
        false => Stopped::Trouble(trouble),
    })?;
    let pem = std::str::from_utf8(&answer.body).map_err(|_| refused("the answer is not a text".to_owned()))?;
    // A mount without a CA answers 204, and so does one whose default issuer was imported without its key.
    let found = certificates(CA_BACKENDS, pem)
        .map_err(|_| refused("it has no CA certificate, or only one without its key".to_owned()))?;
    for certificate in &found {
        let is = Fingerprint::of(certificate).ok_or_else(|| Fatal::Client("no SHA-256".to_owned()))?;
        if !allowed.is_empty() && !allowed.contains(&is) {
            return Err(Fatal::Fingerprint { mount: mount.to_owned(), found: is.to_string() }.into());
        }
    }
    Ok(pem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_their_usual_forms() {
        let plain = "00ff".repeat(16);
        let colons = ["00", "FF"].repeat(16).join(":");
        let parsed = Fingerprint::parse(&plain).unwrap();
        assert!(parsed == Fingerprint::parse(&colons).unwrap());
        assert!(parsed == Fingerprint::parse(&format!(" sha256:{plain} ")).unwrap());
        assert_eq!(parsed.to_string(), colons);
        for bad in ["", "00ff", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(Fingerprint::parse(bad).err(), Some(InvalidFingerprint), "{bad}");
        }
    }

    #[test]
    fn a_union_has_each_certificate_once() {
        let ca = || rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
        let (old, new) = (ca(), ca());
        let both = union(old.trim_end(), &new).unwrap();
        assert_eq!(certificates(CA_BACKENDS, &both).unwrap().len(), 2);
        assert_eq!(union(&both, &old).unwrap(), both);
        assert_eq!(union(&both, &new).unwrap(), both);
    }
}
