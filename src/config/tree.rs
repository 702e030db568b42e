//! The configuration file as a tree, before anything is known about its keys.
//!
//! Purpose: YAML in, nested keys and texts out. Owns the reading of scalars as they are written (`60`, `1.10` and
//! `yes` stay those characters), merge keys, and finding the line of a node again. It never puts a value into an
//! error: what the parser says about a value is dropped, what it says about syntax is kept.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// One step from a node to a node below it, by position: keys may be written twice.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Key(usize),
    Item(usize),
}

/// A node of the tree and where it stands.
pub(super) struct Node {
    pub(super) at: Vec<Step>,
    pub(super) value: Value,
}

pub(super) enum Value {
    Null,
    /// A scalar, in the characters of the file (escapes and quotes resolved).
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Why there is no tree. The text says nothing of any value.
pub(super) struct SyntaxError {
    pub(super) line: Option<usize>,
    pub(super) what: String,
}

/// Reads the first document of `yaml`; the flag says whether more follow.
pub(super) fn parse(yaml: &str) -> Result<(Node, bool), SyntaxError> {
    // Syntax first, with every value ignored: what goes wrong here is told in the parser's fixed phrases.
    let syntax = |error: serde_yaml::Error| SyntaxError {
        line: error.location().map(|location| location.line()),
        what: format!("is not valid YAML: {error}"),
    };
    let mut documents = 0;
    for document in serde_yaml::Deserializer::from_str(yaml) {
        // The later ones too: a section that is indented wrongly looks like the start of another document.
        IgnoredAny::deserialize(document).map_err(syntax)?;
        documents += 1;
    }
    // From here on a message could quote a value (`!!int hunter2`), so only its line is used.
    let content = |error: serde_yaml::Error| SyntaxError {
        line: error.location().map(|location| location.line()),
        what: "holds something that a configuration cannot: a key that is not text, a value that does not fit \
               its tag, nesting without end or too many aliases"
            .to_owned(),
    };
    let shape = Shape::deserialize(first_document(yaml)).map_err(content)?;
    let seed = Seed { shape: &shape, at: Vec::new() };
    let mut root = seed.deserialize(first_document(yaml)).map_err(content)?;
    merge(&mut root);
    Ok((root, documents > 1))
}

/// The line, from 1, on which the key or list item at `at` stands.
pub(super) fn line_of(yaml: &str, at: &[Step]) -> Option<usize> {
    // The parser tells positions in errors only: so walk to the place and fail there.
    let error = Locate(at).deserialize(first_document(yaml)).err()?;
    error.location().map(|location| location.line())
}

/// The Go version read the first document of a file and no other.
fn first_document(yaml: &str) -> serde_yaml::Deserializer<'_> {
    serde_yaml::Deserializer::from_str(yaml).next().unwrap_or_else(|| serde_yaml::Deserializer::from_str(""))
}

/// Resolves `<<: *anchor`: keys of the mapping itself win over merged ones, earlier merges over later ones.
fn merge(node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Text(_) => {}
        Value::List(items) => items.iter_mut().for_each(merge),
        Value::Map(entries) => {
            for (_, child) in entries.iter_mut() {
                merge(child);
            }
            let (merges, mut own): (Vec<_>, Vec<_>) =
                std::mem::take(entries).into_iter().partition(|(key, _)| key == "<<");
            for (key, source) in merges {
                let sources = match source.value {
                    Value::List(items) => items,
                    value => vec![Node { at: source.at, value }],
                };
                for source in sources {
                    match source.value {
                        Value::Map(merged) => {
                            let seen: Vec<String> = own.iter().map(|(key, _)| key.to_lowercase()).collect();
                            own.extend(merged.into_iter().filter(|(key, _)| !seen.contains(&key.to_lowercase())));
                        }
                        // Not something that can be merged: stays, and is reported as an unknown key.
                        value => own.push((key.clone(), Node { at: source.at, value })),
                    }
                }
            }
            *entries = own;
        }
    }
}

/// What kind each node is. Scalars are read a second time by [`Seed`]: the parser gives either a scalar's type or
/// its characters.
enum Shape {
    Null,
    Text,
    List(Vec<Shape>),
    Map(Vec<Shape>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }
    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }
    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut values = Vec::new();
        while let Some((IgnoredAny, value)) = map.next_entry()? {
            values.push(value);
        }
        Ok(Shape::Map(values))
    }
    /// A local tag (`!thing`) says nothing to us, nor did it to the Go version.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Shape, A::Error> {
        let (IgnoredAny, content) = data.variant()?;
        content.newtype_variant()
    }
}

/// Reads a node whose shape is known.
struct Seed<'s> {
    shape: &'s Shape,
    at: Vec<Step>,
}

impl Seed<'_> {
    fn child<'c>(&self, shape: &'c Shape, step: Step) -> Seed<'c> {
        let mut at = self.at.clone();
        at.push(step);
        Seed { shape, at }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.shape {
            Shape::Null => {
                IgnoredAny::deserialize(deserializer)?;
                Ok(Node { at: self.at, value: Value::Null })
            }
            Shape::Text => {
                let text = String::deserialize(deserializer)?;
                Ok(Node { at: self.at, value: Value::Text(text) })
            }
            Shape::List(_) => deserializer.deserialize_seq(self),
            Shape::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the first pass saw")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let Shape::List(shapes) = self.shape else {
            return Err(A::Error::custom("not a list"));
        };
        let mut items = Vec::with_capacity(shapes.len());
        for (index, shape) in shapes.iter().enumerate() {
            items.extend(seq.next_element_seed(self.child(shape, Step::Item(index)))?);
        }
        // The parser wants to be told that the list is over.
        seq.next_element::<IgnoredAny>()?;
        Ok(Node { at: self.at, value: Value::List(items) })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let Shape::Map(shapes) = self.shape else {
            return Err(A::Error::custom("not a mapping"));
        };
        let mut entries = Vec::with_capacity(shapes.len());
        for (index, shape) in shapes.iter().enumerate() {
            if let Some(key) = map.next_key::<String>()? {
                let value = map.next_value_seed(self.child(shape, Step::Key(index)))?;
                entries.push((key, value));
            }
        }
        map.next_key::<IgnoredAny>()?;
        Ok(Node { at: self.at, value: Value::Map(entries) })
    }
}

/// Walks to a place and fails there.
struct Locate<'s>(&'s [Step]);

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.first() {
            // No method of this visitor accepts anything, so this always fails, at the place wanted.
            None => deserializer.deserialize_any(Refuse),
            Some(Step::Key(_)) => deserializer.deserialize_map(self),
            Some(Step::Item(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Item(wanted), below)) = self.0.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Locate(below)).map(drop)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), below)) = self.0.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if below.is_empty() {
            // The line of the key, not of its value: a value may start lines later.
            return map.next_key_seed(Locate(below)).map(drop);
        }
        map.next_key::<IgnoredAny>()?;
        map.next_value_seed(Locate(below))
    }
}

struct Refuse;

impl Visitor<'_> for Refuse {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}
