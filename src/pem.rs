//! PEM as text.

/// The certificates of a bundle as they are written there, one by one.
pub fn certificate_blocks(bundle: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|at| &part[at..]))
}

/// Adds `pem` to `bundle`. Vault ends a PEM without a line break; two of them need one in between.
pub fn append(bundle: &mut String, pem: &str) {
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle.push_str(pem);
}

/// Whether a key in it is encrypted: "ENCRYPTED PRIVATE KEY", or the older "Proc-Type: 4,ENCRYPTED".
pub fn is_encrypted(pem: &[u8]) -> bool {
    let mark = b"ENCRYPTED";
    pem.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_of_several_stays_pem() {
        let mut bundle = String::new();
        append(&mut bundle, "A");
        append(&mut bundle, "B\n");
        append(&mut bundle, "C");
        assert_eq!(bundle, "A\nB\nC");
    }

    #[test]
    fn blocks_are_found_among_other_text() {
        let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----");
        let bundle = format!("subject=one\n{}\n\nsubject=two\n{}\nthe end\n", block("1"), block("2"));
        assert_eq!(certificate_blocks(&bundle).collect::<Vec<_>>(), [block("1"), block("2")]);
    }
}
