//! An identity in PEM files that somebody else renews.
//!
//! Owns saying what peers would not like about it, before one of them has to refuse it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{CertificateError, RootCertStore};

use super::Error;
use super::pem::Named;
use super::verify::{PeerVerifier, Scope};
use crate::domain::ids::Timestamp;

const CERT: &str = "raft.tls.certFile";
const KEY: &str = "raft.tls.certKey";
const CA: &str = "raft.tls.caCert";

/// Paths of PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    /// `raft.tls.certFile`: our certificate, and then what stands between it and the CA.
    pub cert: PathBuf,
    /// `raft.tls.certKey`: its key, not encrypted.
    pub key: PathBuf,
    /// `raft.tls.caCert`: the CA of all peers. Two while it is replaced.
    pub ca: PathBuf,
}

/// What the files hold.
pub(super) struct FromFiles {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: RootCertStore,
}

/// Reads all three.
pub(super) fn read(paths: &PeerFiles) -> Result<FromFiles, Error> {
    let chain = Named::new(CERT, &paths.cert).certificates()?;
    let key = Named::new(KEY, &paths.key).private_key()?;
    Ok(FromFiles { chain, key, roots: Named::new(CA, &paths.ca).roots()? })
}

/// Whether peers that have the same CA file would believe us at `now`.
pub(super) fn check(
    paths: &PeerFiles,
    scope: &Scope,
    verifier: &PeerVerifier,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    verifier.check_own(chain, now).map_err(|error| {
        let why = match &error {
            rustls::Error::InvalidCertificate(cause) => refusal(cause, paths, scope),
            other => other.to_string(),
        };
        unusable(CERT, &paths.cert, why)
    })
}

fn refusal(cause: &CertificateError, paths: &PeerFiles, scope: &Scope) -> String {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("it has expired, or something in its chain has: renew it ({cause})")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet: is the clock right? ({cause})")
        }
        CertificateError::NotValidForName => {
            format!("it does not name this service: peers accept it only with {}", scope.required())
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("{CA} ({}) does not lead to it: another CA, or a part of its chain is missing", paths.ca.display())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "peers call each other, so it must be for both, server and client authentication".to_owned()
        }
        other => other.to_string(),
    }
}

/// What building a configuration with the key found wrong.
pub(super) fn unusable_key(paths: &PeerFiles, cause: &rustls::Error) -> Error {
    let why = match cause {
        rustls::Error::InconsistentKeys(_) => {
            format!("it is not the key of the certificate in {CERT} ({})", paths.cert.display())
        }
        other => other.to_string(),
    };
    unusable(KEY, &paths.key, why)
}

fn unusable(key: &'static str, path: &Path, why: String) -> Error {
    Named::new(key, path).unusable(why)
}
