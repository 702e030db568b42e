//! PEM files that the configuration names: a certificate with its key, or a bundle of CAs.
//!
//! Owns reading them, and saying which one is wrong and why, before anybody who connects has to find out.
//!
//! Must never: repeat content of a file (the decoder's words could quote a key).

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Error;
use crate::files;
use crate::pem::is_encrypted;

/// A file, and the key of the configuration that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// For messages.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl Named {
    /// `path`, as `key` of the configuration names it.
    pub fn new(key: &'static str, path: &Path) -> Self {
        Self { key, path: path.to_owned() }
    }

    /// What is wrong with it.
    pub(super) fn unusable(&self, why: String) -> Error {
        Error::Unusable { key: self.key, path: self.path.clone(), why }
    }

    /// The certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        certificates(&self.read()?).map_err(|why| self.unusable(why.to_owned()))
    }

    /// The CAs in it, at least one.
    pub(super) fn roots(&self) -> Result<RootCertStore, Error> {
        roots(self.certificates()?).map_err(|why| self.unusable(why))
    }

    /// The key in it.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let pem = self.read()?;
        if is_encrypted(&pem) {
            return Err(
                self.unusable("the key is encrypted: store it in clear, readable by this user alone".to_owned())
            );
        }
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| self.unusable("it holds no PEM private key".to_owned()))
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let failed = |source| Error::Read { key: self.key, path: self.path.clone(), source };
        files::read(&self.path).map_err(failed)
    }
}

/// The certificates in a PEM text, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    // A key that was named by mistake may be in there: nothing of it is repeated.
    let found = found.map_err(|_| "it is not PEM")?;
    if found.is_empty() { Err("it holds no PEM certificate") } else { Ok(found) }
}

/// What Vault's PKI has issued, all PEM: the certificate with what stands between it and the CA, and its key.
pub(super) fn issued(
    certificate: &str,
    ca_chain: &[String],
    key: &SecretString,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let unfit = |why: String| Error::Issued { why };
    let mut chain = certificates(certificate.as_bytes()).map_err(|why| unfit(why.to_owned()))?;
    for ca in ca_chain {
        chain.extend(certificates(ca.as_bytes()).map_err(|why| unfit(format!("its ca_chain: {why}")))?);
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes());
    Ok((chain, key.map_err(|_| unfit("its private_key is no PEM private key".to_owned()))?))
}

/// `certificates` as those that are believed.
pub(super) fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|cause| format!("a certificate in it: {cause}"))?;
    }
    Ok(roots)
}
