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
use super::tls::{Trust, certificates, client_config, read_file};

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
pub(super) async fn load(options: &Options, url: &Url, proxies: &Proxies) -> Result<Option<String>, Stopped> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    match &options.tls.ca {
        Ca::Public => Ok(None),
        Ca::File(path) => {
            let key = "vault.tls.caCert";
            let pem = String::from_utf8(read_file(key, path)?);
            let pem = pem.map_err(|_| Fatal::Certificate { key, why: "it is not a text".to_owned() })?;
            certificates(key, &pem)?;
            Ok(Some(pem))
        }
        Ca::Pki { mounts, fingerprints } => {
            let tls = client_config(&Trust::Anyone, &options.tls)?;
            let client = Client::new(url, options.namespace.as_deref(), Some(tls), proxies)?;
            let mut bundle = String::new();
            for mount in mounts {
                append(&mut bundle, &fetch(&client, mount, fingerprints).await?);
            }
            Ok(Some(bundle))
        }
    }
}

/// Vault ends a PEM without a line break; two of them need one in between.
fn append(bundle: &mut String, pem: &str) {
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle.push_str(pem);
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
        if allowed.is_empty() {
            tracing::warn!(
                pki.mount = mount,
                sha256 = %is,
                "this CA certificate was fetched from Vault without verification and is trusted from now on; \
                 pin it by vault.tls.caFingerprint"
            );
        } else if !allowed.contains(&is) {
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
    fn a_bundle_of_several_mounts_stays_pem() {
        let mut bundle = String::new();
        append(&mut bundle, "A");
        append(&mut bundle, "B\n");
        append(&mut bundle, "C");
        assert_eq!(bundle, "A\nB\nC");
    }
}
