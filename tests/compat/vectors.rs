//! What the Go version was seen to do: its recordings, byte for byte, cut into sections.
//!
//! Owns the list of files and how each is cut. A section without a case fails the suite (see `main.rs`).

use std::sync::LazyLock;

use regex::Regex;

/// Every recording.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("vectors/README.md")),
    ("controller-start.txt", include_str!("vectors/controller-start.txt")),
    ("controller-vault.txt", include_str!("vectors/controller-vault.txt")),
    ("init-environment.txt", include_str!("vectors/init-environment.txt")),
    ("init-http.txt", include_str!("vectors/init-http.txt")),
    ("init-push-cases.txt", include_str!("vectors/init-push-cases.txt")),
    ("metrics.txt", include_str!("vectors/metrics.txt")),
    ("push.txt", include_str!("vectors/push.txt")),
    ("vault-secret-id", include_str!("vectors/vault-secret-id")),
    ("vault-token", include_str!("vectors/vault-token")),
    ("vault-wrapped-secret-id", include_str!("vectors/vault-wrapped-secret-id")),
];

/// The pushes of push.txt, in its order (README.md of the recordings).
pub(crate) const PUSHES: [&str; 3] = ["http Vault", "caCert", "vaultCABackends"];

/// A part of a recording that stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Section {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
}

/// A whole recording.
pub(crate) fn text(file: &str) -> &'static str {
    let found = FILES.iter().find(|(name, _)| *name == file);
    found.map_or_else(|| panic!("{file} is no recording"), |(_, text)| text)
}

/// The sections of a recording.
pub(crate) fn sections(file: &'static str) -> Vec<Section> {
    let text = text(file);
    match file {
        "README.md" => Vec::new(),
        "push.txt" => {
            let parts: Vec<_> = text.split_terminator("# end\n").collect();
            assert_eq!(parts.len(), PUSHES.len(), "push.txt has another number of pushes");
            parts.into_iter().zip(PUSHES).map(|(text, title)| Section { file, title, text }).collect()
        }
        // A metric is named in the first word after HELP.
        "metrics.txt" => split(file, text, "# HELP ", ' '),
        _ if text.starts_with("### ") => split(file, text, "### ", '\n'),
        _ => vec![Section { file, title: file, text }],
    }
}

fn split(file: &'static str, text: &'static str, marker: &str, end_of_title: char) -> Vec<Section> {
    let parts = text.split(marker).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (title, text) = part.split_once(end_of_title).unwrap_or((part, ""));
            Section { file, title, text }
        })
        .collect()
}

impl Section {
    /// What it says after this text, up to the end of the line.
    pub(crate) fn after(&self, text: &str) -> Option<&'static str> {
        let rest = self.text.split_once(text)?.1;
        rest.lines().next()
    }

    /// The exit code that it reports, as `exit 1` or `init exit 1`.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let line = self.text.lines().find_map(|line| line.strip_prefix("init exit ").or(line.strip_prefix("exit ")));
        line?.split(' ').next()?.parse().ok()
    }

    /// The last log message of the Go version, unescaped; `None` where it logged nothing.
    pub(crate) fn message(&self) -> Option<String> {
        let (_, message) = self.text.rsplit_once("level=fatal msg=\"")?;
        let message = message.lines().next()?.strip_suffix('"')?;
        Some(message.replace("\\\"", "\"").replace("\\n", "\n"))
    }
}

/// A JSON text with each value replaced by its kind: what is left is keys, order and spaces.
pub(crate) fn shape(json: &str) -> String {
    static VALUE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#":("(?:[^"\\]|\\.)*"|-?[0-9]+|true|false)"#).expect("this is a regular expression")
    });
    let kind = |captures: &regex::Captures<'_>| match captures[1].as_bytes()[0] {
        b'"' => ":STRING",
        b't' | b'f' => ":BOOLEAN",
        _ => ":NUMBER",
    };
    VALUE.replace_all(json, kind).into_owned()
}
