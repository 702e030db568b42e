//! `$(VAR)` in commands, arguments and values. Pure.

/// Expands as Kubernetes does: `$(VAR)` where it is known, `$$` is a dollar, all else stays.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) else {
            result.push('$');
            continue;
        };
        match lookup(name) {
            Some(value) => result.push_str(&value),
            None => result.push_str(&format!("$({name})")),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn expanded(text: &str) -> String {
        expand(text, |name| (name == "A").then(|| "1".to_owned()))
    }

    #[test]
    fn known_names_are_replaced() {
        assert_eq!(expanded("x$(A)y$(A)"), "x1y1");
    }

    #[test]
    fn unknown_names_and_lone_dollars_stay() {
        assert_eq!(expanded("$(B) $A $ $("), "$(B) $A $ $(");
    }

    #[test]
    fn two_dollars_are_one() {
        assert_eq!(expanded("$$(A) $$$(A)"), "$(A) $1");
    }
}
