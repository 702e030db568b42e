//! Which namespaces are watched.
//!
//! Owns the two forms of `kubernetes.watchNamespace` and the matching. Pure. Both forms disregard case; the plain
//! form means the whole name, the `~` form is found anywhere in the name.

use regex::Regex;

use super::names::{LABEL_ACCEPTED, is_dns_label};

/// The namespaces whose pods are served.
#[derive(Clone, Debug)]
pub enum WatchNamespace {
    /// One namespace, in lower case. Only it is watched, so rights inside of it are enough.
    Exact(String),
    /// All namespaces whose name holds a match; the whole cluster is watched.
    Pattern(Regex),
}

impl WatchNamespace {
    /// Reads `name` or `~expression`. The error says what is accepted and does not repeat the value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(pattern) = text.strip_prefix('~') else {
            let name = text.to_lowercase();
            return if is_dns_label(&name) {
                Ok(Self::Exact(name))
            } else {
                Err(format!("must be the name of a namespace ({LABEL_ACCEPTED}), or \"~\" and a regular expression"))
            };
        };
        // The same prefix as the Go version's, so that the same flags hold for every branch of the expression.
        Regex::new(&format!("(?i){}", quote_literals(pattern)))
            .map(Self::Pattern)
            .map_err(|error| format!("must be \"~\" and a regular expression in RE2 syntax: {}", reason(&error)))
    }

    /// Whether pods of this namespace are served.
    pub fn matches(&self, namespace: &str) -> bool {
        match self {
            Self::Exact(name) => namespace.eq_ignore_ascii_case(name),
            Self::Pattern(pattern) => pattern.is_match(namespace),
        }
    }

    /// The one namespace to watch, where there is only one.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Pattern(_) => None,
        }
    }
}

/// `\Q...\E` is RE2, and the one part of it that the regex crate lacks and a namespace name may need.
fn quote_literals(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(slash) = rest.find('\\') {
        out.push_str(&rest[..slash]);
        let after = &rest[slash + 1..];
        if let Some(quoted) = after.strip_prefix('Q') {
            let (literal, tail) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = tail;
        } else {
            // An escape of one character: taken whole, so that `\\Q` is not mistaken.
            let width = after.chars().next().map_or(0, char::len_utf8);
            out.push('\\');
            out.push_str(&after[..width]);
            rest = &after[width..];
        }
    }
    out.push_str(rest);
    out
}

/// The reason alone: the full message repeats the expression.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
        error => error
            .to_string()
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap_or("it cannot be parsed")
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(spec: &str, namespace: &str) -> bool {
        WatchNamespace::parse(spec).unwrap().matches(namespace)
    }

    #[test]
    fn plain_is_whole_and_without_case() {
        assert!(matches("Default", "default"));
        assert!(matches("default", "Default"));
        assert!(!matches("default", "default-2"));
        assert!(!matches("default", "my-default"));
        assert_eq!(WatchNamespace::parse("DEFAULT").unwrap().exact(), Some("default"));
        assert_eq!(WatchNamespace::parse("~default").unwrap().exact(), None);
    }

    #[test]
    fn expression_is_anywhere_and_without_case() {
        assert!(matches("~def", "my-default"));
        assert!(matches("~^TEAM-", "team-a"));
        assert!(!matches("~^team-", "my-team-a"));
        assert!(matches("~A|b", "xBx") && matches("~a|B", "xax"));
        assert!(matches("~", "anything"));
        assert!(matches(r"~^\Qa-b\E$", "a-b") && !matches(r"~^\Qa.b\E$", "a-b"));
        assert!(matches(r"~^[[:alpha:]]+-\d{2}$", "team-07"));
        assert!(!matches(r"~\\Qa", "a"));
        assert!(matches("~(?-i)a", "a") && !matches("~(?-i)A", "a"));
    }

    #[test]
    fn errors_name_what_is_accepted_and_no_value() {
        for spec in ["~(", "~[z-a]", "~*", "~a{99999999}", r"~\", "a/b", "..", ".*", "-a", "my ns"] {
            let error = WatchNamespace::parse(spec).err().unwrap();
            assert!(error.contains("regular expression"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = WatchNamespace::parse("~(canary-hunter2").err().unwrap();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("unclosed group"), "{error}");
    }

    proptest! {
        #[test]
        fn plain_equals_comparison(spec in "[a-zA-Z0-9]{1,6}", namespace in "[a-z0-9-]{1,6}") {
            let watch = WatchNamespace::parse(&spec).unwrap();
            prop_assert_eq!(watch.matches(&namespace), spec.to_lowercase() == namespace);
            prop_assert!(watch.matches(&spec.to_lowercase()));
        }

        #[test]
        fn literal_expression_equals_contains(literal in "[a-zA-Z0-9-]{0,4}", namespace in "[a-z0-9-]{1,12}") {
            let contains = namespace.contains(&literal.to_lowercase());
            let plain = WatchNamespace::parse(&format!("~{literal}")).unwrap();
            let quoted = WatchNamespace::parse(&format!("~\\Q{literal}\\E")).unwrap();
            prop_assert_eq!(plain.matches(&namespace), contains);
            prop_assert_eq!(quoted.matches(&namespace), contains);
        }
    }
}
