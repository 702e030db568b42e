//! Random bytes, for names that nobody can guess and waits that do not line up.

/// Eight bytes from the kernel's generator.
///
/// `None` only when the kernel refuses, in which case TLS would not have come up either.
pub(crate) fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    crate::tls::provider().secure_random.fill(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}
