//! A CA out of a shared secret.
//!
//! Purpose: replicas that share nothing but a secret know each other, without a file, a server or a clock that must
//! agree. HKDF-SHA256 turns the secret and the cluster's scope into the seed of an Ed25519 key, which is the CA of all
//! replicas; each issues a certificate to itself, with a key of its own.
//!
//! Owns the derivation: versions that derive differently cannot talk to each other, so a test holds it fast. `raft.secrets`
//! and `vault.token` are derived alike on purpose: a cluster can go from one to the other by listing both.
//!
//! Must never: keep the CA's key beyond the signatures that it is for, or write a key anywhere. The seed is zeroed.
//! What the libraries hold of keys is not: a reader of this process's memory finds the secret itself there as well.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use ring::hkdf;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Error;
use super::identity::SERVER_NAME;
use super::verify::Scope;

/// Names what is derived, and the version of how. A change parts all clusters that upgrade one replica after the other.
const LABEL: &[u8] = b"kubernetes-vault peer CA v1";

/// The CA's subject; a leaf names it as its issuer. The same for all, since it is in clear in each handshake.
const CA_NAME: &str = "kubernetes-vault peer CA";

/// An Ed25519 seed, as RFC 8032 has it.
const SEED_BYTES: usize = 32;

/// A CA that replicas with the same secret and scope have in common.
pub(super) struct DerivedCa {
    key: Ed25519KeyPair,
}

/// What a replica shows, fresh from its CA.
pub(super) struct Leaf {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl DerivedCa {
    /// The CA of `secret` in `scope`.
    pub(super) fn new(secret: &SecretString, scope: &Scope) -> Result<Self, Error> {
        let failed = Error::Make { what: "deriving the CA's key" };
        let seed = seed(secret.expose_secret().as_bytes(), scope).map_err(|_| failed)?;
        let key =
            Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| Error::Make { what: "reading the CA's key" })?;
        Ok(Self { key })
    }

    /// Its certificate, signed by itself. The bytes may differ between versions; subject and key are what counts.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, Error> {
        let made = ca_params().self_signed(&Signer(&self.key)).map_err(|_| Error::Make { what: "signing the CA" })?;
        Ok(made.der().clone())
    }

    /// A certificate for this replica, with a fresh key.
    pub(super) fn issue(&self, scope: &Scope) -> Result<Leaf, Error> {
        let failed = |what| move |_| Error::Make { what };
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed("drawing a key"))?;
        let issuer = Issuer::new(ca_params(), Signer(&self.key));
        let params = leaf_params(scope)?;
        let made = params.signed_by(&key, &issuer).map_err(failed("signing the certificate"))?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Leaf { certificate: made.der().clone(), key: der })
    }

    /// The CA's public key.
    #[cfg(test)]
    pub(super) fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }
}

fn seed(secret: &[u8], scope: &Scope) -> Result<Zeroizing<[u8; SEED_BYTES]>, ring::error::Unspecified> {
    // Lengths before texts: else namespace "a" with service "bc" would be namespace "ab" with service "c".
    let parts = [&scope.namespace, &scope.service, &scope.cluster];
    let lengths = parts.map(|part| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    let mut info = vec![LABEL];
    for (length, part) in lengths.iter().zip(parts) {
        info.extend([length.as_slice(), part.as_bytes()]);
    }
    // No salt: the secret is random already, and there is nowhere to keep one that all replicas know.
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    extracted.expand(&info, Seed)?.fill(&mut *seed)?;
    Ok(seed)
}

/// How much HKDF is asked for.
struct Seed;

impl hkdf::KeyType for Seed {
    fn len(&self) -> usize {
        SEED_BYTES
    }
}

/// ring's key as rcgen wants one: so there is no PKCS#8 of it that would have to be wiped.
struct Signer<'k>(&'k Ed25519KeyPair);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

fn ca_params() -> CertificateParams {
    let mut params = named(CA_NAME);
    // What it issues ends the chain.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params(scope: &Scope) -> Result<CertificateParams, Error> {
    let name = |text: &str| text.try_into().map_err(|_| Error::Make { what: "naming the certificate" });
    let mut params = named("kubernetes-vault peer");
    params.subject_alt_names = vec![SanType::DnsName(name(SERVER_NAME)?), SanType::URI(name(&scope.uri())?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Each replica calls and is called.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Valid for all time. A certificate lives as long as its process, and ends for all when the secret is replaced; dates
/// would only part replicas whose clocks differ, or that have run for long.
fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280's "no well-defined expiration date".
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}
