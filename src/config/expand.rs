//! Environment variables inside configuration values.
//!
//! Purpose: what the Go version did with `os.ExpandEnv`, to the letter, so that a file that worked goes on
//! meaning the same. Owns the grammar of `$NAME` and `${NAME}`. It never sees the text of the file: a value is
//! expanded after the YAML is parsed, so that what a variable holds can never become YAML.

/// Replaces `$NAME` and `${NAME}` in `text` by what `lookup` gives; a variable that is not set becomes nothing.
///
/// There is no way to write a literal `$` before a letter: the Go version had none either. A `$` at the end, or
/// before a character that starts no name, stays, which is what regular expressions such as `^team-.*$` rely on.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        out.push_str(before);
        if after.is_empty() {
            rest = "$";
            break;
        }
        let (name, width) = shell_name(after);
        match (name, width) {
            ("", 0) => out.push('$'),
            // Broken syntax (`${}`, `${` without an end) is swallowed, as Go does.
            ("", _) => {}
            (name, _) => out.push_str(&lookup(name).unwrap_or_default()),
        }
        rest = &after[width..];
    }
    out.push_str(rest);
    out
}

/// The name at the start of `text` and how many bytes of it belong to the reference. `text` is not empty.
fn shell_name(text: &str) -> (&str, usize) {
    let bytes = text.as_bytes();
    if bytes[0] == b'{' {
        if bytes.len() > 2 && is_special(bytes[1]) && bytes[2] == b'}' {
            return (&text[1..2], 3);
        }
        return match text.find('}') {
            Some(1) => ("", 2),
            Some(end) => (&text[1..end], end + 1),
            None => ("", 1),
        };
    }
    if is_special(bytes[0]) {
        return (&text[..1], 1);
    }
    let end = bytes.iter().position(|&byte| byte != b'_' && !byte.is_ascii_alphanumeric()).unwrap_or(bytes.len());
    (&text[..end], end)
}

/// The shell's one-character variables (`$$`, `$1`, `$?`, ...).
fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/root".to_owned()),
            "H" => Some("h".to_owned()),
            "a b" => Some("spaced".to_owned()),
            "*" => Some("star".to_owned()),
            "1" => Some("one".to_owned()),
            "$" => Some("pid".to_owned()),
            "NESTED" => Some("$HOME".to_owned()),
            _ => None,
        }
    }

    /// Go's own table (os/env_test.go), and what our files depend on.
    #[test]
    fn expands_as_go_does() {
        for (input, want) in [
            ("", ""),
            ("$*", "star"),
            ("$$", "pid"),
            ("${*}", "star"),
            ("$1", "one"),
            ("${1}", "one"),
            ("now is the time", "now is the time"),
            ("$HOME", "/root"),
            ("$home_1", ""),
            ("${HOME}", "/root"),
            ("${H}OME", "hOME"),
            ("A$$$#$1$H$home_1*B", "ApidoneH*B".replace('H', "h").as_str()),
            ("start$+middle$^end$", "start$+middle$^end$"),
            ("mixed$|bag$$$", "mixed$|bagpid$"),
            ("$", "$"),
            ("$}", "$}"),
            ("${", ""),
            ("${}", ""),
            ("a${}b", "ab"),
            ("a${b", "ab"),
            ("${a b}", "spaced"),
            ("$unset!", "!"),
            ("$é", "$é"),
            ("${é}x", "x"),
            ("~^(team|prod)-.*$", "~^(team|prod)-.*$"),
            ("~^a$|^b$", "~^a$|^b$"),
            ("$NESTED", "$HOME"),
        ] {
            assert_eq!(expand(input, &env), want, "{input:?}");
        }
    }

    /// Go's `os.Expand`, transcribed line by line over bytes, as the model.
    fn go_expand(s: &[u8], lookup: &dyn Fn(&str) -> Option<String>) -> Vec<u8> {
        fn name(s: &[u8]) -> (&[u8], usize) {
            if s[0] == b'{' {
                if s.len() > 2 && b"*#$@!?-0123456789".contains(&s[1]) && s[2] == b'}' {
                    return (&s[1..2], 3);
                }
                for i in 1..s.len() {
                    if s[i] == b'}' {
                        return if i == 1 { (b"", 2) } else { (&s[1..i], i + 1) };
                    }
                }
                return (b"", 1);
            }
            if b"*#$@!?-0123456789".contains(&s[0]) {
                return (&s[..1], 1);
            }
            let mut i = 0;
            while i < s.len() && (s[i] == b'_' || s[i].is_ascii_alphanumeric()) {
                i += 1;
            }
            (&s[..i], i)
        }
        let (mut out, mut i, mut j) = (Vec::new(), 0, 0);
        while j < s.len() {
            if s[j] == b'$' && j + 1 < s.len() {
                out.extend_from_slice(&s[i..j]);
                let (n, w) = name(&s[j + 1..]);
                if n.is_empty() && w == 0 {
                    out.push(s[j]);
                } else if !n.is_empty() {
                    let n = std::str::from_utf8(n).unwrap();
                    out.extend_from_slice(lookup(n).unwrap_or_default().as_bytes());
                }
                j += w;
                i = j + 1;
            }
            j += 1;
        }
        out.extend_from_slice(&s[i..]);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_the_model(text in "[$\\{\\}aH1*_ é|-]{0,16}") {
            let lookup = |name: &str| (!name.starts_with('_')).then(|| format!("<{name}>"));
            prop_assert_eq!(expand(&text, &lookup).into_bytes(), go_expand(text.as_bytes(), &lookup));
        }
    }
}
