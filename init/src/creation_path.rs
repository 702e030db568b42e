//! Whether a wrapping token holds what it should: the path that made it.
//!
//! Somebody who has unwrapped a token can wrap something of his own and send that on; the path tells.
//!
//! Must never: let through a path that is only similar.

/// The mount of the AppRole, ready for use in a URL's path, when `path` is `auth/<mount>/role/<role>/secret-id`.
///
/// A Vault with namespaces may put its own in front.
pub(crate) fn mount(path: &str, namespace: Option<&str>) -> Option<String> {
    let path = match namespace.map(|ns| ns.trim_matches('/')).filter(|ns| !ns.is_empty()) {
        Some(ns) => path.strip_prefix(ns).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path),
        None => path,
    };
    let (head, role) = path.strip_prefix("auth/")?.strip_suffix("/secret-id")?.rsplit_once('/')?;
    let mount = head.strip_suffix("/role")?;
    let usable = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control);
    if !usable(role) || !mount.split('/').all(usable) {
        return None;
    }
    let mut encoded = String::with_capacity(mount.len());
    for byte in mount.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_what_stands_between() {
        for (path, expected) in [
            ("auth/approle/role/app/secret-id", "approle"),
            ("auth/team/a/approle/role/app/secret-id", "team/a/approle"),
            ("auth/role/role/role/secret-id", "role"),
            ("auth/a/role/b/role/c/secret-id", "a/role/b"),
            ("auth/a b/role/c/secret-id", "a%20b"),
        ] {
            assert_eq!(mount(path, None).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(mount("ns1/ns2/auth/approle/role/app/secret-id", Some("/ns1/ns2/")).as_deref(), Some("approle"));
        assert_eq!(mount("auth/approle/role/app/secret-id", Some("ns1")).as_deref(), Some("approle"));
    }

    // Bad-input table: wrong creation path.
    #[test]
    fn what_is_only_similar_is_refused() {
        for path in [
            "",
            "sys/wrapping/wrap",
            "cubbyhole/x",
            "secret/data/auth/approle/role/app/secret-id",
            "auth/approle/role/app/custom-secret-id",
            "auth/approle/role/app/secret-id/",
            "auth/approle/role/app/secret-id/lookup",
            "/auth/approle/role/app/secret-id",
            "auth/role/app/secret-id",
            "auth//role/app/secret-id",
            "auth/approle/role//secret-id",
            "auth/approle/roles/app/secret-id",
            "auth/../sys/role/app/secret-id",
            "auth/a//b/role/app/secret-id",
            "auth/approle/role/../secret-id",
            "auth/appr\nole/role/app/secret-id",
            "ns/auth/approle/role/app/secret-id",
        ] {
            assert_eq!(mount(path, None), None, "{path}");
        }
    }
}
