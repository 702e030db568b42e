//! Known keys and unknown ones.
//!
//! Purpose: say what is ignored, and what was probably meant. The keys are those of [`super::reference`]. It never reads
//! a value; a key that looks like a token is not repeated either.

use super::lenient::{Context, Spot};
use super::reference::KEYS;
use super::suggest::nearest;
use super::tree::{Node, Value};

/// Longest part of an unknown key that is repeated in a message.
const SHOWN_CHARS: usize = 64;

/// Reports unknown keys, and keys that are written twice.
pub(super) fn check(root: &Node, cx: &mut Context<'_>) {
    walk(root, "", cx);
}

fn walk(node: &Node, prefix: &str, cx: &mut Context<'_>) {
    let Value::Map(entries) = &node.value else {
        return;
    };
    report_duplicates(entries, prefix, cx);
    for (key, child) in entries {
        let path = join(prefix, key);
        let spot = Spot { key: join(prefix, &shown(key)), at: Some(child.at.clone()) };
        if is_key(&path) {
            continue;
        }
        if is_section(&path) {
            walk(child, &path, cx);
        } else {
            let text = match nearest(&spot.key, candidates().into_iter()) {
                Some(known) => {
                    format!("is an unknown key and is ignored; the nearest known key is {known}")
                }
                None => "is an unknown key and is ignored".to_owned(),
            };
            cx.warn(&spot, text);
        }
    }
}

/// Which of two values would win is nobody's guess to make.
fn report_duplicates(entries: &[(String, Node)], prefix: &str, cx: &mut Context<'_>) {
    for (index, (key, node)) in entries.iter().enumerate() {
        if entries[..index].iter().any(|(earlier, _)| earlier.to_lowercase() == key.to_lowercase()) {
            let spot = Spot { key: join(prefix, &shown(key)), at: Some(node.at.clone()) };
            cx.problem(&spot, "is set twice: keep one (upper and lower case are the same)");
        }
    }
}

/// All keys and all sections: a whole section may be misspelt.
fn candidates() -> Vec<&'static str> {
    let mut all: Vec<&str> = Vec::new();
    for key in KEYS {
        all.push(key.name);
        all.extend(key.name.match_indices('.').map(|(end, _)| &key.name[..end]));
    }
    all.dedup();
    all
}

fn is_key(path: &str) -> bool {
    KEYS.iter().any(|key| key.name.eq_ignore_ascii_case(path))
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| {
        let head = key.name.get(..path.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(path)) && key.name.as_bytes().get(path.len()) == Some(&b'.')
    })
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// An unknown key as a message may repeat it: one line, short, and not a token that slipped in front of a colon.
fn shown(key: &str) -> String {
    if looks_like_token(key) {
        return "(a key that looks like a token)".to_owned();
    }
    key.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The forms in which Vault generates tokens: `hvs.`, `hvb.`, `hvr.`, and the older `s.`, `b.`, `r.`.
pub(super) fn looks_like_token(text: &str) -> bool {
    const PREFIXES: [&str; 6] = ["hvs.", "hvb.", "hvr.", "s.", "b.", "r."];
    // The shortest generated token is 26 characters; shortened ones count as well.
    text.len() >= 12 && !text.contains('/') && PREFIXES.iter().any(|prefix| text.contains(prefix))
}
