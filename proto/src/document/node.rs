//! A parsed document as a tree in which every value knows where it stands.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Error, Location, Options, Spanned,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

use super::{
    MAX_FILE,
    tag::{self, RefusedTag},
};

/// Lists, maps and scalars in one document: a policy with a thousand rules has a tenth of it.
const MAX_NODES: usize = 20_000;
/// The deepest document of ours has 9 levels. The parser recurses.
const MAX_DEPTH: usize = 32;
/// Aliases repeat what was written once; few documents need any.
const MAX_ALIASES: usize = 100;

/// Counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    pub(super) fn of(location: &Location) -> Self {
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
        Self {
            line: number(location.line()),
            column: number(location.column()),
        }
    }

    pub(super) const fn below(self, lines: u32) -> Self {
        Self {
            line: self.line.saturating_add(lines),
            column: self.column,
        }
    }
}

/// Why a text is no document. Places are those in the text.
#[derive(Debug)]
pub(super) enum Unparsable {
    Yaml(Box<Error>),
    /// The parser takes it, and we don't.
    Tag(RefusedTag),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// An integer that is larger: there is nothing that could be one.
    Large,
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document; keys are unique.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Position,
    pub value: Node,
}

impl Node {
    /// Parses one document whose text stands below `lines_before` other lines.
    pub(super) fn parse(text: &str, lines_before: u32) -> Result<Self, Unparsable> {
        let parsed: Located = serde_saphyr::from_str_with_options(text, options())
            .map_err(|error| Unparsable::Yaml(Box::new(error)))?;
        match tag::refused(text) {
            Some(tag) => Err(Unparsable::Tag(tag)),
            None => Ok(parsed.into_node(lines_before)),
        }
    }

    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of a key, if this is a map that has one there.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.value.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Value {
    /// For messages: "expected X, found ...".
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Large | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: MAX_DEPTH,
            // the reader ahead of the parser, which does not recurse: deeper than what is refused
            // as too deep, so that this is what is said
            flow_nesting_limit: 4 * MAX_DEPTH,
            max_documents: 1,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_FILE,
            max_total_scalar_bytes: MAX_FILE,
            max_total_comment_bytes: MAX_FILE,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // a merge can widen a rule where nobody looks
        merge_keys: MergeKeyPolicy::Error,
        // `namespace: no` is a namespace
        strict_booleans: true,
        reject_unsupported_tags: true,
        // messages may travel to places where the document may not
        with_snippet: false,
    }
}

/// What the parser gives: a value, and the lines of the text that it was parsed from.
struct Located(Spanned<Parsed>);

enum Parsed {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

impl Located {
    /// Recursion is bounded by `MAX_DEPTH`.
    fn into_node(self, lines_before: u32) -> Node {
        let at = Position::of(&self.0.referenced).below(lines_before);
        let value = match self.0.value {
            Parsed::Scalar(value) => value,
            Parsed::List(items) => {
                let nodes = items.into_iter().map(|item| item.into_node(lines_before));
                Value::List(as_large_as_needed(nodes))
            }
            Parsed::Map(entries) => {
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| entry(key, value, lines_before));
                Value::Map(as_large_as_needed(entries))
            }
        };
        Node { at, value }
    }
}

fn entry(key: Spanned<String>, value: Located, lines_before: u32) -> Entry {
    let at = Position::of(&key.referenced).below(lines_before);
    let mut value = value.into_node(lines_before);
    if value.value == Value::Null {
        // nothing stands nowhere: its key is where to look
        value.at = at;
    }
    Entry {
        at,
        key: key.value,
        value,
    }
}

/// `collect` would go on using the memory of what was parsed, which is three times as large, and
/// documents are held for as long as they are in force.
fn as_large_as_needed<T>(items: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut all = Vec::with_capacity(items.len());
    all.extend(items);
    all
}

fn integer(value: i128) -> Value {
    match i64::try_from(value) {
        Ok(value) => Value::Integer(value),
        Err(_) => Value::Large,
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(integer(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(integer(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Parsed, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Parsed::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Parsed, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Parsed::Map(entries))
    }
}
