//! An error in one line, with all its causes: client libraries print the outermost layer alone, which says nothing
//! ("client error (Connect)"); the cause that helps is the innermost.

use std::error::Error;

/// `error` and its causes, each said once: some layers print their cause themselves.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_innermost_cause_and_no_repetition() {
        let inner = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(inner);
        assert_eq!(with_causes(&outer), "connection refused");
    }
}
