//! The grammars of names that become part of a URL path or of a header.
//!
//! Pure. What passes here cannot lead a request to another place than the one meant.

/// What [`mount_path`] takes, for messages.
pub(super) const MOUNT_ACCEPTED: &str = "must be a mount path such as \"pki\" or \"team/pki\": no spaces, no empty, \".\" or \"..\" parts, none of ? # % \\";

/// What [`is_dns_label`] takes, for messages.
pub(crate) const LABEL_ACCEPTED: &str =
    "a to z, 0 to 9 and '-', at most 63 characters, a letter or digit first and last";

/// The path of a Vault mount or namespace without slashes at its ends; `None` where it is not one.
pub(super) fn mount_path(text: &str) -> Option<String> {
    let path = text.trim_matches('/');
    let part_is_fine = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte))
    };
    path.split('/').all(part_is_fine).then(|| path.to_owned())
}

/// A name of one path segment: a Vault role.
pub(super) fn is_segment(text: &str) -> bool {
    !text.contains('/') && mount_path(text).is_some()
}

/// A Kubernetes object name of the strict kind (namespaces, services): RFC 1123 label.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_paths() {
        for (text, want) in [
            ("pki", Some("pki")),
            ("/team/pki/", Some("team/pki")),
            ("a.b_c-d", Some("a.b_c-d")),
            ("", None),
            ("/", None),
            ("a//b", None),
            ("..", None),
            ("a/../b", None),
            ("a/./b", None),
            ("a b", None),
            ("a%2f..", None),
            ("a?b", None),
            ("a#b", None),
            ("a\\b", None),
            ("a\nb", None),
            ("é", None),
        ] {
            assert_eq!(mount_path(text).as_deref(), want, "{text:?}");
        }
        assert!(is_segment("role-1") && !is_segment("a/b") && !is_segment(""));
    }

    #[test]
    fn labels() {
        for text in ["a", "0", "kube-system", &"a".repeat(63)] {
            assert!(is_dns_label(text), "{text}");
        }
        for text in ["", "-a", "a-", "A", "a.b", "a/b", "..", ".*", &"a".repeat(64)] {
            assert!(!is_dns_label(text), "{text}");
        }
    }
}
