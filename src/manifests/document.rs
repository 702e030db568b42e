//! One object with the comments that explain it, and files made of such.
//!
//! Owns how documents become files. A comment belongs to a path of its object; one that belongs nowhere is a mistake
//! that a test finds.

use serde::Serialize;
use serde_yaml::Value;

use super::yaml::{self, Note};

/// The first line of every file: who made it, and where changes belong. A file without it is not ours to overwrite.
pub(super) const MARK: &str =
    "# Made by `kubernetes-vault manifests`. Changes belong into its flags or an overlay of your own: docs/install.md";

/// An object, in the file that it stands in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    /// The name of the file, in the folder of its case.
    pub(super) file: &'static str,
    /// The object.
    pub(super) value: Value,
    head: String,
    notes: Vec<Note>,
}

impl Document {
    /// `object`, for the file of that name.
    pub(super) fn new(file: &'static str, object: &impl Serialize) -> Self {
        let value = serde_yaml::to_value(object).expect("an object of Kubernetes has a form in YAML");
        Self { file, value, head: String::new(), notes: Vec::new() }
    }

    /// What stands above it.
    pub(super) fn head(mut self, text: impl Into<String>) -> Self {
        self.head = text.into();
        self
    }

    /// A comment above the value at `path`, a JSON pointer.
    pub(super) fn note(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.notes.push((path.into(), text.into()));
        self
    }

    /// Comments on what lies below `path`.
    pub(super) fn notes(mut self, path: &str, notes: &[(&str, &str)]) -> Self {
        self.notes.extend(notes.iter().map(|(below, text)| (format!("{path}{below}"), (*text).to_owned())));
        self
    }

    /// As YAML, its comments included.
    pub(super) fn text(&self) -> String {
        yaml::comment(&self.head) + &yaml::emit(&self.value, &self.notes, 0)
    }

    /// Comments that are above nothing.
    #[cfg(test)]
    pub(super) fn lost_notes(&self) -> Vec<&str> {
        let value = serde_json::to_value(&self.value).unwrap();
        self.notes.iter().map(|(path, _)| path.as_str()).filter(|path| value.pointer(path).is_none()).collect()
    }
}

/// Documents, one after another, as `kubectl apply -f` takes them.
pub(super) fn join<'a>(documents: impl IntoIterator<Item = &'a Document>) -> String {
    let texts: Vec<String> = documents.into_iter().map(Document::text).collect();
    format!("{MARK}\n{}", texts.join("---\n"))
}
