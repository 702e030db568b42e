//! Values as YAML that people read: a settled order of keys, comments where they belong, lists of words on one line.
//!
//! Owns the form, and nothing of what is said. The same value is the same text, always: what is in `deploy/` is compared
//! with what is printed, byte by byte. Must never happen: a text that a parser, of YAML 1.1 or 1.2, reads as something
//! else than the text that it was.

use serde_yaml::{Mapping, Value};

/// Comments end here, as all lines that people read do in this project.
const WIDTH: usize = 120;

/// A list of words is on one line up to here.
const SHORT: usize = 80;

/// What a reader looks for first. Keys that are in neither list keep the order that they come in, between the two.
const FIRST: [&str; 24] = [
    "apiVersion",
    "kind",
    "alert",
    "expr",
    "for",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "env",
    "ports",
    "replicas",
    "apiGroups",
    "resources",
    "resourceNames",
    "verbs",
    "podSelector",
    "policyTypes",
];

/// What is long, and looked into after the rest.
const LAST: [&str; 3] = ["initContainers", "containers", "volumes"];

/// Words that YAML 1.1 takes for something else than text. Kubernetes still reads them so.
const NO_TEXT: [&str; 11] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];

/// What may follow a number in a text that is not quoted: durations and quantities, as in `60s` and `64Mi`.
const UNITS: [&str; 7] = ["s", "m", "h", "Ki", "Mi", "Gi", "Ti"];

/// A comment above the value at a path. Paths are JSON pointers.
pub(super) type Note = (String, String);

/// `value` with its comments, as a document of its own, which stands `margin` columns away from the left.
pub(super) fn emit(value: &Value, notes: &[Note], margin: usize) -> String {
    let mut writer = Writer { out: String::new(), notes, width: WIDTH - margin };
    match value {
        Value::Mapping(map) if !map.is_empty() => writer.mapping(map, "", 0, false),
        value => writer.out.push_str(&inline(value)),
    }
    if !writer.out.ends_with('\n') {
        writer.out.push('\n');
    }
    writer.out
}

/// `text` as lines that begin with `#`, each line of it wrapped.
pub(super) fn comment(text: &str) -> String {
    wrapped(text, 0, WIDTH)
}

fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let pad = " ".repeat(indent);
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = format!("{pad}#");
        // An indented line is a command: it stays whole.
        if paragraph.starts_with("  ") {
            line.push(' ');
            line.push_str(paragraph);
        } else {
            for word in paragraph.split_whitespace() {
                if line.len() + 1 + word.len() > width {
                    out.push_str(&line);
                    out.push('\n');
                    line = format!("{pad}#");
                }
                line.push(' ');
                line.push_str(word);
            }
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

struct Writer<'a> {
    out: String,
    notes: &'a [Note],
    width: usize,
}

impl Writer<'_> {
    /// `continued`: its first line goes on after the dash of a list.
    fn mapping(&mut self, map: &Mapping, path: &str, indent: usize, continued: bool) {
        let mut entries: Vec<(&str, &Value)> =
            map.iter().filter_map(|(key, value)| Some((key.as_str()?, value))).collect();
        entries.sort_by_key(|(key, _)| rank(key));
        for (index, (key, value)) in entries.into_iter().enumerate() {
            let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            if !(continued && index == 0) {
                self.note(&path, indent);
                self.pad(indent);
            }
            self.out.push_str(&scalar(key, false));
            self.out.push(':');
            self.value(value, &path, indent);
        }
    }

    /// What stands after a colon.
    fn value(&mut self, value: &Value, path: &str, indent: usize) {
        match value {
            Value::Mapping(map) if !map.is_empty() => {
                self.out.push('\n');
                self.mapping(map, path, indent + 2, false);
            }
            Value::Sequence(items) if !is_short(items, indent) || self.has_notes_below(path) => {
                self.out.push('\n');
                self.sequence(items, path, indent + 2);
            }
            Value::String(text) if is_block(text) => self.block(text, indent + 2),
            value => {
                self.out.push(' ');
                self.out.push_str(&inline(value));
                self.out.push('\n');
            }
        }
    }

    fn sequence(&mut self, items: &[Value], path: &str, indent: usize) {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}/{index}");
            self.note(&path, indent);
            self.pad(indent);
            self.out.push_str("- ");
            match item {
                Value::Mapping(map) if !map.is_empty() => self.mapping(map, &path, indent + 2, true),
                item => {
                    self.out.push_str(&inline(item));
                    self.out.push('\n');
                }
            }
        }
    }

    /// A text of several lines, as it is.
    fn block(&mut self, text: &str, indent: usize) {
        self.out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
        for line in text.lines() {
            if !line.is_empty() {
                self.pad(indent);
            }
            self.out.push_str(line);
            self.out.push('\n');
        }
    }

    fn note(&mut self, path: &str, indent: usize) {
        for (_, text) in self.notes.iter().filter(|(of, _)| of == path) {
            self.out.push_str(&wrapped(text, indent, self.width));
        }
    }

    fn has_notes_below(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        self.notes.iter().any(|(of, _)| of.starts_with(&inside))
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }
}

