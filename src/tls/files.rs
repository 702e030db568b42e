//! An identity in PEM files that somebody else renews.
//!
//! Owns reading them, and saying which one is wrong and why, before a peer has to refuse what they hold.
//!
//! Must never: repeat content of a file (the decoder's words could quote a key), or wait for a pipe.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{CertificateError, RootCertStore};
use zeroize::Zeroizing;

use super::Error;
use super::verify::{PeerVerifier, Scope};
use crate::domain::ids::Timestamp;

const CERT: &str = "raft.tls.certFile";
const KEY: &str = "raft.tls.certKey";
const CA: &str = "raft.tls.caCert";

/// A chain or a bundle has some kilobytes; beyond this the path is wrong.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
    let chain = certificates(CERT, &paths.cert)?;
    let key = key(&paths.key)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, &paths.ca)? {
        roots.add(certificate).map_err(|cause| unusable(CA, &paths.ca, format!("a certificate in it: {cause}")))?;
    }
    Ok(FromFiles { chain, key, roots })
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

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read_file(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // A key that was named by mistake may be in there: nothing of it is repeated.
    let found = found.map_err(|_| unusable(key, path, "it is not PEM".to_owned()))?;
    if found.is_empty() {
        return Err(unusable(key, path, "it holds no PEM certificate".to_owned()));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read_file(KEY, path)?;
    // "ENCRYPTED PRIVATE KEY", or the older "Proc-Type: 4,ENCRYPTED".
    if pem.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(unusable(
            KEY,
            path,
            "the key is encrypted: store it in clear, readable by this user alone".to_owned(),
        ));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(KEY, path, "it holds no PEM private key".to_owned()))
}

fn read_file(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read { key, path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(bytes)
}

fn unusable(key: &'static str, path: &Path, why: String) -> Error {
    Error::Unusable { key, path: path.to_owned(), why }
}
