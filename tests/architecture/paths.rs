//! The paths in a file: what it imports, and what it names in its code.
//!
//! Not a compiler: it splits the text into tokens and reads paths (`use` trees, and paths in the code), which is
//! enough for code that rustfmt has seen. Macros that build paths out of pieces would escape it; we have none.

/// A word, `::`, or one other character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The tokens of `text` without comments and literals, where words mean nothing.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let is_word = c.is_alphanumeric() || c == '_';
        let length = match skipped(rest) {
            Some(length) => length,
            None if is_word => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()),
            None if rest.starts_with("::") => 2,
            None => c.len_utf8(),
        };
        if skipped(rest).is_none() && !c.is_whitespace() {
            found.push(Token { line, text: rest[..length].to_owned() });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// How much of `rest` is a comment or a literal, if it starts with one.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let tail = rest.strip_prefix(prefix).unwrap_or("");
        tail.starts_with('"') || (prefix.ends_with('r') && tail.trim_start_matches('#').starts_with('"'))
    });
    if let Some(prefix) = prefix {
        return Some(prefix.len() + string(&rest[prefix.len()..], prefix.ends_with('r')));
    }
    let quote = rest.strip_prefix('b').unwrap_or(rest);
    let before = rest.len() - quote.len();
    let mut chars = quote.char_indices().skip(1);
    match (quote.starts_with('\''), chars.next(), chars.next()) {
        (true, Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            Some(before + after + quote[after..].find('\'').map_or(0, |end| end + 1))
        }
        (true, Some(_), Some((at, '\''))) => Some(before + at + 1),
        // A lifetime.
        _ => None,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string literal at the start of `rest`, from its `#` or quote on.
fn string(rest: &str, raw: bool) -> usize {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = &rest[hashes + 1..];
        return body.find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len());
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A path as the compiler would see it from the crate's root.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

/// All paths of two segments or more in `text`, which is the file of `module`, and all imports.
pub(crate) fn paths(text: &str, module: &[String]) -> Vec<Found> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Inline modules that we are in, with the depth of braces where each ends.
    let (mut inner, mut depth) = (Vec::<(String, usize)>::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].text.as_str();
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text.as_str());
        let mut full = module.to_vec();
        full.extend(inner.iter().map(|(name, _)| name.clone()));
        match word {
            "mod" if next(2) == "{" => {
                inner.push((next(1).to_owned(), depth));
                (depth, at) = (depth + 1, at + 3);
            }
            "use" => at = use_tree(&tokens, at + 1, &[], &full, &mut found),
            "extern" if next(1) == "crate" => {
                found.push(Found { line: tokens[at].line, segments: vec![next(2).to_owned()] });
                at += 3;
            }
            "{" => (depth, at) = (depth + 1, at + 1),
            "}" => {
                depth = usize::saturating_sub(depth, 1);
                inner.pop_if(|(_, outside)| *outside == depth);
                at += 1;
            }
            _ if is_word(word) && next(1) == "::" => at = plain_path(&tokens, at, &full, &mut found),
            _ => at += 1,
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads `a::b::c` at `at`; returns where it ends.
fn plain_path(tokens: &[Token], mut at: usize, module: &[String], found: &mut Vec<Found>) -> usize {
    let (line, mut segments) = (tokens[at].line, Vec::new());
    while tokens.get(at).is_some_and(|token| is_word(&token.text)) {
        segments.push(tokens[at].text.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(Found { line, segments: absolute(&segments, module) });
    at
}

/// Reads a `use` tree at `at`, below `prefix`; returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], module: &[String], found: &mut Vec<Found>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, module, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => at += 2,
            "::" => at += 1,
            segment => {
                path.push(segment.to_owned());
                at += 1;
            }
        }
    }
    if let Some(token) = tokens.get(at.saturating_sub(1)) {
        found.push(Found { line: token.line, segments: absolute(&path, module) });
    }
    at
}

/// `self` and `super` resolved.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|segment| *segment == "super" || *segment == "self").count();
    if ups == 0 {
        return path.to_vec();
    }
    let supers = path[..ups].iter().filter(|segment| *segment == "super").count();
    let mut full = vec!["crate".to_owned()];
    full.extend(module.iter().take(module.len().saturating_sub(supers)).cloned());
    full.extend(path[ups..].iter().cloned());
    full
}