fn rank(key: &str) -> usize {
    let among = |keys: &[&str]| keys.iter().position(|known| *known == key);
    let last = || among(&LAST).map(|position| FIRST.len() + 1 + position);
    among(&FIRST).or_else(last).unwrap_or(FIRST.len())
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Mapping(_) | Value::Sequence(_) | Value::Tagged(_))
}

fn is_short(items: &[Value], indent: usize) -> bool {
    let length: usize = items.iter().map(|item| inline(item).len() + 2).sum();
    items.iter().all(is_scalar) && indent + length <= SHORT
}

/// Whether a text can stand as a block: lines without anything that a block cannot show.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && !body.chars().any(|c| c.is_control() && c != '\n')
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text, false),
        Value::Sequence(items) => {
            let items: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| json(item), |text| scalar(text, true))).collect();
            format!("[{}]", items.join(", "))
        }
        value => json(value),
    }
}

/// JSON is YAML.
fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn scalar(text: &str, in_list: bool) -> String {
    if is_plain(text, in_list) { text.to_owned() } else { json(&Value::from(text)) }
}

/// Whether `text` needs no quotes, in any version of YAML.
fn is_plain(text: &str, in_list: bool) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let begins_well = match first {
        '0'..='9' => UNITS.contains(&&text[number_ends..]),
        '.' => text.starts_with("../"),
        first => first.is_ascii_alphabetic() || matches!(first, '/' | '$' | '_'),
    };
    let ends_an_item = in_list && text.contains([',', '[', ']', '{', '}']);
    let is_tame = |c: char| c.is_ascii_graphic() || c == ' ';
    begins_well
        && text.chars().all(is_tame)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !ends_an_item
        && !NO_TEXT.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in [
            "",
            " ",
            "a",
            "a b",
            "a: b",
            "a #b",
            "a:",
            "#a",
            "~",
            "~^x$",
            ":9090",
            "--config=/a",
            "yes",
            "No",
            "1",
            "1.5",
            "1e3",
            "0x1f",
            "0o7",
            "12:30",
            "2026-11-28",
            "60s",
            "64Mi",
            "5",
            "1_000",
            "*",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "[a]",
            "{a}",
            "a, b",
            "null",
            "a\nb",
            "a\nb\n",
            "a\nb\n\n",
            "\na\n",
            " a\nb",
            "tab\tx",
            "é",
            "\"q\"",
            "'q'",
            "a\n\n  b\n",
            "$VAULT_ADDR",
            "../base",
            "..",
            "./x",
            "=",
            "<<",
            ".5",
            "+1",
            "-1",
            "-",
            "?",
            "|",
            ">",
            "on",
            "y",
        ] {
            let map: Value = serde_json::from_value(
                serde_json::json!({"key": text, "list": [text], "deep": [{"x": text}], text: 1}),
            )
            .unwrap();
            let written = emit(&map, &[], 0);
            assert_eq!(value(&written), map, "{text:?}:\n{written}");
        }
        for other in ["{}", "[]", "a: {}\nb: []\nc: null\nd: 1\ne: true\nf: [1, true]\n", "a: [[1, {b: c}]]"] {
            let written = emit(&value(other), &[], 0);
            assert_eq!(value(&written), value(other), "{written}");
        }
    }

    #[test]
    fn names_come_first_and_comments_stand_above() {
        let object =
            value("{spec: {replicas: 3, list: [{value: 1, name: a}], verbs: [get, list]}, kind: K, apiVersion: v1}");
        let notes = [
            ("/spec/replicas".to_owned(), "Three.\nNot two.".to_owned()),
            ("/spec/list/0".to_owned(), "The first.".to_owned()),
        ];
        assert_eq!(
            emit(&object, &notes, 0),
            "apiVersion: v1\nkind: K\nspec:\n  # Three.\n  # Not two.\n  replicas: 3\n  verbs: [get, list]\n  list:\n    \
             # The first.\n    - name: a\n      value: 1\n"
        );
    }

    #[test]
    fn a_comment_is_wrapped_and_a_command_in_it_is_not() {
        let text = format!("{}\n  kubectl {}", "word ".repeat(40), "x".repeat(150));
        let written = wrapped(&text, 4, WIDTH);
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[..2].iter().all(|line| line.len() <= WIDTH && line.starts_with("    # word")), "{written}");
        assert!(lines[2].starts_with("    #   kubectl x"));
    }
}
