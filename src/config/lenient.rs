//! Reading typed values out of the tree, as leniently as the Go version did.
//!
//! Purpose: keys without regard to case, a scalar where a list is due, a number for a text, a text for a boolean,
//! environment variables expanded in every text. Owns the collection of everything that is wrong, so that all of
//! it is reported at once. It never decides what a value means: the sections do.

use super::error::{Finding, Problem, Warning};
use super::expand::expand;
use super::tree::{Node, Step, Value, line_of};

/// What reading needs and what it finds.
pub(super) struct Context<'a> {
    yaml: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

/// A key, and where it stands in the file if it does.
#[derive(Clone)]
pub(super) struct Spot {
    pub(super) key: String,
    pub(super) at: Option<Vec<Step>>,
}

/// A value and the place it came from.
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

/// A mapping of the file, or what stands for one that is not there.
pub(super) struct Section<'n> {
    prefix: String,
    entries: &'n [(String, Node)],
}

impl<'a> Context<'a> {
    pub(super) fn new(yaml: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { yaml, env, problems: Vec::new(), warnings: Vec::new() }
    }

    /// `text` continues a sentence that starts with the key, and must not hold a value.
    pub(super) fn problem(&mut self, spot: &Spot, text: impl Into<String>) {
        let finding = self.finding(spot, text.into());
        self.problems.push(Problem::new(finding));
    }

    /// As [`Self::problem`], for what does not keep us from starting.
    pub(super) fn warn(&mut self, spot: &Spot, text: impl Into<String>) {
        let finding = self.finding(spot, text.into());
        self.warnings.push(Warning::new(finding));
    }

    fn finding(&self, spot: &Spot, text: String) -> Finding {
        let line = spot.at.as_deref().and_then(|at| line_of(self.yaml, at));
        Finding { key: spot.key.clone(), line, text }
    }
}

impl Spot {
    /// A key that is not in the file.
    pub(super) fn absent(key: impl Into<String>) -> Self {
        Self { key: key.into(), at: None }
    }
}

impl<'n> Section<'n> {
    /// The whole file. An empty file is an empty mapping: then everything required is missing, which says more.
    pub(super) fn root(node: &'n Node, cx: &mut Context<'_>) -> Self {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Text(_) | Value::List(_) => {
                cx.problem(&Spot::absent(""), "must be a mapping of keys, such as \"vault:\"");
                &[]
            }
        };
        Self { prefix: String::new(), entries }
    }

    /// The full name of a key of this section.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Where `name` stands, or would.
    pub(super) fn spot(&self, name: &str) -> Spot {
        Spot { key: self.key(name), at: self.find(name).map(|node| node.at.clone()) }
    }

    /// The mapping under `name`; an empty one where there is none.
    pub(super) fn section(&self, name: &str, cx: &mut Context<'_>) -> Self {
        let entries = match self.find(name).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.as_slice(),
            None | Some(Value::Null) => &[],
            Some(Value::Text(_) | Value::List(_)) => {
                cx.problem(&self.spot(name), "must be a mapping of keys");
                &[]
            }
        };
        Self { prefix: self.key(name), entries }
    }

    /// A text, expanded; `None` where it is not set, null or empty.
    pub(super) fn text(&self, name: &str, cx: &mut Context<'_>) -> Option<Setting<String>> {
        let spot = self.spot(name);
        match &self.find(name)?.value {
            Value::Null => None,
            Value::Text(text) => scalar(text, spot, cx),
            Value::List(_) | Value::Map(_) => {
                cx.problem(&spot, "must be a single value, not a list or a mapping");
                None
            }
        }
    }

    /// A list of texts, expanded. One text stands for a list: the Go version split it at commas, so we do too.
    pub(super) fn list(&self, name: &str, cx: &mut Context<'_>) -> Option<Setting<Vec<Setting<String>>>> {
        let spot = self.spot(name);
        let items = match &self.find(name)?.value {
            Value::Null => Vec::new(),
            Value::Text(text) => {
                scalar(text, spot.clone(), cx).map(|setting| split_at_commas(&setting)).unwrap_or_default()
            }
            Value::List(nodes) => {
                nodes.iter().enumerate().filter_map(|(index, node)| self.item(name, index, node, cx)).collect()
            }
            Value::Map(_) => {
                cx.problem(&spot, "must be a list, or a single value");
                return None;
            }
        };
        (!items.is_empty()).then_some(Setting { value: items, spot })
    }

    fn item(&self, name: &str, index: usize, node: &Node, cx: &mut Context<'_>) -> Option<Setting<String>> {
        let key = format!("{}[{index}]", self.key(name));
        let spot = Spot { key, at: Some(node.at.clone()) };
        let item = match &node.value {
            Value::Text(text) => Setting { value: expand(text, cx.env), spot },
            Value::Null => Setting { value: String::new(), spot },
            Value::List(_) | Value::Map(_) => {
                cx.problem(&spot, "must be a single value, not a list or a mapping");
                return None;
            }
        };
        if item.value.is_empty() {
            // Dropping it could leave a trust decision (which CAs?) to chance.
            cx.problem(&item.spot, "is empty: remove the item, or set the environment variable that it names");
            return None;
        }
        Some(item)
    }

    /// A boolean; false where it is not set.
    pub(super) fn flag(&self, name: &str, cx: &mut Context<'_>) -> bool {
        let Some(Setting { value, spot }) = self.text(name, cx) else {
            return false;
        };
        // Go's strconv.ParseBool and YAML 1.1: the Go version took both.
        match value.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" | "on" => true,
            "false" | "f" | "0" | "no" | "n" | "off" => false,
            _ => {
                cx.problem(&spot, "must be true or false");
                false
            }
        }
    }

    fn find(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, node)| node)
    }
}

fn scalar(text: &str, spot: Spot, cx: &mut Context<'_>) -> Option<Setting<String>> {
    let value = expand(text, cx.env);
    if value.is_empty() && !text.is_empty() {
        // The variable is not named: what looks like one may be the rest of a password with a `$` in it.
        cx.warn(&spot, "is empty once environment variables are expanded, and counts as not set");
    }
    (!value.is_empty()).then_some(Setting { value, spot })
}

fn split_at_commas(setting: &Setting<String>) -> Vec<Setting<String>> {
    setting
        .value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| Setting { value: part.to_owned(), spot: setting.spot.clone() })
        .collect()
}
