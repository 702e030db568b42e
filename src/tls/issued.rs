//! An identity that Vault's PKI has issued.
//!
//! Owns its form on disk, where it is kept so that a Vault which is sealed at the wrong moment parts no peers, and the
//! words for what peers would not like about it. The key leaves this module as a secret only.

use std::mem::take;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Error;
use super::files::FromFiles;
use super::pem;
use super::verify::{PeerVerifier, Scope};
use crate::domain::ids::Timestamp;
use crate::pem::{append, certificate_blocks};

/// More than a certificate, its key and a few CAs take.
const TYPICAL_BYTES: usize = 64 * 1024;

/// Of the form on disk.
const VERSION: u8 = 1;

/// What was issued to this replica, and who issues for its peers: all PEM. No `Debug`: it holds a key.
#[derive(Clone)]
pub struct IssuedPeer {
    /// From where: the PKI mount and its role. What was kept of another one is not used.
    pub origin: String,
    /// Our certificate.
    pub certificate: String,
    /// What stands between it and the CA.
    pub ca_chain: Vec<String>,
    /// Its key.
    pub key: SecretString,
    /// The CAs of peers, as Vault has them now.
    pub cas: String,
    /// Those that it had before.
    pub former: Vec<FormerCa>,
}

/// A CA that Vault does not name any more. What it has issued is believed until the last of it has run out: peers renew at
/// different times, and one that cannot reach Vault must not be parted from the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FormerCa {
    /// The certificate, PEM.
    pub certificate: String,
    /// Until then, in Unix seconds.
    pub until: u64,
}

/// For how long peers' certificates are asked for, and so how long a former CA is believed: long enough that a Vault
/// which is sealed over a weekend parts no peers.
pub const PEER_TTL: Duration = Duration::from_secs(3 * 24 * 3600);

/// The form on disk.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    version: u8,
    origin: String,
    certificate: String,
    ca_chain: Vec<String>,
    key: String,
    cas: String,
    #[zeroize(skip)]
    former: Vec<FormerCa>,
}

impl IssuedPeer {
    /// For the disk; readable by this user alone, please.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let kept = Kept {
            version: VERSION,
            origin: self.origin.clone(),
            certificate: self.certificate.clone(),
            ca_chain: self.ca_chain.clone(),
            key: self.key.expose_secret().to_owned(),
            cas: self.cas.clone(),
            former: self.former.clone(),
        };
        // Growing would leave copies of the key behind that nobody wipes.
        let mut bytes = Zeroizing::new(Vec::with_capacity(TYPICAL_BYTES));
        // It fails for maps with keys that are no strings, and there is none.
        if serde_json::to_writer(&mut *bytes, &kept).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// From the disk.
    ///
    /// # Errors
    /// It is not ours, or of another version. Nothing of it is repeated.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let unfit = |why: &str| Error::Issued { why: why.to_owned() };
        let kept: Result<Kept, _> = serde_json::from_slice(bytes);
        let mut kept = kept.map_err(|_| unfit("what was kept of it on disk cannot be read"))?;
        if kept.version != VERSION {
            return Err(unfit("what was kept of it on disk is of another version"));
        }
        Ok(Self {
            origin: take(&mut kept.origin),
            certificate: take(&mut kept.certificate),
            ca_chain: take(&mut kept.ca_chain),
            key: SecretString::from(kept.key.as_str()),
            cas: take(&mut kept.cas),
            former: take(&mut kept.former),
        })
    }

    /// The same with the CAs that Vault has at `now`. What it had before is believed for [`PEER_TTL`] more.
    pub fn with_cas(&self, cas: &str, now: Timestamp) -> Self {
        let seconds = now.0 / 1000;
        let gone = |block: &&str| !certificate_blocks(cas).any(|new| new == *block);
        let until = seconds + PEER_TTL.as_secs();
        let mut former: Vec<FormerCa> = self.former.iter().filter(|ca| ca.until > seconds).cloned().collect();
        former.retain(|ca| gone(&ca.certificate.as_str()));
        former.extend(
            certificate_blocks(&self.cas).filter(gone).map(|block| FormerCa { certificate: block.to_owned(), until }),
        );
        Self { cas: cas.to_owned(), former, ..self.clone() }
    }

    pub(super) fn read(&self, now: Timestamp) -> Result<FromFiles, Error> {
        let unfit = |why: String| Error::Issued { why };
        let (chain, key) = pem::issued(&self.certificate, &self.ca_chain, &self.key)?;
        let mut cas = self.cas.clone();
        let believed = self.former.iter().filter(|former| former.until > now.0 / 1000);
        believed.for_each(|former| append(&mut cas, &former.certificate));
        let cas = pem::certificates(cas.as_bytes()).map_err(|why| unfit(format!("the CAs of peers: {why}")))?;
        Ok(FromFiles { chain, key, roots: pem::roots(cas).map_err(unfit)? })
    }
}

/// Whether peers would believe us at `now`.
pub(super) fn check(
    scope: &Scope,
    verifier: &PeerVerifier,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    verifier.check_own(chain, now).map_err(|error| {
        let why = match &error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidForName) => format!(
                "the certificate has not the URI {}, by which peers know each other: allow it by allowed_uri_sans of the \
                 role in raft.tls.vaultCertRole",
                scope.uri()
            ),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "the CAs of raft.tls.vaultCABackends do not lead to the certificate".to_owned()
            }
            rustls::Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            ) => "peers call each other, so the role in raft.tls.vaultCertRole needs server_flag and client_flag".to_owned(),
            other => other.to_string(),
        };
        Error::Issued { why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn mk_issued() -> IssuedPeer {
        IssuedPeer {
            origin: "pki/issue/peer".to_owned(),
            certificate: block("leaf"),
            ca_chain: vec![block("ca")],
            key: SecretString::from("the key"),
            cas: block("one"),
            former: Vec::new(),
        }
    }

    #[test]
    fn what_is_kept_is_what_was_issued() {
        let issued = mk_issued().with_cas(&block("two"), Timestamp(1_000));
        let read = IssuedPeer::from_bytes(&issued.to_bytes()).unwrap();
        assert_eq!((&read.origin, &read.certificate, &read.cas), (&issued.origin, &issued.certificate, &issued.cas));
        assert_eq!((&read.ca_chain, &read.former), (&issued.ca_chain, &issued.former));
        assert_eq!(read.key.expose_secret(), "the key");
        for bad in ["", "{}", &String::from_utf8_lossy(&issued.to_bytes()).replace("\"version\":1", "\"version\":9")] {
            let error = IssuedPeer::from_bytes(bad.as_bytes()).err().unwrap().to_string();
            assert!(error.contains("on disk"), "{error}");
        }
    }

    #[test]
    fn a_former_ca_is_believed_for_as_long_as_its_last_certificate_may_live_and_no_longer() {
        let at = |seconds: u64| Timestamp(seconds * 1000);
        let issued = mk_issued().with_cas(&block("two"), at(100));
        let until = 100 + PEER_TTL.as_secs();
        assert_eq!(issued.former, [FormerCa { certificate: block("one").trim_end().to_owned(), until }]);
        assert_eq!(issued.with_cas(&block("two"), at(until - 1)).former.len(), 1);
        assert_eq!(issued.with_cas(&block("two"), at(until)).former, []);
        let back = issued.with_cas(&(block("one") + &block("two")), at(200));
        assert_eq!(back.former, [], "it is a present one again");
    }
}
